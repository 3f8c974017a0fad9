"""Where providers put the tokens that they counted, and what their numbers mean.

One decoder reads all dialects, as many servers mix them. In `Usage`, prompt tokens include those
from a cache, and completion tokens include reasoning.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from openworks.gateway.providers.base import Provider
from openworks.ports.calls import Usage
from openworks.ports.upstream import Headers

# No answer takes so many; what is larger would not fit into ledgers and sums.
_MOST = 1_000_000_000_000
_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=_MOST)]
_Amount: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=_MOST)]  # Cohere writes `12.0`

_INPUT_HEADER = b"x-amzn-bedrock-input-token-count"
_OUTPUT_HEADER = b"x-amzn-bedrock-output-token-count"


class Details(msgspec.Struct, gc=False):
    """Of OpenAI's `*_tokens_details`."""

    cached_tokens: _Count | None = None
    reasoning_tokens: _Count | None = None


class Units(msgspec.Struct, gc=False):
    """Cohere's `billed_units` and `tokens`."""

    input_tokens: _Amount | None = None
    output_tokens: _Amount | None = None


class Fields(msgspec.Struct, gc=False):
    """The members of `usage`, in all dialects but Google's."""

    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    total_tokens: _Count | None = None
    prompt_tokens_details: Details | None = None
    completion_tokens_details: Details | None = None
    prompt_cache_hit_tokens: _Count | None = None
    input_tokens: _Count | None = None
    output_tokens: _Count | None = None
    input_tokens_details: Details | None = None
    output_tokens_details: Details | None = None
    cache_read_input_tokens: _Count | None = None
    cache_creation_input_tokens: _Count | None = None
    inputTokens: _Count | None = None  # noqa: N815
    outputTokens: _Count | None = None  # noqa: N815
    cacheReadInputTokens: _Count | None = None  # noqa: N815
    cacheWriteInputTokens: _Count | None = None  # noqa: N815
    billed_units: Units | None = None
    tokens: Units | None = None


class GoogleFields(msgspec.Struct, gc=False):
    """The members of Google's `usageMetadata`."""

    promptTokenCount: _Count = 0  # noqa: N815
    candidatesTokenCount: _Count = 0  # noqa: N815
    thoughtsTokenCount: _Count = 0  # noqa: N815
    toolUsePromptTokenCount: _Count = 0  # noqa: N815
    cachedContentTokenCount: _Count = 0  # noqa: N815


class Metrics(msgspec.Struct, gc=False):
    """Replicate's `metrics`, and what Bedrock adds to the last event of a stream."""

    input_token_count: _Count | None = None
    output_token_count: _Count | None = None
    inputTokenCount: _Count | None = None  # noqa: N815
    outputTokenCount: _Count | None = None  # noqa: N815


class Nested(msgspec.Struct, gc=False):
    """A member that may hold the usage one level down."""

    usage: Fields | None = None
    meta: Fields | None = None


class _Answer(msgspec.Struct, gc=False):
    usage: Fields | None = None
    usageMetadata: GoogleFields | None = None  # noqa: N815
    meta: Fields | None = None
    metrics: Metrics | None = None
    result: Nested | str | list[msgspec.Raw] | bool | float | None = None


_ANSWER = msgspec.json.Decoder(_Answer)


def usage_of(
    provider: Provider, endpoint: str, body: bytes, headers: Headers | None = None
) -> Usage | None:
    """The tokens that a whole answer says it took; None when it does not say.

    Args:
        provider: Who answered.
        endpoint: What was asked, as callers write it.
        body: The whole answer, decoded from its content coding.
        headers: Of the answer; Bedrock's `invoke` counts there.
    """
    if provider.dialect == "bedrock" and headers is not None:
        found = _of_headers(headers)
        if found is not None:
            return found
    if body[:1] != b"{" and body.lstrip()[:1] != b"{":
        return None
    try:
        answer = _ANSWER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if answer.usage is not None:
        return of_fields(answer.usage)
    if answer.usageMetadata is not None:
        return of_google(answer.usageMetadata)
    if answer.meta is not None:
        return of_fields(answer.meta)
    if isinstance(answer.result, Nested) and answer.result.usage is not None:
        return of_fields(answer.result.usage)
    return None if answer.metrics is None else of_metrics(answer.metrics)


