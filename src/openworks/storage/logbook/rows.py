"""Calls as rows of `call_records`."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from openworks.ports.calls import CallBodies
from openworks.ports.logbook import Entry
from openworks.storage.logbook.packs import BodyPlace

ROW_COLUMNS: Final = (
    "id",
    "created_at_s",
    "account_id",
    "key_id",
    "route",
    "model",
    "deployment",
    "stream",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "cost_usd",
    "first_token_ms",
    "duration_ms",
    "outcome",
    "status",
    "error_code",
    "gateway_id",
    "provider",
    "endpoint",
    "event_id",
    "metadata",
    "cached",
    "step",
    "attempts",
    "estimated",
    "custom_cost",
    "routed_by",
    "guard_findings",
    "pack_id",
    "block_offset",
    "block_bytes",
    "body_offset",
    "request_bytes",
    "response_bytes",
    "request_type",
    "response_type",
    "is_partial",
)

_NO_BODIES: Final = (None, None, None, None, None, None, None, None, False)
_json = msgspec.json.Encoder()


def row(entry: Entry, pack_id: str | None, place: BodyPlace | None) -> tuple[Any, ...]:
    """Return the values of `ROW_COLUMNS`."""
    record = entry.record
    usage = record.usage
    bodies = _NO_BODIES
    if entry.bodies is not None and place is not None:
        bodies = _body_values(entry.bodies, pack_id, place)
    return (
        record.id,
        record.created_at_s,
        record.account_id,
        record.key_id,
        record.route,
        record.model,
        record.deployment,
        record.stream,
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.cached_tokens,
        usage.reasoning_tokens,
        record.cost_usd,
        record.first_token_ms,
        record.duration_ms,
        record.outcome,
        record.status,
        record.error_code,
        record.gateway_id,
        record.provider,
        record.endpoint,
        record.event_id,
        _json.encode(record.metadata).decode() if record.metadata else None,
        record.cached,
        record.step,
        record.attempts,
        record.estimated,
        record.custom_cost,
        record.routed_by,
        _json.encode(record.guard_findings).decode() if record.guard_findings else None,
        *bodies,
    )


def _body_values(bodies: CallBodies, pack_id: str | None, place: BodyPlace) -> tuple[Any, ...]:
    return (
        pack_id,
        place.block_offset,
        place.block_bytes,
        place.body_offset,
        len(bodies.request),
        len(bodies.response),
        bodies.request_type,
        bodies.response_type,
        bodies.is_partial,
    )
