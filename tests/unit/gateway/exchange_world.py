"""A data plane around fakes: a scripted provider, a limiter, a recorder, and time that stands."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from openworks.core.ids import AccountId, KeyId
from openworks.gateway.attempts import Asker
from openworks.gateway.caching.flights import SingleFlight
from openworks.gateway.caching.memory import MemoryAnswerCache
from openworks.gateway.caching.semantic import SemanticCache
from openworks.gateway.exchange import Exchange
from openworks.gateway.messages import GatewayAnswer, GatewayRequest
from openworks.gateway.parts import Parts
from openworks.gateway.plane import DataPlane, Opening
from openworks.gateway.policy import Policies
from openworks.gateway.providers.base import Credential as ReadCredential
from openworks.gateway.providers.registry import Providers
from openworks.gateway.resilience.backoff import RetryBudgets
from openworks.gateway.resilience.breaker import Breakers
from openworks.gateway.resilience.choice import Scoreboard
from openworks.ports.calls import CallRecord, Principal
from openworks.ports.catalog import Price
from openworks.ports.gateways import Gateway, GatewayId
from openworks.ports.moderation import Moderator
from openworks.ports.snapshots import Credential, GatewaySnapshot
from openworks.ports.text import Embedder
from openworks.ports.upstream import Headers, Timeouts, UpstreamError, UpstreamRequest
from tests.fakes import (
    FakeCallers,
    FakeClock,
    FakeLimiter,
    FakeTransport,
    MemoryRecorder,
    MemorySnapshots,
    Said,
)

ACCOUNT = AccountId("acme")
KEY = "sk-ow-ours"
PROVIDER_KEY = b"Bearer sk-theirs"
CHAT = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hi"}]}
ANSWER = json.dumps(
    {
        "choices": [{"message": {"content": "hello"}}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5},
    }
).encode()
COST_USD = 10 * 1e-6 + 5 * 2e-6
EVENTS = (
    b'{"choices":[{"delta":{"content":"hel"}}]}',
    b'{"choices":[{"delta":{"content":"lo"}}]}',
    b'{"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5}}',
    b"[DONE]",
)


def lost(kind: Any = "reset") -> UpstreamError:
    return UpstreamError("The provider went away.", kind=kind, unread=False)


class _Prices:
    def price(self, provider: str, model: str) -> Price | None:
        if model.startswith("gpt"):
            return Price(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)
        return None


class FakeTokens:
    """Google's tokens, or the error in their place."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    async def complete(self, credential: ReadCredential) -> ReadCredential:
        if self.error is not None:
            raise self.error
        return replace(credential, google=None, headers=((b"authorization", b"Bearer token"),))


class _Local:
    def __init__(self, transport: FakeTransport) -> None:
        self.inside = transport
        self.principals: list[Principal] = []

    def transport(self, principal: Principal) -> FakeTransport:
        self.principals.append(principal)
        return self.inside


@dataclass
class World:
    clock: FakeClock
    provider: FakeTransport
    inside: FakeTransport
    """This server's own models."""
    limiter: FakeLimiter
    recorder: MemoryRecorder
    snapshots: MemorySnapshots
    callers: FakeCallers
    tokens: FakeTokens
    cache: MemoryAnswerCache
    flights: SingleFlight
    asker: Asker
    breakers: Breakers
    plane: DataPlane

    @property
    def record(self) -> CallRecord:
        """The only record."""
        (record,) = self.recorder.records
        return record

    def set(self, *, credentials: Sequence[Credential] = (), **fields: Any) -> None:
        """Give the account's gateway other fields."""
        (place,) = (each for each in self.snapshots.by_place if each[0] == ACCOUNT)
        before = self.snapshots.by_place[place]
        made = snapshot(credentials=credentials, **fields)
        self.snapshots.by_place[place] = replace(
            made, routes=before.routes, custom_providers=before.custom_providers
        )

    def request(
        self,
        body: Any = CHAT,
        *,
        path: str = "openai/chat/completions",
        headers: Mapping[str, str] | None = None,
        key: str | None = KEY,
        account: str = ACCOUNT,
        gateway: str = "gw",
        method: bytes = b"POST",
    ) -> GatewayRequest:
        provider, _, endpoint = path.partition("/")
        sent: Headers = [(b"content-type", b"application/json")]
        if key is not None:
            sent.append((b"cf-aig-authorization", b"Bearer " + key.encode()))
        if provider not in ("", "workers-ai") and "authorization" not in (headers or {}):
            sent.append((b"authorization", PROVIDER_KEY))
        sent += [(k.encode(), v.encode()) for k, v in (headers or {}).items() if v]
        return GatewayRequest(
            method=method,
            account=account,
            gateway=gateway,
            provider=provider,
            endpoint=endpoint,
            query=b"",
            headers=sent,
            body=body if isinstance(body, bytes) else json.dumps(body).encode(),
            route="/gateway/v1/{account}/{gateway}",
        )

    def begin(self, *args: Any, **options: Any) -> GatewayAnswer | Exchange | Opening:
        return self.plane.begin(self.request(*args, **options))

    async def call(self, *args: Any, **options: Any) -> GatewayAnswer:
        begun = self.begin(*args, **options)
        return begun if isinstance(begun, GatewayAnswer) else await begun.run()

    async def whole(self, *args: Any, **options: Any) -> bytes:
        return await all_of(await self.call(*args, **options))

    def settled(self) -> Any:
        """What the only admission settled for, once."""
        (admission,) = self.limiter.admissions
        (settled,) = admission.settled
        return settled


