from __future__ import annotations

import logging

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from openworks.core.ids import AccountId, RequestId
from openworks.gateway import observe
from openworks.gateway.observe import MAX_VALUES, OTHER, CallLog, CallMetrics
from openworks.ports.calls import CallRecord, Usage

RECORD = CallRecord(
    id=RequestId("log-1"),
    created_at_s=1.0,
    account_id=AccountId("default"),
    key_id=None,
    route="/r",
    model="m",
    deployment=None,
    stream=False,
    usage=Usage(prompt_tokens=10, completion_tokens=5, cached_tokens=4),
    cost_usd=0.25,
    first_token_ms=30.0,
    duration_ms=400.0,
    outcome="ok",
    status=200,
    gateway_id="gw",
    provider="openai",
)
NAMES = {"model": "m", "provider": "openai", "gateway": "gw"}


def samples(registry: CollectorRegistry) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def test_metrics_count_calls_tokens_cost_and_time() -> None:
    registry = CollectorRegistry()
    metrics = CallMetrics(registry)
    for record in (RECORD, RECORD, replace(RECORD, outcome="error", first_token_ms=None)):
        metrics.record(record)
    found = samples(registry)

    def value(name: str, **labels: str) -> float:
        return found[name, frozenset(labels.items())]

    calls = {"route": "/r", "cached": "false", **NAMES}
    assert value("openworks_calls_total", outcome="ok", **calls) == 2
    assert value("openworks_calls_total", outcome="error", **calls) == 1
    assert value("openworks_tokens_total", kind="prompt", **NAMES) == 30
    assert value("openworks_tokens_total", kind="cached", **NAMES) == 12
    assert value("openworks_cost_usd_total", **NAMES) == 0.75
    assert value("openworks_call_seconds_count", route="/r", **NAMES) == 3
    assert value("openworks_call_seconds_sum", route="/r", **NAMES) == pytest.approx(1.2)
    assert value("openworks_call_seconds_bucket", route="/r", le="0.25", **NAMES) == 0
    assert value("openworks_call_seconds_bucket", route="/r", le="0.5", **NAMES) == 3
    assert value("openworks_first_token_seconds_count", route="/r", **NAMES) == 2


def test_names_of_callers_cannot_make_endless_labels() -> None:
    registry = CollectorRegistry()
    metrics = CallMetrics(registry)
    for number in range(3 * MAX_VALUES):
        metrics.record(replace(RECORD, model=f"model-{number}"))
    found = samples(registry)

    models = {dict(labels)["model"] for name, labels in found if name == "openworks_calls_total"}
    assert len(models) == MAX_VALUES + 1
    key = frozenset({**NAMES, "model": OTHER}.items())
    assert found["openworks_cost_usd_total", key] == 0.25 * 2 * MAX_VALUES


def test_labels_together_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = CollectorRegistry()
    metrics = CallMetrics(registry)
    monkeypatch.setattr(observe, "MAX_CELLS", 300)
    for number in range(350):
        metrics.record(replace(RECORD, model=f"m{number % 50}", gateway_id=f"g{number // 50}"))
    calls = {key: value for key, value in samples(registry).items() if "calls_total" in key[0]}

    assert len(calls) == 300 + 1
    assert sum(calls.values()) == 350


def test_name_that_no_local_model_has_is_unknown() -> None:
    registry = CollectorRegistry()
    CallMetrics(registry).record(replace(RECORD, provider="workers-ai", model="made up"))

    models = {dict(labels).get("model") for _, labels in samples(registry)}
    assert models == {"unknown"}


def test_event_is_made_only_where_it_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="openworks.calls"):
        CallLog().record(RECORD)
    assert not caplog.records
    with caplog.at_level(logging.INFO, logger="openworks.calls"):
        CallLog().record(RECORD)
    assert caplog.records[0].__dict__["provider"] == "openai"
