"""Chat by Anthropic's Messages API: https://platform.claude.com/docs/en/api/messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, assert_never

import orjson

from openworks.core.clock import Clock
from openworks.core.errors import ProviderError
from openworks.core.json import JsonObject, JsonValue
from openworks.gateway.compat import claude
from openworks.gateway.compat.base import NativeRequest
from openworks.gateway.compat.chat_input import read_chat, wants_usage
from openworks.gateway.compat.chat_output import (
    ChatStream,
    WholeAnswer,
    thinking_block,
    usage_body,
)
from openworks.gateway.compat.chat_parts import (
    ChatInput,
    Document,
    Image,
    Part,
    Text,
    Thinking,
    Tool,
    ToolResult,
    ToolUse,
)
from openworks.gateway.compat.read import (
    MalformedAnswer,
    a_count,
    a_list,
    a_text,
    an_object,
    error_json,
    error_kind,
    error_text,
    loads,
    unreadable,
    unsupported,
)
from openworks.gateway.compat.sse import EventData
from openworks.ports.calls import Usage

VERSION: Final = b"2023-06-01"
_PROVIDER: Final = "anthropic"
_SERVICE_TIERS: Final = {"default": "standard_only", "priority": "auto"}


class AnthropicChat:
    """OpenAI's chat completions by Anthropic's messages."""

    def __init__(self, *, model: str, clock: Clock) -> None:
        self._model = model
        self._clock = clock

    def request(self, body: JsonObject) -> NativeRequest:
        native = native_body(read_chat(body), self._model)
        return NativeRequest(
            path="v1/messages",
            body=orjson.dumps(native),
            headers=[(b"anthropic-version", VERSION)],
        )

    def answer(self, body: bytes) -> bytes:
        try:
            return _answer(loads(body), int(self._clock.now_s()))
        except MalformedAnswer as error:
            raise unreadable(_PROVIDER, error) from error

    def error(self, status: int, body: bytes) -> bytes:
        try:
            said = an_object(loads(body).get("error"))
            kind = a_text(said.get("type"))
            return error_json(a_text(said.get("message")), kind, kind)
        except MalformedAnswer:
            return error_json(error_text(_PROVIDER, status, body), error_kind(status), None)

    def stream(self, request: JsonObject) -> AnthropicStream:
        return AnthropicStream(created=int(self._clock.now_s()), include_usage=wants_usage(request))


def native_body(chat: ChatInput, model: str) -> JsonObject:
    """Return the body of `POST /v1/messages`.

    Temperatures over 1, where Anthropic's range ends, become 1.
    """
    max_tokens = chat.max_tokens or claude.default_max_tokens(model)
    body: JsonObject = {
        "model": model,
        "max_tokens": max_tokens,
        "messages": [
            {"role": turn.role, "content": [_block(part) for part in turn.parts]}
            for turn in chat.turns
        ],
    }
    if chat.system:
        body["system"] = [_block(text) for text in chat.system]
    if chat.is_stream:
        body["stream"] = True
    if chat.tools:
        body["tools"] = [_tool(tool) for tool in chat.tools]
    _add_tool_choice(body, chat)
    _add_sampling(body, chat)
    thinking, effort = claude.thinking(chat, model, max_tokens)
    if thinking is not None:
        body["thinking"] = thinking
    output: JsonObject = {}
    if effort is not None:
        output["effort"] = effort
    if chat.schema is not None:
        output["format"] = {"type": "json_schema", "schema": chat.schema.schema}
    if output:
        body["output_config"] = output
    return body


def _add_sampling(body: JsonObject, chat: ChatInput) -> None:
    if chat.temperature is not None:
        body["temperature"] = min(chat.temperature, 1)
    if chat.top_p is not None:
        body["top_p"] = chat.top_p
    if chat.top_k is not None:
        body["top_k"] = chat.top_k
    if chat.stop:
        body["stop_sequences"] = [*chat.stop]
    if chat.user is not None:
        body["metadata"] = {"user_id": chat.user}
    if chat.service_tier is not None:
        tier = _SERVICE_TIERS.get(chat.service_tier)
        if tier is None:
            raise unsupported("service_tier", f"Anthropic has no tier {chat.service_tier!r:.100}.")
        body["service_tier"] = tier


def _add_tool_choice(body: JsonObject, chat: ChatInput) -> None:
    if not chat.tools:
        return
    mode = chat.tool_choice.mode if chat.tool_choice else "auto"
    choice: JsonObject = {"type": mode}
    if chat.tool_choice and mode == "tool":
        choice["name"] = chat.tool_choice.name
    if mode != "none" and not chat.is_parallel:
        choice["disable_parallel_tool_use"] = True
    if chat.tool_choice or not chat.is_parallel:
        body["tool_choice"] = choice


def _tool(tool: Tool) -> JsonObject:
    native: JsonObject = {"name": tool.name, "input_schema": tool.parameters}
    if tool.description is not None:
        native["description"] = tool.description
    if tool.is_strict:
        native["strict"] = True
    return _cached(native, tool.cache_control)


def _cached(block: JsonObject, cache_control: JsonObject | None) -> JsonObject:
    if cache_control is not None:
        block["cache_control"] = cache_control
    return block


def _block(part: Part) -> JsonObject:
    match part:
        case Text():
            return _cached({"type": "text", "text": part.text}, part.cache_control)
        case Image():
            return _cached({"type": "image", "source": _image_source(part)}, part.cache_control)
        case Document():
            source: JsonObject = {
                "type": "base64",
                "media_type": "application/pdf",
                "data": part.data,
            }
            return {"type": "document", "source": source, "title": part.name}
        case Thinking():
            if part.redacted:
                return {"type": "redacted_thinking", "data": part.redacted}
            return thinking_block(part.text, part.signature)
        case ToolUse():
            return {
                "type": "tool_use",
                "id": part.id,
                "name": part.name,
                "input": part.arguments,
            }
        case ToolResult():
            texts: list[JsonValue] = [{"type": "text", "text": text} for text in part.texts]
            return {"type": "tool_result", "tool_use_id": part.call_id, "content": texts}
        case _:
            assert_never(part)


def _image_source(image: Image) -> JsonObject:
    if image.url:
        return {"type": "url", "url": image.url}
    return {"type": "base64", "media_type": image.media_type, "data": image.data}


def _answer(message: JsonObject, created: int) -> bytes:
    whole = WholeAnswer()
    for value in a_list(message.get("content")):
        block = an_object(value)
        match block.get("type"):
            case "text":
                whole.texts.append(a_text(block.get("text")))
            case "thinking":
                signature = block.get("signature")
                whole.add_thinking(
                    a_text(block.get("thinking")), signature if isinstance(signature, str) else ""
                )
            case "redacted_thinking":
                whole.thinking_blocks.append(_redacted(block))
            case "tool_use":
                whole.add_call(
                    a_text(block.get("id")),
                    a_text(block.get("name")),
                    an_object(block.get("input")),
                )
    whole.refusal = _refusal(message)
    usage, cache_write_tokens = _usage(an_object(message.get("usage")), Usage(), 0)
    return whole.body(
        answer_id=a_text(message.get("id")),
        created=created,
        model=a_text(message.get("model")),
        native_stop=a_text(message.get("stop_reason")),
        usage=usage_body(usage, cache_write_tokens),
    )


def _redacted(block: JsonObject) -> JsonObject:
    return {"type": "redacted_thinking", "data": a_text(block.get("data"))}


def _refusal(stopped: JsonObject) -> str | None:
    """Return Anthropic's words on why its model refused, when there are any."""
    details = stopped.get("stop_details")
    explanation = details.get("explanation") if isinstance(details, dict) else None
    return explanation if isinstance(explanation, str) else None


