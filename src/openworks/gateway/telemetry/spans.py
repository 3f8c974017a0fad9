"""One call as a span, with the attributes of Cloudflare's gateway and OpenTelemetry's for GenAI."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from openworks.ports.calls import LOCAL_PROVIDER, CallBodies, CallRecord

Attribute: TypeAlias = str | int | float | bool

RESERVED: Final = "gen_ai."
"""A caller's metadata cannot stand for attributes of the convention."""
_TRACE_ID = re.compile(r"[0-9a-f]{32}")
_SPAN_ID = re.compile(r"[0-9a-f]{16}")
_OPERATIONS: Final = (
    ("embed", "embeddings"),
    ("generateContent", "generate_content"),
    ("chat/completions", "chat"),
    ("completions", "text_completion"),
)
"""What an endpoint contains → what it does; anything else is a chat."""
_PROVIDERS: Final = {
    "aws-bedrock": "aws.bedrock",
    "azure-openai": "azure.ai.openai",
    "google-ai-studio": "gcp.gemini",
    "google-vertex-ai": "gcp.vertex_ai",
    "grok": "x_ai",
    "mistral": "mistral_ai",
    "perplexity-ai": "perplexity",
    LOCAL_PROVIDER: "openworks",
}
"""Our slugs → the convention's names, where they differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A span, ready to be encoded."""

    trace_id: str
    """32 hex digits."""
    span_id: str
    """16 hex digits."""
    parent_span_id: str | None
    name: str
    start_ns: int
    end_ns: int
    error: str | None
    """Why it failed; None when it did not."""
    attributes: dict[str, Attribute]


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """One of OTLP's formats. A request is made in parts, so that no part takes long."""

    content_type: str
    encode: Callable[[Sequence[Span]], bytes]
    """Makes a part of some spans."""
    join: Callable[[Sequence[bytes]], bytes]
    """Makes the body of an export request of its parts."""


def span_of(record: CallRecord, bodies: CallBodies | None, *, max_text_bytes: int) -> Span:
    """Return the span of a call.

    Its ids follow from the call's own, so a batch that is sent twice is the same spans twice.

    Args:
        record: Of the call.
        bodies: What was said, where it may be told.
        max_text_bytes: Longer bodies are cut.
    """
    digest = hashlib.sha256(record.id.encode()).hexdigest()
    trace_id = (record.trace_id or "").lower()
    is_traced = _TRACE_ID.fullmatch(trace_id) is not None and trace_id.strip("0") != ""
    parent = (record.parent_span_id or "").lower()
    has_parent = is_traced and _SPAN_ID.fullmatch(parent) is not None and parent.strip("0") != ""
    operation = _operation(record.endpoint or record.route)
    start_ns = int(record.created_at_s * 1e9)
    attributes = dict(_metadata(record))
    attributes.update(_attributes(record, operation))
    if bodies is not None:
        attributes["gen_ai.prompt_json"] = _text(bodies.request, max_text_bytes)
        attributes["gen_ai.completion_json"] = _text(bodies.response, max_text_bytes)
    return Span(
        trace_id=trace_id if is_traced else digest[:32],
        span_id=digest[32:48],
        parent_span_id=parent if has_parent else None,
        name=f"{operation} {record.model}" if record.model else operation,
        start_ns=start_ns,
        end_ns=start_ns + max(0, int(record.duration_ms * 1e6)),
        error=None if record.outcome == "ok" else record.error_code or str(record.status),
        attributes=attributes,
    )


def _operation(endpoint: str) -> str:
    return next((name for part, name in _OPERATIONS if part in endpoint), "chat")


def _metadata(record: CallRecord) -> Iterator[tuple[str, Attribute]]:
    for name, value in record.metadata.items():
        if not name.startswith(RESERVED):
            yield name, value


def _attributes(record: CallRecord, operation: str) -> Iterator[tuple[str, Attribute]]:
    usage = record.usage
    yield "gen_ai.operation.name", operation
    yield "gen_ai.provider.name", _PROVIDERS.get(record.provider, record.provider)
    yield "gen_ai.model.provider", record.provider
    yield "gen_ai.request.model", record.model
    yield "gen_ai.request.stream", record.stream
    yield "gen_ai.usage.input_tokens", usage.prompt_tokens
    yield "gen_ai.usage.output_tokens", usage.completion_tokens
    yield "gen_ai.usage.cost", record.cost_usd
    if record.deployment is not None:
        yield "gen_ai.response.model", record.deployment
    if usage.cached_tokens:
        yield "gen_ai.usage.cache_read.input_tokens", usage.cached_tokens
    if usage.reasoning_tokens:
        yield "gen_ai.usage.reasoning.output_tokens", usage.reasoning_tokens
    if record.first_token_ms is not None:
        yield "gen_ai.response.time_to_first_chunk", record.first_token_ms / 1000
    yield "http.response.status_code", record.status
    if record.outcome != "ok":
        yield "error.type", record.error_code or str(record.status)
    yield "openworks.account.id", record.account_id
    yield "openworks.gateway.id", record.gateway_id
    yield "openworks.log.id", record.id
    yield "openworks.cached", record.cached
    yield "openworks.step", record.step
    yield "openworks.attempts", record.attempts
    for name, value in (("event.id", record.event_id), ("key.id", record.key_id)):
        if value is not None:
            yield f"openworks.{name}", value


def _text(body: bytes, limit: int) -> str:
    return body[:limit].decode("utf-8", "replace")
