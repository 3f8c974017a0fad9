"""Chat by Amazon Bedrock's Converse, whole and streamed.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, assert_never
from urllib.parse import quote

import orjson

from openworks.core.clock import Clock
from openworks.core.errors import ProviderError
from openworks.core.ids import NewId
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
    OutputSchema,
    Part,
    Text,
    Thinking,
    Tool,
    ToolResult,
    ToolUse,
)
from openworks.gateway.compat.frames import Frames
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
from openworks.ports.calls import Usage

_PROVIDER: Final = "aws-bedrock"
_DOCUMENT_NAME: Final = re.compile(r"[^A-Za-z0-9()\[\]-]+")
_SERVICE_TIERS: Final = frozenset({"default", "flex", "priority"})


def model_path(model: str, operation: str) -> str:
    """Return the path of an operation; ARNs and versions hold what must be encoded."""
    return f"model/{quote(model, safe='')}/{operation}"


def bedrock_error(status: int, body: bytes) -> bytes:
    """Return OpenAI's error body for one of AWS."""
    try:
        said = loads(body)
        message = said.get("message", said.get("Message"))  # both spellings are in use
        code = said.get("__type")
        return error_json(
            a_text(message), error_kind(status), code if isinstance(code, str) else None
        )
    except MalformedAnswer:
        return error_json(error_text(_PROVIDER, status, body), error_kind(status), None)


class BedrockChat:
    """OpenAI's chat completions by Converse and ConverseStream.

    Bedrock's answers carry neither an id nor a model: the id is made here.
    """

    def __init__(self, *, model: str, clock: Clock, new_id: NewId) -> None:
        self._model = model
        self._clock = clock
        self._new_id = new_id

    def request(self, body: JsonObject) -> NativeRequest:
        chat = read_chat(body)
        operation = "converse-stream" if chat.is_stream else "converse"
        return NativeRequest(
            path=model_path(self._model, operation),
            body=orjson.dumps(native_body(chat, self._model)),
            headers=[],
        )

    def answer(self, body: bytes) -> bytes:
        try:
            return self._answer(loads(body))
        except MalformedAnswer as error:
            raise unreadable(_PROVIDER, error) from error

    def error(self, status: int, body: bytes) -> bytes:
        return bedrock_error(status, body)

    def stream(self, request: JsonObject) -> BedrockStream:
        return BedrockStream(
            answer_id=self._new_id("chatcmpl-"),
            model=self._model,
            created=int(self._clock.now_s()),
            include_usage=wants_usage(request),
        )

    def _answer(self, said: JsonObject) -> bytes:
        whole = WholeAnswer()
        message = an_object(an_object(said.get("output")).get("message"))
        for value in a_list(message.get("content")):
            block = an_object(value)
            if "text" in block:
                whole.texts.append(a_text(block["text"]))
            elif "toolUse" in block:
                call = an_object(block["toolUse"])
                whole.add_call(
                    a_text(call.get("toolUseId")),
                    a_text(call.get("name")),
                    an_object(call.get("input")),
                )
            elif "reasoningContent" in block:
                _add_reasoning(whole, an_object(block["reasoningContent"]))
        usage, cache_write_tokens = _usage(an_object(said.get("usage")))
        return whole.body(
            answer_id=self._new_id("chatcmpl-"),
            created=int(self._clock.now_s()),
            model=self._model,
            native_stop=a_text(said.get("stopReason")),
            usage=usage_body(usage, cache_write_tokens),
        )


def native_body(chat: ChatInput, model: str) -> JsonObject:
    """Return the body of Converse and ConverseStream.

    Let pass without effect is `user`, for which Converse has no place. Temperatures over 1, where
    its range ends, become 1.
    """
    body: JsonObject = {
        "messages": [
            {"role": turn.role, "content": [_block(part) for part in turn.parts]}
            for turn in chat.turns
        ]
    }
    if chat.system:
        body["system"] = [{"text": text.text} for text in chat.system]
    inference = _inference(chat)
    if inference:
        body["inferenceConfig"] = inference
    tools = _tool_config(chat)
    if tools is not None:
        body["toolConfig"] = tools
    if chat.service_tier is not None:
        if chat.service_tier not in _SERVICE_TIERS:
            raise unsupported("service_tier", f"Bedrock has no tier {chat.service_tier!r:.100}.")
        body["serviceTier"] = {"type": chat.service_tier}
    _add_output(body, chat, model)
    return body