def of_fields(fields: Fields) -> Usage | None:
    """Read `usage`, whoever wrote it."""
    if fields.prompt_tokens is not None or fields.completion_tokens is not None:
        return _of_openai(fields)
    if fields.inputTokens is not None or fields.outputTokens is not None:
        read = fields.cacheReadInputTokens or 0
        written = fields.cacheWriteInputTokens or 0
        return Usage(
            prompt_tokens=(fields.inputTokens or 0) + read + written,
            completion_tokens=fields.outputTokens or 0,
            cached_tokens=read,
        )
    if fields.input_tokens is not None or fields.output_tokens is not None:
        return _of_anthropic_or_responses(fields)
    units = fields.billed_units or fields.tokens
    if units is None or (units.input_tokens is None and units.output_tokens is None):
        return None
    return Usage(
        prompt_tokens=int(units.input_tokens or 0), completion_tokens=int(units.output_tokens or 0)
    )


def of_google(fields: GoogleFields) -> Usage:
    """Read Google's counts, which keep thoughts apart from the answer."""
    return Usage(
        prompt_tokens=fields.promptTokenCount + fields.toolUsePromptTokenCount,
        completion_tokens=fields.candidatesTokenCount + fields.thoughtsTokenCount,
        cached_tokens=fields.cachedContentTokenCount,
        reasoning_tokens=fields.thoughtsTokenCount,
    )


def of_metrics(metrics: Metrics) -> Usage | None:
    """Read the counts of Replicate and of Bedrock's streams."""
    prompt = metrics.input_token_count or metrics.inputTokenCount
    completion = metrics.output_token_count or metrics.outputTokenCount
    if prompt is None and completion is None:
        return None
    return Usage(prompt_tokens=prompt or 0, completion_tokens=completion or 0)


def _of_openai(fields: Fields) -> Usage:
    prompt = fields.prompt_tokens or 0
    completion = fields.completion_tokens or 0
    cached = fields.prompt_cache_hit_tokens or 0
    reasoning = 0
    if fields.prompt_tokens_details is not None:
        cached = fields.prompt_tokens_details.cached_tokens or cached
    if fields.completion_tokens_details is not None:
        reasoning = fields.completion_tokens_details.reasoning_tokens or 0
    # xAI leaves reasoning out of `completion_tokens` and bills it; the total shows that.
    if reasoning and fields.total_tokens == prompt + completion + reasoning:
        completion += reasoning
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        reasoning_tokens=reasoning,
    )


def _of_anthropic_or_responses(fields: Fields) -> Usage:
    # Anthropic's `input_tokens` leave both kinds of cached ones out; OpenAI's hold them.
    read = fields.cache_read_input_tokens or 0
    cached = read
    reasoning = 0
    if fields.input_tokens_details is not None:
        cached = fields.input_tokens_details.cached_tokens or read
    if fields.output_tokens_details is not None:
        reasoning = fields.output_tokens_details.reasoning_tokens or 0
    return Usage(
        prompt_tokens=(fields.input_tokens or 0) + read + (fields.cache_creation_input_tokens or 0),
        completion_tokens=fields.output_tokens or 0,
        cached_tokens=cached,
        reasoning_tokens=reasoning,
    )


def _of_headers(headers: Headers) -> Usage | None:
    counts = {name: value for name, value in headers if name in (_INPUT_HEADER, _OUTPUT_HEADER)}
    prompt = counts.get(_INPUT_HEADER, b"")
    completion = counts.get(_OUTPUT_HEADER, b"")
    if not prompt.isdigit() and not completion.isdigit():
        return None
    return Usage(
        prompt_tokens=int(prompt) if prompt.isdigit() else 0,
        completion_tokens=int(completion) if completion.isdigit() else 0,
    )
