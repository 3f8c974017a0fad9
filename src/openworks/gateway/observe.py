"""What operators see of every call: Prometheus metrics and one wide log event."""

from __future__ import annotations

import logging

from prometheus_client import CollectorRegistry, Counter, Histogram

from openworks.ports.calls import CallRecord

log = logging.getLogger("openworks.calls")

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class CallMetrics:
    """Counters and histograms by route, model and outcome: closed sets all."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("route", "model")
        self._calls = Counter(
            "openworks_calls", "Model calls that ended.", (*labels, "outcome"), registry=registry
        )
        self._tokens = Counter(
            "openworks_tokens", "Tokens, by kind.", ("model", "kind"), registry=registry
        )
        self._cost = Counter(
            "openworks_cost_usd", "Cost in US dollars.", ("model",), registry=registry
        )
        self._first_token = Histogram(
            "openworks_first_token_seconds",
            "Time to the first token.",
            labels,
            buckets=_SECONDS,
            registry=registry,
        )
        self._duration = Histogram(
            "openworks_call_seconds",
            "Duration of a model call.",
            labels,
            buckets=_SECONDS,
            registry=registry,
        )

    async def record(self, record: CallRecord) -> None:
        model = record.deployment or "unknown"
        self._calls.labels(record.route, model, record.outcome).inc()
        for kind, count in (
            ("prompt", record.usage.prompt_tokens),
            ("completion", record.usage.completion_tokens),
            ("cached", record.usage.cached_tokens),
        ):
            self._tokens.labels(model, kind).inc(count)
        self._cost.labels(model).inc(record.cost_usd)
        if record.first_token_ms is not None:
            self._first_token.labels(record.route, model).observe(record.first_token_ms / 1000)
        self._duration.labels(record.route, model).observe(record.duration_ms / 1000)


class CallLog:
    """One event for each call, without a word of its prompt or answer."""

    async def record(self, record: CallRecord) -> None:
        log.info(
            "call",
            extra={
                "request_id": record.id,
                "account": record.account_id,
                "key": record.key_id,
                "route": record.route,
                "model": record.model,
                "deployment": record.deployment,
                "stream": record.stream,
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


def _rounded(value_ms: float | None) -> float | None:
    return None if value_ms is None else round(value_ms, 2)
