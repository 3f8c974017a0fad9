"""Spans of calls, as collectors on loopback receive them."""

from __future__ import annotations

import asyncio
import json
import timeit
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from google.protobuf.json_format import (  # type: ignore[import-untyped]  # ships no types
    MessageToDict,
)
from msgspec.structs import replace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from openworks.core.ids import AccountId, RequestId
from openworks.gateway.http.transport import Http1Transport
from openworks.gateway.outbound import TransportOutbound
from openworks.gateway.telemetry.exporter import SpanExporter, TelemetryConfig
from openworks.gateway.telemetry.otlp_json import JSON
from openworks.gateway.telemetry.otlp_protobuf import PROTOBUF
from openworks.gateway.telemetry.spans import span_of
from openworks.ports.calls import CallBodies, CallRecord, Usage
from openworks.ports.gateways import Gateway, GatewayId, LogPolicy, OtelExport
from openworks.ports.snapshots import GatewaySnapshot
from tests.fakes import FakeClock
from tests.gateway.gateway_server import Place
from tests.gateway.stand_in import Reply, Request, StandIn, stand_in_on_thread
from tests.server import wait_until

ACCOUNT = AccountId("acct")
TRACE_ID = "a1b2c3d4e5f60718293a4b5c6d7e8f90"
PARENT_ID = "a1b2c3d4e5f60718"
CALL = CallRecord(
    id=RequestId("01CALL"),
    created_at_s=1_790_000_000.0,
    account_id=ACCOUNT,
    key_id=None,
    route="/gateway/v1/{account}/{gateway}/{provider}",
    model="gpt-4o-mini",
    deployment=None,
    stream=True,
    usage=Usage(prompt_tokens=10, completion_tokens=5, cached_tokens=4),
    cost_usd=0.25,
    first_token_ms=100.0,
    duration_ms=400.0,
    outcome="ok",
    status=200,
    gateway_id="gw",
    provider="openai",
    endpoint="chat/completions",
    metadata={"team": "blue", "n": 3, "paid": True, "gen_ai.system": "forged"},
    trace_id=TRACE_ID,
    parent_span_id=PARENT_ID,
)
BODIES = CallBodies(request=b'{"messages":[]}', response=b'{"choices":[]}')


class Gateways:
    """One gateway; what `peek` does not know, `snapshot` does."""

    def __init__(self, *exports: OtelExport, is_fresh: bool = True) -> None:
        self.gateway = Gateway(account_id=ACCOUNT, id=GatewayId("gw"), otel=exports)
        self.is_fresh = is_fresh

    def peek(self, account_id: AccountId, gateway_id: str) -> Gateway | None:
        return self.gateway if self.is_fresh else None

    async def snapshot(self, account_id: AccountId, gateway_id: str) -> GatewaySnapshot | None:
        return GatewaySnapshot(gateway=self.gateway)


def take(request: Request) -> Reply:
    return Reply(body=b"{}")


