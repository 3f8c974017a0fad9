"""OTLP/HTTP in JSON: ids as hex, 64-bit numbers as text (OTLP 1.x, "JSON Protobuf Encoding")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import orjson

from openworks.core.json import JsonObject, JsonValue
from openworks.gateway.telemetry.spans import Attribute, Encoding, Span

SCOPE: Final = "openworks"
_CLIENT: Final = 3
_ERROR: Final = 2


def _encode(spans: Sequence[Span]) -> bytes:
    return orjson.dumps(
        {
            "resource": {"attributes": [_attribute("service.name", SCOPE)]},
            "scopeSpans": [{"scope": {"name": SCOPE}, "spans": [_span(item) for item in spans]}],
        }
    )


def _join(parts: Sequence[bytes]) -> bytes:
    return b'{"resourceSpans":[%b]}' % b",".join(parts)


def _span(span: Span) -> JsonObject:
    rendered: JsonObject = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "name": span.name,
        "kind": _CLIENT,
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": [_attribute(name, value) for name, value in span.attributes.items()],
        "status": {} if span.error is None else {"code": _ERROR, "message": span.error},
    }
    if span.parent_span_id is not None:
        rendered["parentSpanId"] = span.parent_span_id
    return rendered


def _attribute(name: str, value: Attribute) -> JsonObject:
    return {"key": name, "value": _value(value)}


def _value(value: Attribute) -> JsonValue:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case str():
            return {"stringValue": value}


JSON: Final = Encoding(content_type="application/json", encode=_encode, join=_join)
