"""Builds the AI Gateway's data plane: what stands between a request and a provider."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random

from openworks.api.context import Services
from openworks.api.gateway.local import LocalModels
from openworks.app.settings import GatewaySettings
from openworks.core.clock import Clock
from openworks.core.errors import AppError
from openworks.gateway.attempts import Asker
from openworks.gateway.caching.flights import SingleFlight
from openworks.gateway.caching.semantic import SemanticCache
from openworks.gateway.guard.chat_moderator import ChatModerator
from openworks.gateway.http.choice import open_transport
from openworks.gateway.parts import Parts
from openworks.gateway.plane import DataPlane
from openworks.gateway.policy import Policies
from openworks.gateway.providers.google_tokens import GoogleTokens
from openworks.gateway.providers.prices import Prices
from openworks.gateway.providers.registry import Providers
from openworks.gateway.resilience.backoff import RetryBudgets
from openworks.gateway.resilience.breaker import Breakers
from openworks.gateway.resilience.choice import Scoreboard
from openworks.ports.answers_cache import AnswerCache
from openworks.ports.calls import LOCAL_PROVIDER
from openworks.ports.catalog import Models, Price
from openworks.ports.limits import Limiter
from openworks.ports.recorder import Recorder
from openworks.ports.snapshots import Snapshots
from openworks.ports.text import Embedder
from openworks.ports.upstream import Timeouts, Transport, UpstreamRequest
from openworks.services.keys import Keys


class AllPrices:
    """What providers' models cost, and what this server's own do."""

    def __init__(self, providers: Prices, models: Models) -> None:
        self._providers = providers
        self._models = models

    def price(self, provider: str, model: str) -> Price | None:
        if provider == LOCAL_PROVIDER:
            try:
                return self._models.resolve(model).entry.price
            except AppError:
                pass
        return self._providers.price(provider, model)


@asynccontextmanager
async def open_data_plane(
    settings: GatewaySettings,
    *,
    keys: Keys,
    snapshots: Snapshots,
    models: Models,
    limiter: Limiter,
    cache: AnswerCache,
    recorders: Sequence[Recorder],
    services: Callable[[], Services],
    ask_model: Callable[[str], Awaitable[str]],
    embedder: Embedder,
    clock: Clock,
) -> AsyncIterator[DataPlane]:
    """Open connections to providers for as long as the block lasts.

    Args:
        settings: Of the gateway.
        keys: Who may call.
        snapshots: The gateways.
        models: This server's own.
        limiter: Counts requests and money.
        cache: Keeps answers.
        recorders: Take what calls leave.
        services: Returns what handlers of this server's own models need, once there is all of it.
        ask_model: Asks the embedded chat model, for guardrails.
        embedder: Compares questions, where a gateway's cache is semantic.
        clock: Of this process.
    """
    # Neither secrets nor anything that must not be guessed comes from it: jitter, ids of calls.
    rng = Random()
    transport = open_transport(settings.http)
    try:
        parts = Parts(
            asker=Asker(
                transport=transport,
                tokens=GoogleTokens(_fetch_by(transport, settings.timeouts), clock),
                breakers=Breakers(clock),
                budgets=RetryBudgets(clock),
                scores=Scoreboard(clock),
                clock=clock,
                rng=rng,
            ),
            limiter=limiter,
            cache=cache,
            semantic=SemanticCache(embedder=embedder, clock=clock),
            flights=SingleFlight(),
            prices=AllPrices(Prices(), models),
            local=LocalModels(services),
            recorders=recorders,
            timeouts=settings.timeouts,
            clock=clock,
            rng=rng,
        )
        yield DataPlane(
            callers=keys,
            snapshots=snapshots,
            policies=Policies(
                Providers(base_urls=settings.base_urls),
                moderator=ChatModerator(ask_model),
                allow_private=settings.allow_private_providers,
            ),
            parts=parts,
            rng=rng,
        )
    finally:
        await transport.close()


def _fetch_by(
    transport: Transport, timeouts: Timeouts
) -> Callable[[UpstreamRequest], Awaitable[tuple[int, bytes]]]:
    async def fetch(request: UpstreamRequest) -> tuple[int, bytes]:
        response = await transport.send(request, timeouts)
        return response.status, await response.read()

    return fetch
