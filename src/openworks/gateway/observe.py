"""What operators see of every call: Prometheus metrics and one wide log event."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any, Final, Protocol, TypeAlias

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from openworks.ports.calls import LOCAL_PROVIDER, CallBodies, CallRecord
from openworks.ports.gateways import LogPolicy

log = logging.getLogger("openworks.calls")

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_MS: Final = tuple(bound * 1000 for bound in _SECONDS)
_ENDS: Final = (*(str(float(bound)) for bound in _SECONDS), "+Inf")
_WIDTH: Final = len(_ENDS)

_CALLS, _PROMPT, _COMPLETION, _CACHED, _COST, _DURATION, _FIRST_TOKEN, _BUCKETS = range(8)
"""Places in a cell; from `_BUCKETS`, the durations', then the first tokens'."""

MAX_VALUES: Final = 200
"""How many models, providers and gateways get a label each; callers may make up any number."""
MAX_CELLS: Final = 5_000
OTHER: Final = "other"

Labels: TypeAlias = tuple[str, str, str, str, str, bool]
"""Route, model, provider, gateway, outcome, and whether the answer came from the cache."""


class CallMetrics(Collector):
    """Counts in a dict, made into metrics when they are asked for."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._cells: dict[Labels, list[Any]] = {}
        self._models: set[str] = set()
        self._providers: set[str] = set()
        self._gateways: set[str] = set()
        registry.register(self)

    def record(
        self,
        record: CallRecord,
        bodies: CallBodies | None = None,
        *,
        policy: LogPolicy | None = None,
    ) -> None:
        """Count one call."""
        model = record.deployment or record.model
        labels: Labels = (
            record.route,
            model,
            record.provider,
            record.gateway_id,
            record.outcome,
            record.cached,
        )
        cell = self._cells.get(labels)
        if cell is None:
            cell = self._cell(record)
        usage = record.usage
        cell[_CALLS] += 1
        cell[_PROMPT] += usage.prompt_tokens
        cell[_COMPLETION] += usage.completion_tokens
        cell[_CACHED] += usage.cached_tokens
        cell[_COST] += record.cost_usd
        cell[_DURATION] += record.duration_ms
        cell[_BUCKETS + bisect_left(_MS, record.duration_ms)] += 1
        first_ms = record.first_token_ms
        if first_ms is not None:
            cell[_FIRST_TOKEN] += first_ms
            cell[_BUCKETS + _WIDTH + bisect_left(_MS, first_ms)] += 1

    def describe(self) -> Iterable[Metric]:
        """Name nothing ahead: the metrics have no fixed labels to check."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Make metrics of the counts."""
        names = ("model", "provider", "gateway")
        calls = CounterMetricFamily(
            "openworks_calls",
            "Model calls that ended.",
            labels=("route", *names, "outcome", "cached"),
        )
        tokens = CounterMetricFamily(
            "openworks_tokens", "Tokens, by kind.", labels=(*names, "kind")
        )
        cost = CounterMetricFamily("openworks_cost_usd", "Cost in US dollars.", labels=names)
        cells = [(key, list(cell)) for key, cell in self._cells.items()]
        for labels, cell in cells:
            calls.add_metric([*labels[:5], str(labels[5]).lower()], cell[_CALLS])
        for group, cell in _sums(cells, slice(1, 4)):
            for kind, place in (
                ("prompt", _PROMPT),
                ("completion", _COMPLETION),
                ("cached", _CACHED),
            ):
                tokens.add_metric([*group, kind], cell[place])
            cost.add_metric(group, cell[_COST])
        first_token = HistogramMetricFamily(
            "openworks_first_token_seconds", "Time to the first token.", labels=("route", *names)
        )
        duration = HistogramMetricFamily(
            "openworks_call_seconds", "Duration of a model call.", labels=("route", *names)
        )
        for group, cell in _sums(cells, slice(0, 4)):
            middle = _BUCKETS + _WIDTH
            duration.add_metric(group, _buckets(cell[_BUCKETS:middle]), cell[_DURATION] / 1000)
            first_tokens = cell[middle:]
            if any(first_tokens):
                first_token.add_metric(group, _buckets(first_tokens), cell[_FIRST_TOKEN] / 1000)
        yield from (calls, tokens, cost, first_token, duration)

    def _cell(self, record: CallRecord) -> list[Any]:
        """Find or make the cell of a call whose labels are new, or stand for themselves no more."""
        model = record.deployment or record.model
        if record.deployment is None and record.provider == LOCAL_PROVIDER:
            model = "unknown"  # a name that no model of this server has
        ending = (record.outcome, record.cached)
        labels: Labels = (
            record.route,
            _bounded(model, self._models),
            _bounded(record.provider, self._providers),
            _bounded(record.gateway_id, self._gateways),
            *ending,
        )
        if labels not in self._cells and len(self._cells) >= MAX_CELLS:
            labels = (record.route, OTHER, OTHER, OTHER, *ending)
        return self._cells.setdefault(labels, [0] * (_BUCKETS + 2 * _WIDTH))


