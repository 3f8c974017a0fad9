"""`POST /v1/completions`: plain continuation, without a chat template."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import cast

from openai.types.completion_create_params import CompletionCreateParams

from openworks.api.answers import Answer, Events, Json
from openworks.api.context import Context
from openworks.api.openai import values
from openworks.api.openai.chat_answer import Head, usage_body
from openworks.api.openai.sampling import MAX_ANSWERS, OWN_FIELDS, parse_sampling, wants_usage
from openworks.core.json import JsonObject, JsonValue
from openworks.core.tasks import gather, merge
from openworks.ports.calls import Usage
from openworks.ports.text import CompletionRequest, FinishReason, TextChunk, TokenLogprob
from openworks.wire import sse
from openworks.wire.openai.validate import RequestValidator

_VALIDATOR = RequestValidator(
    CompletionCreateParams,
    extra_fields=OWN_FIELDS,
)
_DEFAULT_MAX_TOKENS = 16
_MAX_PROMPTS = 2048
_PROMPTS_AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parsed:
    model: str
    requests: Sequence[CompletionRequest]
    """One for each prompt."""
    n: int
    """How many answers are wanted; each request makes `best_of`."""
    stream: bool
    include_usage: bool
    logprobs: int | None


@dataclass(slots=True)
class _Choice:
    text: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    def mean_logprob(self) -> float:
        """How likely the model found its own answer, per token."""
        if not self.logprobs:
            return 0.0
        return sum(token.logprob for token in self.logprobs) / len(self.logprobs)


async def create(context: Context) -> Answer:
    """Continue one prompt or several."""
    parsed = _parse(context.json())
    head = Head(
        id=context.services.new_id("cmpl-"),
        created=int(context.services.clock.now_s()),
        model=context.canonical(parsed.model),
    )
    if parsed.stream:
        return Events(_events(context, parsed, head))
    answers = await _gather(context, parsed)
    choices: list[JsonValue] = []
    for made, _ in answers:
        best = (
            sorted(made, key=_Choice.mean_logprob, reverse=True) if len(made) > parsed.n else made
        )
        for choice in best[: parsed.n]:
            choices.append(_choice_body(len(choices), choice, parsed.logprobs))
    usage = sum((usage for _, usage in answers), Usage())
    return Json({**_common(head), "choices": choices, "usage": usage_body(usage)})


async def _gather(context: Context, parsed: _Parsed) -> list[tuple[list[_Choice], Usage]]:
    """Answer every prompt, side by side."""

    async def answer(
        request: CompletionRequest, source: AsyncGenerator[TextChunk, None]
    ) -> tuple[list[_Choice], Usage]:
        choices, usage = [_Choice() for _ in range(request.n)], Usage()
        async with aclosing(source) as chunks:
            async for chunk in chunks:
                choice = choices[chunk.index]
                choice.text.append(chunk.content)
                choice.logprobs.extend(chunk.logprobs)
                choice.finish_reason = chunk.finish_reason or choice.finish_reason
                usage = chunk.usage or usage
        return choices, usage

    sources = _sources(context, parsed)
    return await gather([answer(*each) for each in zip(parsed.requests, sources, strict=True)])


def _sources(context: Context, parsed: _Parsed) -> list[AsyncGenerator[TextChunk, None]]:
    """One stream for each prompt. A few run at once: a request must not fill the engine's queue."""
    turns = asyncio.Semaphore(_PROMPTS_AT_ONCE)

    async def in_turn(number: int, request: CompletionRequest) -> AsyncGenerator[TextChunk, None]:
        call = context.call(parsed.model, stream=parsed.stream, number=number)
        async with turns, aclosing(context.services.pipeline.complete(call, request)) as chunks:
            async for chunk in chunks:
                yield chunk

    return [in_turn(number, request) for number, request in enumerate(parsed.requests)]