async def all_of(answer: GatewayAnswer) -> bytes:
    if answer.body is not None:
        return answer.body
    assert answer.chunks is not None
    return b"".join([bytes(chunk) async for chunk in answer.chunks])


def header(answer: GatewayAnswer, name: bytes) -> bytes | None:
    return next((value for key, value in answer.headers if key == name), None)


def message(answer: GatewayAnswer) -> str:
    text: str = json.loads(answer.body or b"")["message"]
    return text


def sent_headers(request: UpstreamRequest) -> dict[bytes, bytes]:
    return dict(request.headers)


def snapshot(
    *,
    credentials: Sequence[Credential] = (),
    gateway_id: str = "gw",
    account: AccountId = ACCOUNT,
    **fields: Any,
) -> GatewaySnapshot:
    gateway = Gateway(account_id=account, id=GatewayId(gateway_id), **fields)
    return GatewaySnapshot(
        gateway=gateway,
        credentials={(each.provider_slug, each.alias): each for each in credentials},
        defaults={each.provider_slug: each for each in credentials if each.is_default},
    )


def stored(secret: str, *, alias: str = "default", provider: str = "openai") -> Credential:
    return Credential(
        id=f"cred-{alias}",
        provider_slug=provider,
        alias=alias,
        is_default=alias == "default",
        secret=secret,
    )


def principal(
    account: AccountId = ACCOUNT, key: str = "key_1", allowed: frozenset[str] | None = None
) -> Principal:
    return Principal(
        account_id=account,
        key_id=KeyId(key),
        scopes=frozenset({"inference"}),
        allowed_models=allowed,
    )


def make_world(*, moderator: Moderator | None = None, embedder: Embedder | None = None) -> World:
    clock = FakeClock()
    semantic = None if embedder is None else SemanticCache(embedder=embedder, clock=clock)
    provider, inside = FakeTransport(clock), FakeTransport(clock)
    provider.script.append(Said(body=ANSWER))
    inside.script.append(Said(body=ANSWER))
    limiter, recorder, tokens = FakeLimiter(), MemoryRecorder(), FakeTokens()
    snapshots, callers = MemorySnapshots(snapshot()), FakeCallers()
    callers.by_secret[KEY] = principal()
    cache, flights = MemoryAnswerCache(max_bytes=1 << 20, clock=clock), SingleFlight()
    breakers = Breakers(clock)
    asker = Asker(
        transport=provider,
        tokens=tokens,
        breakers=breakers,
        budgets=RetryBudgets(clock),
        scores=Scoreboard(clock),
        clock=clock,
        rng=Random(7),
    )
    parts = Parts(
        asker=asker,
        limiter=limiter,
        cache=cache,
        flights=flights,
        semantic=semantic,
        prices=_Prices(),
        local=_Local(inside),
        recorders=[recorder],
        timeouts=Timeouts(),
        clock=clock,
        rng=Random(8),
    )
    plane = DataPlane(
        callers=callers,
        snapshots=snapshots,
        policies=Policies(Providers(), moderator=moderator),
        parts=parts,
        rng=Random(9),
    )
    return World(
        clock, provider, inside, limiter, recorder, snapshots, callers, tokens, cache, flights,
        asker, breakers, plane,
    )  # fmt: skip


async def settle(turns: int = 5) -> None:
    """Let every task that can run do so."""
    for _ in range(turns):
        await asyncio.sleep(0)