def _inference(chat: ChatInput) -> JsonObject:
    inference: JsonObject = {}
    if chat.max_tokens is not None:
        inference["maxTokens"] = chat.max_tokens
    if chat.temperature is not None:
        inference["temperature"] = min(chat.temperature, 1)
    if chat.top_p is not None:
        inference["topP"] = chat.top_p
    if chat.stop:
        inference["stopSequences"] = [*chat.stop]
    return inference


def _tool_config(chat: ChatInput) -> JsonObject | None:
    if not chat.tools:
        return None
    if not chat.is_parallel:
        raise unsupported("parallel_tool_calls", "Bedrock cannot hold a model to one call a turn.")
    config: JsonObject = {"tools": [_tool(tool) for tool in chat.tools]}
    choice = chat.tool_choice
    if choice is None:
        return config
    match choice.mode:
        case "none":
            if chat.has_calls():
                raise unsupported(
                    "tool_choice", "Bedrock cannot forbid calls once the conversation has some."
                )
            return None
        case "tool":
            config["toolChoice"] = {"tool": {"name": choice.name}}
        case mode:
            config["toolChoice"] = {mode: {}}
    return config


def _tool(tool: Tool) -> JsonObject:
    native: JsonObject = {"name": tool.name, "inputSchema": {"json": tool.parameters}}
    if tool.description:  # an empty one is refused
        native["description"] = tool.description
    if tool.is_strict:
        native["strict"] = True
    return {"toolSpec": native}


def _text_format(schema: OutputSchema) -> JsonObject:
    definition: JsonObject = {
        "name": schema.name,
        "schema": orjson.dumps(schema.schema).decode(),  # JSON in JSON
    }
    if schema.description:
        definition["description"] = schema.description
    return {"type": "json_schema", "structure": {"jsonSchema": definition}}


def _add_output(body: JsonObject, chat: ChatInput, model: str) -> None:
    """Add the form and the effort, and what Converse passes on in the model's own words."""
    extra, effort = _model_fields(chat, model)
    if extra:
        body["additionalModelRequestFields"] = extra
    output: JsonObject = {}
    if chat.schema is not None:
        output["textFormat"] = _text_format(chat.schema)
    if effort is not None:
        output["effort"] = effort
    if output:
        body["outputConfig"] = output


def _model_fields(chat: ChatInput, model: str) -> tuple[JsonObject, str | None]:
    if "anthropic.claude" in model:
        return _claude_fields(chat, model)
    if chat.top_k is not None:
        raise unsupported("top_k", f"Bedrock does not take it for '{model}'.")
    if chat.effort is None:
        return {}, None
    if "openai.gpt-oss" not in model:
        raise unsupported("reasoning_effort", f"Bedrock does not take it for '{model}'.")
    return {"reasoning_effort": chat.effort}, None


def _claude_fields(chat: ChatInput, model: str) -> tuple[JsonObject, str | None]:
    extra: JsonObject = {}
    max_tokens = chat.max_tokens or claude.default_max_tokens(model)
    thinking, effort = claude.thinking(chat, model, max_tokens)
    if thinking is not None:
        extra["thinking"] = thinking
    if chat.top_k is not None:
        extra["top_k"] = chat.top_k
    return extra, effort


def _block(part: Part) -> JsonObject:
    match part:
        case Text():
            return {"text": part.text}
        case Image():
            if part.url:
                raise unsupported(part.param, "Bedrock fetches no pictures; send a data URL.")
            source: JsonObject = {"bytes": part.data}
            return {"image": {"format": part.media_type.removeprefix("image/"), "source": source}}
        case Document():
            name = _DOCUMENT_NAME.sub(" ", part.name).strip() or "document"
            return {"document": {"format": "pdf", "name": name, "source": {"bytes": part.data}}}
        case Thinking():
            return {"reasoningContent": _reasoning_content(part)}
        case ToolUse():
            return {"toolUse": {"toolUseId": part.id, "name": part.name, "input": part.arguments}}
        case ToolResult():
            texts: list[JsonValue] = [{"text": text} for text in part.texts]
            return {"toolResult": {"toolUseId": part.call_id, "content": texts}}
        case _:
            assert_never(part)


def _reasoning_content(part: Thinking) -> JsonObject:
    if part.redacted:
        return {"redactedContent": part.redacted}
    return {"reasoningText": {"text": part.text, "signature": part.signature}}


