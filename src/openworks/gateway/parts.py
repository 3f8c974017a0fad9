"""What all exchanges share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from openworks.core.clock import Clock
from openworks.gateway.attempts import Asker
from openworks.gateway.caching.flights import SingleFlight
from openworks.gateway.caching.semantic import SemanticCache
from openworks.ports.answers_cache import AnswerCache
from openworks.ports.calls import Principal
from openworks.ports.catalog import Price
from openworks.ports.limits import Limiter
from openworks.ports.recorder import Recorder
from openworks.ports.upstream import Timeouts, Transport


class Prices(Protocol):
    """What models cost."""

    def price(self, provider: str, model: str) -> Price | None:
        """Return a model's price; None when nobody knows it."""
        ...


class LocalModels(Protocol):
    """This server's own models, as one more provider."""

    def transport(self, principal: Principal) -> Transport:
        """Return a transport that answers itself, for what one caller may use."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What exchanges share; one for the process."""

    asker: Asker
    limiter: Limiter
    cache: AnswerCache
    semantic: SemanticCache | None = None
    flights: SingleFlight
    prices: Prices
    local: LocalModels
    recorders: Sequence[Recorder]
    timeouts: Timeouts
    clock: Clock
    rng: Random