class CallLog:
    """One event for each call, without a word of its prompt or answer."""

    def record(
        self,
        record: CallRecord,
        bodies: CallBodies | None = None,
        *,
        policy: LogPolicy | None = None,
    ) -> None:
        """Log one call, where that is asked for."""
        if not log.isEnabledFor(logging.INFO):
            return
        log.info(
            "call",
            extra={
                "request_id": record.id,
                "account": record.account_id,
                "key": record.key_id,
                "gateway": record.gateway_id,
                "route": record.route,
                "provider": record.provider,
                "model": record.model,
                "deployment": record.deployment,
                "stream": record.stream,
                "cached": record.cached,
                "attempts": record.attempts,
                "prompt_tokens": record.usage.prompt_tokens,
                "completion_tokens": record.usage.completion_tokens,
                "cached_tokens": record.usage.cached_tokens,
                "first_token_ms": _rounded(record.first_token_ms),
                "duration_ms": _rounded(record.duration_ms),
                "cost_usd": record.cost_usd,
                "outcome": record.outcome,
                "status": record.status,
                "error_code": record.error_code,
            },
        )


class LogState(Protocol):
    """How far the logs are behind, and what was left out of them."""

    @property
    def waiting_bytes(self) -> int:
        """In memory."""
        ...

    @property
    def lost_rows(self) -> int:
        """Calls without a trace, in all."""
        ...

    @property
    def lost_bodies(self) -> int:
        """Calls whose bodies were left out, in all."""
        ...

    @property
    def spooled_bytes(self) -> int:
        """In a file, while the database is away."""
        ...


class LogMetrics(Collector):
    """The state of the logs as metrics."""

    def __init__(self, state: LogState, registry: CollectorRegistry) -> None:
        self._state = state
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Read the state."""
        state = self._state
        yield GaugeMetricFamily(
            "openworks_log_waiting_bytes",
            "Records in memory that the log writer has not taken.",
            value=state.waiting_bytes,
        )
        yield GaugeMetricFamily(
            "openworks_log_spooled_bytes",
            "Records in a file while the database is away.",
            value=state.spooled_bytes,
        )
        yield CounterMetricFamily(
            "openworks_log_lost_records", "Records that found no room.", value=state.lost_rows
        )
        yield CounterMetricFamily(
            "openworks_log_lost_bodies",
            "Records whose bodies found no room.",
            value=state.lost_bodies,
        )


def _bounded(name: str, seen: set[str]) -> str:
    if name in seen:
        return name
    if len(seen) >= MAX_VALUES:
        return OTHER
    seen.add(name)
    return name


def _sums(
    cells: Iterable[tuple[tuple[Any, ...], list[Any]]], part: slice
) -> Iterable[tuple[list[str], list[Any]]]:
    found: dict[tuple[Any, ...], list[Any]] = {}
    for labels, cell in cells:
        before = found.get(labels[part])
        found[labels[part]] = (
            cell
            if before is None
            else [one + other for one, other in zip(before, cell, strict=True)]
        )
    return [(list(group), cell) for group, cell in found.items()]


def _buckets(counts: list[int]) -> list[tuple[str, float]]:
    return list(zip(_ENDS, accumulate(counts), strict=True))


def _rounded(value_ms: float | None) -> float | None:
    return None if value_ms is None else round(value_ms, 2)
