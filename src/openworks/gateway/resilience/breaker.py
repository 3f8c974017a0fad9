"""Circuit breakers: a provider that fails is left alone, and tried again with care."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, Literal, TypeAlias

from openworks.core.clock import Clock
from openworks.ports.upstream import UpstreamError

BreakerKey: TypeAlias = tuple[str, bytes, str]
"""Provider, digest of the credential, model: what tends to fail together."""
BreakerState: TypeAlias = Literal["closed", "open", "half_open"]
Verdict: TypeAlias = Literal["ok", "error", "truncated", "neutral"]

REFUSED: Final = -1
_BUCKETS: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerConfig:
    """When a breaker opens, and for how long."""

    window_s: float = 30.0
    """How far back errors count."""
    min_calls: int = 10
    """Fewer calls in the window say nothing about a rate."""
    error_rate: float = 0.5
    """Errors among the calls of the window from which it opens."""
    truncations: int = 3
    """Answers that broke off, one after the other, after which it opens."""
    open_s: float = 5.0
    """How long it first stays open; doubled whenever a probe fails."""
    max_open_s: float = 300.0
    """The most that doubling or a provider's `Retry-After` can make of it."""
    probes: int = 2
    """Successes in a row that close it again."""
    probe_timeout_s: float = 60.0
    """A probe that is not heard of for so long is forgotten, and another may start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerView:
    """A breaker as health pages and metrics show it; without the credential."""

    provider: str
    model: str
    state: BreakerState
    calls: int
    errors: int
    """Both in the window."""
    open_for_s: float
    """Until the next probe; 0.0 when calls pass."""


def verdict(outcome: int | UpstreamError) -> Verdict:
    """Say what an attempt tells about the provider's health.

    Faults of the caller (4xx) and of our own (a full pool) tell nothing.
    """
    if isinstance(outcome, UpstreamError):
        return "neutral" if outcome.kind == "overloaded" else "error"
    if outcome < 400:
        return "ok"
    return "error" if outcome >= 500 or outcome in (408, 429) else "neutral"


class Breaker:
    """One circuit. Every admitted attempt ends with one `record`, also when the client left."""

    __slots__ = (
        "_calls", "_clock", "_config", "_errors", "_generation", "_good_probes", "_open_s",
        "_open_until_s", "_probe_since_s", "_slot", "_slot_s", "_state", "_total_calls",
        "_total_errors", "_truncated",
    )  # fmt: skip

    def __init__(self, config: BreakerConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._slot_s = config.window_s / _BUCKETS
        self._generation = 0
        self._open_until_s = 0.0
        self._open_s = config.open_s
        self._state: BreakerState = "closed"
        self._probe_since_s: float | None = None
        self._close()

    @property
    def state(self) -> BreakerState:
        """`half_open` from the first probe on; an open one whose time is over is still open."""
        return self._state

    @property
    def open_for_s(self) -> float:
        """How long until a probe may start; 0.0 when one may now."""
        if self._state == "closed":
            return 0.0
        return max(self._open_until_s - self._clock.monotonic_s(), 0.0)

    def allows(self) -> bool:
        """Whether `admit` would let an attempt pass, without taking the place of a probe."""
        if self._state == "closed":
            return True
        now_s = self._clock.monotonic_s()
        if self._state == "open":
            return now_s >= self._open_until_s
        return self._probe_is_due(now_s)

    def admit(self) -> int:
        """Return a ticket for `record`, or REFUSED; when half open one attempt passes at a time."""
        if self._state == "closed":
            return self._generation
        now_s = self._clock.monotonic_s()
        if self._state == "open":
            if now_s < self._open_until_s:
                return REFUSED
            self._state = "half_open"
            self._generation += 1
            self._good_probes = 0
        elif not self._probe_is_due(now_s):
            return REFUSED
        self._probe_since_s = now_s
        return self._generation

    def record(self, ticket: int, verdict: Verdict, *, retry_after_s: float | None = None) -> None:
        """Say how an attempt ended.

        Args:
            ticket: What `admit` returned; that of a time before the last change of state is
                ignored, as it says nothing about now.
            verdict: `truncated` for an answer that began well and broke off; `neutral` when nothing
                was learnt, as when the client left.
            retry_after_s: What the provider said in a 429 or 503: it opens at once for that long.
        """
        if ticket != self._generation:
            return
        if self._state == "half_open":
            self._probed(verdict, retry_after_s)
            return
        if verdict == "neutral":
            return
        self._count(verdict)
        if retry_after_s and verdict == "error":
            self._open(retry_after_s)
        elif verdict != "ok" and self._is_ill():
            self._open(self._open_s)

    def _probed(self, verdict: Verdict, retry_after_s: float | None) -> None:
        self._probe_since_s = None
        if verdict == "neutral":
            return
        if verdict != "ok":
            self._open_s = min(self._open_s * 2, self._config.max_open_s)
            self._open(max(retry_after_s or 0.0, self._open_s))
            return
        self._good_probes += 1
        if self._good_probes >= self._config.probes:
            self._open_s = self._config.open_s
            self._generation += 1
            self._close()

    def _probe_is_due(self, now_s: float) -> bool:
        since_s = self._probe_since_s
        return since_s is None or now_s - since_s >= self._config.probe_timeout_s

    def _open(self, seconds: float) -> None:
        self._state = "open"
        self._generation += 1
        self._open_until_s = self._clock.monotonic_s() + min(seconds, self._config.max_open_s)

    def _close(self) -> None:
        self._state = "closed"
        self._probe_since_s = None
        self._calls = [0] * _BUCKETS
        self._errors = [0] * _BUCKETS
        self._total_calls = self._total_errors = self._truncated = self._good_probes = 0
        self._slot = int(self._clock.monotonic_s() / self._slot_s)

    def _is_ill(self) -> bool:
        config = self._config
        if self._truncated >= config.truncations:
            return True
        many = self._total_calls >= config.min_calls
        return many and self._total_errors >= self._total_calls * config.error_rate

    def _count(self, verdict: Verdict) -> None:
        slot = int(self._clock.monotonic_s() / self._slot_s)
        if slot != self._slot:
            self._turn_to(slot)
        index = slot % _BUCKETS
        self._calls[index] += 1
        self._total_calls += 1
        if verdict == "ok":
            self._truncated = 0
            return
        self._errors[index] += 1
        self._total_errors += 1
        if verdict == "truncated":
            self._truncated += 1

    def _turn_to(self, slot: int) -> None:
        for passed in range(max(self._slot, slot - _BUCKETS) + 1, slot + 1):
            index = passed % _BUCKETS
            self._total_calls -= self._calls[index]
            self._total_errors -= self._errors[index]
            self._calls[index] = self._errors[index] = 0
        self._slot = slot

    def view(self, provider: str, model: str) -> BreakerView:
        """Return what there is to see now."""
        slot = int(self._clock.monotonic_s() / self._slot_s)
        if slot != self._slot:
            self._turn_to(slot)
        return BreakerView(
            provider=provider,
            model=model,
            state=self._state,
            calls=self._total_calls,
            errors=self._total_errors,
            open_for_s=self.open_for_s,
        )


class Breakers:
    """All circuits, at most `max_breakers`; beyond that a closed one that rested is forgotten."""

    def __init__(
        self, clock: Clock, config: BreakerConfig | None = None, *, max_breakers: int = 10_000
    ) -> None:
        self._clock = clock
        self._config = config or BreakerConfig()
        self._max_breakers = max_breakers
        self._breakers: OrderedDict[BreakerKey, Breaker] = OrderedDict()

    def __len__(self) -> int:
        return len(self._breakers)

    def of(self, key: BreakerKey) -> Breaker:
        """Return the circuit of a provider, credential and model, making it when it is new."""
        breaker = self._breakers.get(key)
        if breaker is not None:
            self._breakers.move_to_end(key)
            return breaker
        if len(self._breakers) >= self._max_breakers:
            self._forget_one()
        breaker = self._breakers[key] = Breaker(self._config, self._clock)
        return breaker

    def snapshot(self, *, all_states: bool = False) -> list[BreakerView]:
        """Return the circuits that are not closed, or with `all_states` every one."""
        return list(self._views(all_states))

    def _views(self, all_states: bool) -> Iterator[BreakerView]:
        for (provider, _, model), breaker in self._breakers.items():
            if all_states or breaker.state != "closed":
                yield breaker.view(provider, model)

    def _forget_one(self) -> None:
        oldest = next(iter(self._breakers))
        for key, breaker in islice(self._breakers.items(), 32):
            if breaker.state == "closed":
                oldest = key
                break
        del self._breakers[oldest]