async def _events(context: Context, parsed: _Parsed, head: Head) -> AsyncGenerator[bytes, None]:
    """Stream the answers to every prompt, interleaved; `index` tells them apart."""
    common = _common(head)
    if parsed.include_usage:
        common["usage"] = None
    streams = _sources(context, parsed)
    usages = [Usage() for _ in streams]
    offsets = [0] * (len(streams) * parsed.n)
    async with aclosing(merge(streams)) as chunks:
        async for number, chunk in chunks:
            usages[number] = chunk.usage or usages[number]
            if chunk.content or chunk.finish_reason:
                index = number * parsed.n + chunk.index
                choice = _chunk_body(index, chunk, parsed.logprobs, offsets[index])
                offsets[index] += len(chunk.content)
                yield sse.event({**common, "choices": [choice]})
    if parsed.include_usage:
        usage = usage_body(sum(usages, Usage()))
        yield sse.event({**common, "choices": [], "usage": usage})
    yield sse.DONE


def _parse(body: JsonValue) -> _Parsed:
    fields = cast("JsonObject", _VALIDATOR.check(body))
    n = values.integer(fields, "n", 1, MAX_ANSWERS) or 1
    best_of = values.integer(fields, "best_of", 1, 20) or n
    stream = fields.get("stream") is True
    logprobs = values.integer(fields, "logprobs", 0, 5)
    echo = fields.get("echo") is True
    if best_of < n:
        raise values.invalid("best_of", f"'best_of' must be at least 'n', got {best_of} and {n}.")
    if best_of > n and stream:
        raise values.invalid("best_of", "'best_of' greater than 'n' cannot be streamed.")
    if echo and logprobs is not None:
        raise values.unsupported(
            "logprobs", "log probabilities of the prompt itself ('echo' with 'logprobs')."
        )
    max_tokens = values.integer(fields, "max_tokens", 0)
    sampling = parse_sampling(
        fields,
        max_tokens=_DEFAULT_MAX_TOKENS if max_tokens is None else max_tokens,
        top_logprobs=0 if best_of > n and logprobs is None else logprobs,
    )
    request = CompletionRequest(
        prompt="",
        suffix=cast("str | None", fields.get("suffix")),
        echo=echo,
        sampling=sampling,
        n=best_of,
    )
    return _Parsed(
        model=str(fields["model"]),
        requests=[replace(request, prompt=prompt) for prompt in _prompts(fields)],
        n=n,
        stream=stream,
        include_usage=wants_usage(fields, stream=stream),
        logprobs=logprobs,
    )


def _prompts(fields: JsonObject) -> list[str | Sequence[int]]:
    """Tell apart a text, texts, token ids and lists of token ids."""
    prompt = fields.get("prompt")
    found = values.texts_or_tokens("" if prompt is None else prompt, "prompt")
    if len(found) > _MAX_PROMPTS:
        raise values.invalid(
            "prompt", f"Invalid 'prompt': at most {_MAX_PROMPTS} are allowed, got {len(found)}."
        )
    return found


def _common(head: Head) -> JsonObject:
    return {
        "id": head.id,
        "object": "text_completion",
        "created": head.created,
        "model": head.model,
    }


def _choice_body(index: int, choice: _Choice, logprobs: int | None) -> JsonObject:
    return {
        "index": index,
        "text": "".join(choice.text),
        "logprobs": None if logprobs is None else _logprobs(choice.logprobs, 0),
        "finish_reason": choice.finish_reason,
    }


def _chunk_body(index: int, chunk: TextChunk, logprobs: int | None, offset: int) -> JsonObject:
    return {
        "index": index,
        "text": chunk.content,
        "logprobs": None if logprobs is None else _logprobs(chunk.logprobs, offset),
        "finish_reason": chunk.finish_reason,
    }


def _logprobs(tokens: Sequence[TokenLogprob], offset: int) -> JsonObject:
    """Return the older form: four lists side by side."""
    offsets: list[JsonValue] = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.token)
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [{rival.token: rival.logprob for rival in token.top} for token in tokens],
        "text_offset": offsets,
    }
