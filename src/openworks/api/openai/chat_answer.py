"""Our chunks as OpenAI's chat completions, whole and streamed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from openworks.core.json import JsonObject, JsonValue
from openworks.ports.calls import Usage
from openworks.ports.text import FinishReason, TextChunk, TokenLogprob, ToolCallDelta
from openworks.wire import sse


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What every part of one completion repeats."""

    id: str
    created: int
    model: str

    def body(self, kind: str) -> JsonObject:
        """The common fields."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "service_tier": "default",
            "system_fingerprint": None,
        }


@dataclass(slots=True)
class _Choice:
    """One answer while its pieces come in."""

    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    tool_calls: dict[int, JsonObject] = field(default_factory=dict)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    def add(self, chunk: TextChunk) -> None:
        self.content.append(chunk.content)
        self.reasoning.append(chunk.reasoning)
        self.logprobs.extend(chunk.logprobs)
        self.finish_reason = chunk.finish_reason or self.finish_reason
        for call in chunk.tool_calls:
            known = self.tool_calls.setdefault(call.index, {"id": "", "name": "", "arguments": ""})
            known["id"] = call.id or known["id"]
            known["name"] = call.name or known["name"]
            known["arguments"] = f"{known['arguments']}{call.arguments}"


class ChatAnswer:
    """Adds up the chunks of a request to a whole completion."""

    def __init__(self, n: int) -> None:
        self._choices = [_Choice() for _ in range(n)]
        self._usage = Usage()

    def add(self, chunk: TextChunk) -> None:
        """Take the next chunk."""
        self._choices[chunk.index].add(chunk)
        self._usage = chunk.usage or self._usage

    def body(self, head: Head, *, with_logprobs: bool) -> JsonObject:
        """Return the completion."""
        return {
            **head.body("chat.completion"),
            "choices": [
                _choice_body(index, choice, with_logprobs=with_logprobs)
                for index, choice in enumerate(self._choices)
            ],
            "usage": usage_body(self._usage),
        }


async def stream_events(
    chunks: AsyncGenerator[TextChunk, None],
    head: Head,
    *,
    n: int,
    include_usage: bool,
    with_logprobs: bool,
) -> AsyncGenerator[bytes, None]:
    """Encode chunks as events: each answer's role first, `[DONE]` last.

    Nothing is sent before the engine has taken the request, so that its refusal can still have a
    status of its own.
    """
    common = head.body("chat.completion.chunk")
    if include_usage:
        common["usage"] = None
    usage = Usage()
    started = False
    async with aclosing(chunks):
        async for chunk in chunks:
            if not started:
                started = True
                for index in range(n):
                    yield sse.event(_part(common, index, {"role": "assistant", "content": ""}))
            usage = chunk.usage or usage
            delta = _delta(chunk)
            if delta:
                part = _part(common, chunk.index, delta)
                if with_logprobs and chunk.logprobs:
                    choices = part["choices"]
                    assert isinstance(choices, list)
                    assert isinstance(choices[0], dict)
                    choices[0]["logprobs"] = logprobs_body(chunk.logprobs)
                yield sse.event(part)
            if chunk.finish_reason is not None:
                yield sse.event(_part(common, chunk.index, {}, chunk.finish_reason))
    if include_usage:
        yield sse.event({**common, "choices": [], "usage": usage_body(usage)})
    yield sse.DONE


def usage_body(usage: Usage) -> JsonObject:
    """Return OpenAI's `usage`."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def logprobs_body(tokens: tuple[TokenLogprob, ...] | list[TokenLogprob]) -> JsonObject:
    """Return a chat choice's `logprobs`."""
    return {
        "content": [
            {**_token(token), "top_logprobs": [_token(rival) for rival in token.top]}
            for token in tokens
        ],
        "refusal": None,
    }


def _token(token: TokenLogprob) -> JsonObject:
    return {"token": token.token, "bytes": list(token.bytes), "logprob": token.logprob}


def _part(
    common: JsonObject, index: int, delta: JsonObject, finish_reason: str | None = None
) -> JsonObject:
    choice: JsonObject = {
        "index": index,
        "delta": delta,
        "logprobs": None,
        "finish_reason": finish_reason,
    }
    return {**common, "choices": [choice]}


def _delta(chunk: TextChunk) -> JsonObject:
    delta: JsonObject = {}
    if chunk.content:
        delta["content"] = chunk.content
    if chunk.reasoning:
        delta["reasoning_content"] = chunk.reasoning
    if chunk.tool_calls:
        delta["tool_calls"] = [_call_delta(call) for call in chunk.tool_calls]
    return delta


def _call_delta(call: ToolCallDelta) -> JsonObject:
    function: JsonObject = {"arguments": call.arguments}
    if call.name is None:
        return {"index": call.index, "function": function}
    return {
        "index": call.index,
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, **function},
    }


def _choice_body(index: int, choice: _Choice, *, with_logprobs: bool) -> JsonObject:
    content, reasoning = "".join(choice.content), "".join(choice.reasoning)
    message: JsonObject = {
        "role": "assistant",
        "content": content if content or not choice.tool_calls else None,
        "refusal": None,
        "annotations": [],
    }
    if reasoning:
        message["reasoning_content"] = reasoning
    if choice.tool_calls:
        message["tool_calls"] = [_whole_call(call) for _, call in sorted(choice.tool_calls.items())]
    return {
        "index": index,
        "message": message,
        "logprobs": logprobs_body(choice.logprobs) if with_logprobs else None,
        "finish_reason": choice.finish_reason,
    }


def _whole_call(call: JsonObject) -> JsonValue:
    return {
        "id": call["id"],
        "type": "function",
        "function": {"name": call["name"], "arguments": call["arguments"]},
    }