def spans_in(requests: Sequence[Request]) -> list[dict[str, Any]]:
    return [
        span
        for request in requests
        for resource in request.json()["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


def attributes(span: dict[str, Any]) -> dict[str, Any]:
    return {item["key"]: next(iter(item["value"].values())) for item in span["attributes"]}


def has_asked(collector: StandIn, count: int) -> bool:
    return len(collector.requests) >= count


async def export(
    gateways: Gateways,
    records: Sequence[CallRecord],
    bodies: CallBodies | None = None,
    *,
    policy: LogPolicy | None = None,
    config: TelemetryConfig | None = None,
) -> SpanExporter:
    """Record calls and close the exporter, which sends what waits."""
    transport = Http1Transport()
    outbound = TransportOutbound(transport, allow_private=True)
    exporter = SpanExporter(
        gateways,
        outbound,
        clock=FakeClock(),
        protobuf=PROTOBUF,
        config=config,
    )
    exporter.open()
    try:
        for record in records:
            exporter.record(record, bodies, policy=policy)
    finally:
        await exporter.close()
        await transport.close()
    return exporter


async def test_call_becomes_a_span_of_the_callers_trace() -> None:
    async with StandIn(script=take) as collector:
        to = OtelExport(
            url=f"{collector.url}/v1/traces", headers={"X-Team": "ai"}, authorization="Bearer t"
        )
        exporter = await export(Gateways(to), [CALL], BODIES)
        (request,) = collector.requests
    (span,) = spans_in([request])
    found = attributes(span)

    assert exporter.sent_spans == 1
    assert request.header("content-type") == "application/json"
    assert (request.header("x-team"), request.header("authorization")) == ("ai", "Bearer t")
    assert (span["traceId"], span["parentSpanId"], len(span["spanId"])) == (TRACE_ID, PARENT_ID, 16)
    assert (span["name"], span["kind"], span["status"]) == ("chat gpt-4o-mini", 3, {})
    assert int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"]) == 400_000_000
    assert found["gen_ai.request.model"] == "gpt-4o-mini"
    assert found["gen_ai.model.provider"] == found["gen_ai.provider.name"] == "openai"
    assert found["gen_ai.operation.name"] == "chat"
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == ("10", "5")
    assert found["gen_ai.usage.cost"] == 0.25
    assert found["gen_ai.prompt_json"] == '{"messages":[]}'
    assert found["gen_ai.completion_json"] == '{"choices":[]}'
    assert (found["team"], found["n"], found["paid"]) == ("blue", "3", True)
    assert "gen_ai.system" not in found


def test_both_encodings_say_the_same() -> None:
    failed = replace(CALL, outcome="error", status=502, error_code="upstream_failed")
    spans = [span_of(CALL, BODIES, max_text_bytes=99), span_of(failed, None, max_text_bytes=99)]
    parts = [spans[:1], spans[1:]]
    read = ExportTraceServiceRequest.FromString(PROTOBUF.join([PROTOBUF.encode(p) for p in parts]))
    by_protobuf = MessageToDict(read)
    by_json = json.loads(JSON.join([JSON.encode(part) for part in parts]))

    for item in spans_of_document(by_protobuf):  # protobuf's own JSON has base64 and enum names
        del item["traceId"], item["spanId"], item["parentSpanId"], item["kind"]
        item.get("status", {}).pop("code", None)
    for item in spans_of_document(by_json):
        del item["traceId"], item["spanId"], item["parentSpanId"], item["kind"]
        item["status"].pop("code", None)
    assert by_protobuf == by_json
    first = read.resource_spans[0].scope_spans[0].spans[0]
    assert (first.trace_id.hex(), first.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)


def spans_of_document(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [span for part in document["resourceSpans"] for span in part["scopeSpans"][0]["spans"]]


async def test_collector_that_wants_protobuf_gets_it() -> None:
    async with StandIn(script=take) as collector:
        to = OtelExport(url=collector.url, content_type="protobuf")
        await export(Gateways(to), [CALL])
        (request,) = collector.requests

    assert request.header("content-type") == "application/x-protobuf"
    read = ExportTraceServiceRequest.FromString(request.body)
    assert read.resource_spans[0].scope_spans[0].spans[0].name == "chat gpt-4o-mini"


async def test_every_collector_of_a_gateway_gets_every_span() -> None:
    async with StandIn(script=take) as one, StandIn(script=take) as other:
        to = [OtelExport(url=one.url), OtelExport(url=other.url)]
        records = [replace(CALL, id=RequestId(f"call-{n}")) for n in range(5)]
        exporter = await export(Gateways(*to), records)
        assert len(spans_in(list(one.requests))) == len(spans_in(list(other.requests))) == 5

    assert (exporter.sent_spans, exporter.dropped_spans) == (10, 0)


async def test_gateway_that_is_not_in_memory_is_looked_up() -> None:
    async with StandIn(script=take) as collector:
        gateways = Gateways(OtelExport(url=collector.url), is_fresh=False)
        await export(gateways, [CALL])
        assert len(collector.requests) == 1


@pytest.mark.parametrize("policy", [LogPolicy(payloads=False), LogPolicy(collect=False)])
async def test_prompts_that_are_not_collected_are_in_no_span(policy: LogPolicy) -> None:
    async with StandIn(script=take) as collector:
        await export(Gateways(OtelExport(url=collector.url)), [CALL], BODIES, policy=policy)
        (span,) = spans_in(list(collector.requests))

    assert not {"gen_ai.prompt_json", "gen_ai.completion_json"} & set(attributes(span))


@pytest.mark.parametrize("trace_id", [None, "", "0" * 32, "xyz", TRACE_ID[:-1], "g" * 32])
def test_trace_id_that_is_none_is_replaced(trace_id: str | None) -> None:
    span = span_of(replace(CALL, trace_id=trace_id), None, max_text_bytes=9)

    assert len(span.trace_id) == 32
    assert int(span.trace_id, 16)
    assert span.parent_span_id is None


async def test_collector_that_stumbles_is_asked_again() -> None:
    async with StandIn(script=take) as collector:
        collector.queue(Reply(status=503), Reply(status=429, headers=(("retry-after", "7"),)))
        exporter = await export(Gateways(OtelExport(url=collector.url)), [CALL])
        sent = [request.body for request in collector.requests]

    assert len(sent) == 3
    assert len(set(sent)) == 1
    assert (exporter.sent_spans, exporter.dropped_spans) == (1, 0)


async def test_collector_that_refuses_is_not_asked_again() -> None:
    async with StandIn(script=lambda _: Reply(status=400)) as collector:
        exporter = await export(Gateways(OtelExport(url=collector.url)), [CALL])
        assert len(collector.requests) == 1

    assert (exporter.sent_spans, exporter.dropped_spans) == (0, 1)


async def test_spans_beyond_the_bound_are_dropped_and_counted() -> None:
    async with StandIn(script=take) as collector:
        records = [replace(CALL, id=RequestId(f"call-{n}")) for n in range(30)]
        to = OtelExport(url=collector.url)
        config = TelemetryConfig(max_spans=20, batch_spans=8, max_sending_each=9)
        exporter = await export(Gateways(to), records, config=config)
        assert len(spans_in(list(collector.requests))) == 20

    assert (exporter.sent_spans, exporter.dropped_spans) == (20, 10)


async def test_bodies_beyond_the_bound_are_left_out_and_long_ones_cut() -> None:
    async with StandIn(script=take) as collector:
        bodies = CallBodies(request=b"q" * 500, response=b"a" * 500)
        config = TelemetryConfig(max_bytes=250, max_text_bytes=100)
        to = OtelExport(url=collector.url)
        await export(Gateways(to), [CALL, CALL], bodies, config=config)
        first, second = [attributes(span) for span in spans_in(list(collector.requests))]

    assert first["gen_ai.prompt_json"] == "q" * 100
    assert "gen_ai.prompt_json" not in second


async def test_collector_that_hangs_holds_nobody_else_up() -> None:
    hanging = StandIn(script=lambda _: Reply(hang=True))
    async with hanging, StandIn(script=take) as quick:
        transport = Http1Transport()
        outbound = TransportOutbound(transport, allow_private=True)
        gateways = Gateways(OtelExport(url=hanging.url), OtelExport(url=quick.url))
        config = TelemetryConfig(batch_spans=1)
        exporter = SpanExporter(gateways, outbound, clock=FakeClock(), config=config)
        exporter.open()
        for number in range(8):
            exporter.record(replace(CALL, id=RequestId(f"call-{number}")))
            await quick.until(partial(has_asked, quick, number + 1))
        assert len(hanging.requests) == 4  # further batches for it were dropped
        assert exporter.dropped_spans == 4
        await exporter.close(timeout_s=0.05)
        await transport.close()


async def test_private_collector_is_reached_by_no_name_where_that_is_not_allowed() -> None:
    async with StandIn(script=take) as collector:
        transport = Http1Transport()
        outbound = TransportOutbound(transport, allow_private=False)
        exports = [
            OtelExport(url=f"http://{host}:{collector.port}")
            for host in ("127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]")
        ]
        exporter = SpanExporter(Gateways(*exports), outbound, clock=FakeClock())
        exporter.open()
        exporter.record(CALL)
        await exporter.close()
        await transport.close()

        assert not collector.requests
    assert exporter.dropped_spans == 4


async def test_gateway_without_collectors_costs_next_to_nothing() -> None:
    transport = Http1Transport()
    outbound = TransportOutbound(transport, allow_private=True)
    exporter = SpanExporter(Gateways(), outbound, clock=FakeClock())
    number = 20_000

    took_s = min(timeit.repeat(lambda: exporter.record(CALL, BODIES), number=number, repeat=5))

    await transport.close()
    assert took_s / number < 2e-6


def test_server_sends_spans_of_its_gateways_calls(place: Place) -> None:
    with stand_in_on_thread(StandIn(script=take)) as collector:
        otel = [{"url": f"{collector.url}/v1/traces", "headers": {}, "content_type": "json"}]
        place.make("gw", otel=otel)
        trace = {"cf-aig-otel-trace-id": TRACE_ID, "cf-aig-otel-parent-span-id": PARENT_ID}
        answer = place.chat("mock-otel", gateway="gw", headers=trace)
        wait_until(lambda: len(collector.requests) > 0, what="a span")
        (span,) = spans_in(list(collector.requests))

    assert (span["traceId"], span["parentSpanId"]) == (TRACE_ID, PARENT_ID)
    found = attributes(span)
    assert found["openworks.log.id"] == answer.headers["cf-aig-log-id"]
    assert json.loads(found["gen_ai.prompt_json"])["model"] == "mock-otel"


def test_exporter_ends_without_having_sent_anything() -> None:
    async def run() -> None:
        await export(Gateways(), [])

    asyncio.run(run())
