"""OTLP/HTTP in protobuf, with OpenTelemetry's own messages: the extra `otel`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2

from openworks.gateway.telemetry.otlp_json import SCOPE
from openworks.gateway.telemetry.spans import Attribute, Encoding, Span

_MAX_INT64: Final = 2**63 - 1


def _encode(spans: Sequence[Span]) -> bytes:
    scope_spans = trace_pb2.ScopeSpans(
        scope=InstrumentationScope(name=SCOPE), spans=[_span(item) for item in spans]
    )
    resource_spans = trace_pb2.ResourceSpans(
        resource=Resource(attributes=[_attribute("service.name", SCOPE)]), scope_spans=[scope_spans]
    )
    body: bytes = ExportTraceServiceRequest(resource_spans=[resource_spans]).SerializeToString()
    return body


def _span(span: Span) -> trace_pb2.Span:
    status = trace_pb2.Status()
    if span.error is not None:
        status = trace_pb2.Status(code=trace_pb2.Status.STATUS_CODE_ERROR, message=span.error)
    return trace_pb2.Span(
        trace_id=bytes.fromhex(span.trace_id),
        span_id=bytes.fromhex(span.span_id),
        parent_span_id=bytes.fromhex(span.parent_span_id or ""),
        name=span.name,
        kind=trace_pb2.Span.SPAN_KIND_CLIENT,
        start_time_unix_nano=span.start_ns,
        end_time_unix_nano=span.end_ns,
        attributes=[_attribute(name, value) for name, value in span.attributes.items()],
        status=status,
    )


def _attribute(name: str, value: Attribute) -> KeyValue:
    return KeyValue(key=name, value=_value(value))


def _value(value: Attribute) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int() if abs(value) <= _MAX_INT64:
            return AnyValue(int_value=value)
        case int() | float():
            return AnyValue(double_value=float(value))
        case str():
            return AnyValue(string_value=value)


# Messages that stand one behind the other are one message, with the repeated fields of all.
PROTOBUF: Final = Encoding(content_type="application/x-protobuf", encode=_encode, join=b"".join)