def _usage(said: JsonObject, before: Usage, written_before: int) -> tuple[Usage, int]:
    """Return the counts and those of the cache's writes.

    Streams count up, and later events leave out what they have nothing new on. Anthropic counts the
    cache's tokens beside `input_tokens`, OpenAI as a part of the prompt's.
    """
    fresh = before.prompt_tokens - before.cached_tokens - written_before
    if said.get("input_tokens") is not None:
        fresh = a_count(said["input_tokens"])
    cached = before.cached_tokens
    if said.get("cache_read_input_tokens") is not None:
        cached = a_count(said["cache_read_input_tokens"])
    written = written_before
    if said.get("cache_creation_input_tokens") is not None:
        written = a_count(said["cache_creation_input_tokens"])
    details = said.get("output_tokens_details")
    thought = details.get("thinking_tokens") if isinstance(details, dict) else None
    usage = Usage(
        prompt_tokens=fresh + cached + written,
        completion_tokens=max(a_count(said.get("output_tokens")), before.completion_tokens),
        cached_tokens=cached,
        reasoning_tokens=max(a_count(thought), before.reasoning_tokens),
    )
    return usage, written


class AnthropicStream(ChatStream):
    """Anthropic's stream as OpenAI's chunks."""

    __slots__ = ("_block", "_events", "_signature", "_stop", "_thought")

    def __init__(self, *, created: int, include_usage: bool) -> None:
        super().__init__(provider=_PROVIDER, created=created, include_usage=include_usage)
        self._events = EventData()
        self._block: JsonValue = None  # the type of the open block
        self._thought: list[str] = []
        self._signature = ""
        self._stop: str | None = None

    def _read(self, chunk: bytes) -> Iterator[bytes]:
        for data in self._events.feed(chunk):
            event = loads(data)
            kind = event.get("type")
            if kind == "content_block_delta":
                yield self._block_delta(an_object(event.get("delta")))
            elif kind == "content_block_start":
                yield self._block_start(an_object(event.get("content_block")))
            elif kind == "content_block_stop":
                yield self._block_stop()
            else:
                yield self._of_message(kind, event)

    def _of_message(self, kind: JsonValue, event: JsonObject) -> bytes:
        match kind:
            case "message_start":
                message = an_object(event.get("message"))
                self._count(message.get("usage"))
                return self._start(a_text(message.get("id")), a_text(message.get("model")))
            case "message_delta":
                self._count(event.get("usage"))
                delta = an_object(event.get("delta"))
                if delta.get("stop_reason") is not None:
                    self._stop = a_text(delta["stop_reason"])
                refusal = _refusal(delta)
                return b"" if refusal is None else self._delta({"refusal": refusal})
            case "message_stop":
                if self._stop is None:
                    raise MalformedAnswer("it stopped without a reason")
                return self._finish(self._stop) + self._done()
            case "error":
                error = an_object(event.get("error"))
                raise ProviderError(a_text(error.get("message")), code=a_text(error.get("type")))
            case _:
                return b""  # `ping`, and what may be added

    def _count(self, said: JsonValue) -> None:
        self.usage, self.cache_write_tokens = _usage(
            an_object(said), self.usage, self.cache_write_tokens
        )

    def _block_start(self, block: JsonObject) -> bytes:
        self._block = block.get("type")
        match self._block:
            case "text":
                return self._text(a_text(block.get("text")))
            case "thinking":
                self._thought = [a_text(block.get("thinking"))]
                signature = block.get("signature")
                self._signature = signature if isinstance(signature, str) else ""
                return self._reasoning(self._thought[0])
            case "redacted_thinking":
                return self._delta({"thinking_blocks": [_redacted(block)]})
            case "tool_use":
                opened = self._open_call(a_text(block.get("id")), a_text(block.get("name")))
                arguments = block.get("input")
                if arguments:  # whole at once; otherwise it is empty and comes in pieces
                    opened += self._arguments(orjson.dumps(arguments).decode())
                return opened
            case _:
                return b""

    def _block_delta(self, delta: JsonObject) -> bytes:
        match delta.get("type"):
            case "text_delta":
                return self._text(a_text(delta.get("text")))
            case "input_json_delta" if self._block == "tool_use":
                return self._arguments(a_text(delta.get("partial_json")))
            case "thinking_delta":
                thought = a_text(delta.get("thinking"))
                self._thought.append(thought)
                return self._reasoning(thought)
            case "signature_delta":
                self._signature += a_text(delta.get("signature"))
                return b""
            case _:
                return b""  # citations, and what may be added

    def _block_stop(self) -> bytes:
        block, self._block = self._block, None
        if block == "tool_use":
            return self._close_call()
        if block == "thinking" and self._signature:
            return self._delta(
                {"thinking_blocks": [thinking_block("".join(self._thought), self._signature)]}
            )
        return b""
