"""The engines' reports as Prometheus metrics: batches, blocks, and which adapters are where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from openworks.ports.engines import EngineReport, Engines

_MODEL = ("model",)


class EngineMetrics:
    """Reads the reports whenever somebody asks; keeps nothing. Counts begin with the process."""

    def __init__(self, engines: Engines, registry: CollectorRegistry) -> None:
        self._engines = engines
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Name nothing ahead: what there is depends on what is loaded."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Make metrics of the last reports."""
        reports = {
            row.deployment: row.report
            for row in self._engines.residency()
            if row.report is not None
        }
        texts = GaugeMetricFamily(
            "openworks_engine_texts", "Texts in an engine.", labels=(*_MODEL, "state")
        )
        blocks = GaugeMetricFamily(
            "openworks_engine_blocks",
            "Blocks of keys and values, by what is in them.",
            labels=(*_MODEL, "state"),
        )
        adapters = GaugeMetricFamily(
            "openworks_engine_adapters", "Adapters in memory.", labels=(*_MODEL, "tier")
        )
        adapter_bytes = GaugeMetricFamily(
            "openworks_engine_adapter_bytes",
            "What adapters in memory take.",
            labels=(*_MODEL, "tier"),
        )
        counters = {
            "steps": ("openworks_engine_steps", "Steps taken."),
            "prompt_tokens": ("openworks_engine_prompt_tokens", "Prompt tokens computed."),
            "cached_tokens": ("openworks_engine_cached_tokens", "Prompt tokens found computed."),
            "preemptions": ("openworks_engine_preemptions", "Texts put back for lack of blocks."),
        }
        counts = {
            field: CounterMetricFamily(name, text, labels=_MODEL)
            for field, (name, text) in counters.items()
        }
        for model, report in reports.items():
            texts.add_metric([model, "running"], report.running)
            texts.add_metric([model, "waiting"], report.waiting)
            blocks.add_metric([model, "used"], report.blocks_used)
            blocks.add_metric([model, "cached"], report.blocks_cached)
            blocks.add_metric([model, "empty"], _empty(report))
            for tier, (number, size_bytes) in _by_tier(report).items():
                adapters.add_metric([model, tier], number)
                adapter_bytes.add_metric([model, tier], size_bytes)
            for field, family in counts.items():
                family.add_metric([model], getattr(report, field))
        yield from (texts, blocks, adapters, adapter_bytes, *counts.values())


def _empty(report: EngineReport) -> int:
    return report.blocks_total - report.blocks_used - report.blocks_cached


def _by_tier(report: EngineReport) -> dict[str, tuple[int, int]]:
    numbers: Counter[str] = Counter({"batch": 0, "memory": 0})
    sizes: Counter[str] = Counter()
    for place in report.adapters:
        numbers[place.tier] += 1
        sizes[place.tier] += place.size_bytes
    return {tier: (number, sizes[tier]) for tier, number in numbers.items()}