def _add_reasoning(whole: WholeAnswer, content: JsonObject) -> None:
    if "redactedContent" in content:
        whole.thinking_blocks.append(_redacted(content))
        return
    said = an_object(content.get("reasoningText"))
    signature = said.get("signature")
    whole.add_thinking(a_text(said.get("text")), signature if isinstance(signature, str) else "")


def _redacted(content: JsonObject) -> JsonObject:
    return {"type": "redacted_thinking", "data": a_text(content["redactedContent"])}


def _usage(said: JsonObject) -> tuple[Usage, int]:
    """Return the counts and those of the cache's writes; Bedrock counts both beside the input."""
    cached = a_count(said.get("cacheReadInputTokens"))
    written = a_count(said.get("cacheWriteInputTokens"))
    usage = Usage(
        prompt_tokens=a_count(said.get("inputTokens")) + cached + written,
        completion_tokens=a_count(said.get("outputTokens")),
        cached_tokens=cached,
    )
    return usage, written


class BedrockStream(ChatStream):
    """ConverseStream's frames as OpenAI's chunks."""

    __slots__ = ("_answer_id", "_frames", "_is_call", "_model", "_signature", "_stop", "_thought")

    def __init__(self, *, answer_id: str, model: str, created: int, include_usage: bool) -> None:
        super().__init__(provider=_PROVIDER, created=created, include_usage=include_usage)
        self._answer_id = answer_id
        self._model = model
        self._frames = Frames()
        self._is_call = False
        self._thought: list[str] = []
        self._signature = ""
        self._stop: str | None = None

    def end(self) -> bytes:
        if self._stop is None or self._is_over or not self._frames.is_between:
            return super().end()
        return self._done()  # whole, though nothing was counted

    def _read(self, chunk: bytes) -> Iterator[bytes]:
        for headers, payload in self._frames.feed(chunk):
            kind = headers.get(":message-type")
            if kind == "event":
                yield self._event(headers.get(":event-type", ""), loads(payload))
            elif kind == "exception":
                said = loads(payload)
                message = said.get("message", said.get("Message"))
                raise ProviderError(
                    message if isinstance(message, str) else "Bedrock's stream failed.",
                    code=headers.get(":exception-type"),
                )
            else:
                raise ProviderError(
                    headers.get(":error-message") or "Bedrock's stream failed.",
                    code=headers.get(":error-code"),
                )

    def _event(self, kind: str, event: JsonObject) -> bytes:
        match kind:
            case "contentBlockDelta":
                return self._block_delta(an_object(event.get("delta")))
            case "contentBlockStart":
                return self._block_start(an_object(event.get("start")))
            case "contentBlockStop":
                return self._block_stop()
            case "messageStart":
                return self._start(self._answer_id, self._model)
            case "messageStop":
                self._stop = a_text(event.get("stopReason"))
                return self._finish(self._stop)
            case "metadata":
                self.usage, self.cache_write_tokens = _usage(an_object(event.get("usage")))
                if self._stop is None:
                    raise MalformedAnswer("its counts came before its end")
                return self._done()
            case _:
                return b""

    def _block_start(self, start: JsonObject) -> bytes:
        if "toolUse" not in start:
            return b""
        call = an_object(start["toolUse"])
        self._is_call = True
        return self._open_call(a_text(call.get("toolUseId")), a_text(call.get("name")))

    def _block_delta(self, delta: JsonObject) -> bytes:
        if "text" in delta:
            return self._text(a_text(delta["text"]))
        if "toolUse" in delta and self._is_call:
            return self._arguments(a_text(an_object(delta["toolUse"]).get("input")))
        if "reasoningContent" in delta:
            return self._reasoning_delta(an_object(delta["reasoningContent"]))
        return b""

    def _reasoning_delta(self, content: JsonObject) -> bytes:
        if "redactedContent" in content:
            return self._delta({"thinking_blocks": [_redacted(content)]})
        if "signature" in content:
            self._signature += a_text(content["signature"])
            return b""
        text = a_text(content.get("text"))
        self._thought.append(text)
        return self._reasoning(text)

    def _block_stop(self) -> bytes:
        if self._is_call:
            self._is_call = False
            return self._close_call()
        if not self._signature:
            self._thought = []
            return b""
        block = thinking_block("".join(self._thought), self._signature)
        self._thought, self._signature = [], ""
        return self._delta({"thinking_blocks": [block]})
