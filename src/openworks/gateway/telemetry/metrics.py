"""How many spans were sent and dropped, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from openworks.gateway.telemetry.exporter import SpanExporter


class TelemetryMetrics(Collector):
    """Reads an exporter's counts when they are asked for."""

    def __init__(self, exporter: SpanExporter, registry: CollectorRegistry) -> None:
        self._exporter = exporter
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Name nothing ahead."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Return both counts."""
        for name, words, value in (
            ("sent", "Spans that a collector took.", self._exporter.sent_spans),
            ("dropped", "Spans that nobody took.", self._exporter.dropped_spans),
        ):
            yield CounterMetricFamily(f"openworks_otel_{name}_spans", words, value=value)
