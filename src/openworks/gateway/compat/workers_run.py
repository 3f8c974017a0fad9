"""Cloudflare's `run` for text and embeddings, by this server's own OpenAI handlers.

Shapes: https://developers.cloudflare.com/workers-ai/models/.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

import orjson

from openworks.core.errors import InvalidRequestError, ProviderError
from openworks.core.json import JsonObject, JsonValue
from openworks.gateway.compat.base import StreamTranslator
from openworks.gateway.compat.read import (
    MalformedAnswer,
    a_list,
    a_text,
    an_object,
    field_list,
    field_object,
    field_text,
    loads,
    unreadable,
    unsupported,
)
from openworks.gateway.compat.workers_stream import RunStream, run_call

RunOperation: TypeAlias = Literal["chat", "completions", "embeddings"]
DEFAULT_MAX_TOKENS: Final = 256
JSON_MODE_FAILED: Final = "JSON Mode couldn't be met"
"""What Cloudflare says, and clients compare."""

_AS_THEY_ARE: Final = (
    "frequency_penalty", "logit_bias", "parallel_tool_calls", "presence_penalty",
    "reasoning_effort", "seed", "stop", "temperature", "tool_choice", "top_k", "top_p", "user",
    "chat_template_kwargs",
)  # fmt: skip
_OWN: Final = frozenset(
    {
        "functions", "lora", "max_completion_tokens", "max_tokens", "messages", "model", "options",
        "prompt", "raw", "repetition_penalty", "response_format", "stream", "stream_options",
        "tools",
    }
)  # fmt: skip
_NOT_RAW: Final = ("tools", "functions", "response_format", "tool_choice")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCall:
    """One `run`: what to ask this server's own handler, and how its answer is told."""

    operation: RunOperation
    body: JsonObject
    """For `/v1/chat/completions`, `/v1/completions` or `/v1/embeddings`."""
    is_stream: bool = False
    wants_json: bool = False
    lora: str | None = None
    """The adapter that the caller asks for, by id or name."""

    def answer(self, body: bytes) -> JsonObject:
        """Return `result` for the handler's good answer.

        Raises:
            ProviderError: The model did not write the JSON that was asked for.
        """
        try:
            said = loads(body)
            if self.operation == "embeddings":
                return _embeddings_result(said)
            return self._text_result(said)
        except MalformedAnswer as error:
            raise unreadable("workers-ai", error) from error

    def stream(self) -> StreamTranslator:
        """Begin to translate the handler's stream to lines of `{"response": …}`."""
        return RunStream()

    def _text_result(self, said: JsonObject) -> JsonObject:
        choices = a_list(said.get("choices"))
        if not choices:
            raise MalformedAnswer("it has no choice")
        choice = an_object(choices[0])
        result: JsonObject = {}
        if self.operation == "completions":
            result["response"] = a_text(choice.get("text"))
        else:
            message = an_object(choice.get("message"))
            result["response"] = message.get("content")
            if message.get("reasoning_content") is not None:
                result["reasoning_content"] = message["reasoning_content"]
            calls = message.get("tool_calls")
            if calls:
                result["tool_calls"] = [run_call(an_object(call)) for call in a_list(calls)]
            elif self.wants_json:
                result["response"] = _parsed(message.get("content"))
        result["usage"] = said.get("usage")
        return result


def run_text(model: str, fields: JsonObject) -> RunCall:
    """Return the call for a text model's input.

    `options` is the caller's word to the scheduler and is read elsewhere; `raw` goes to plain
    completions, which put no template around a prompt, or around what messages say. `lora` is the
    adapter of a model's name.

    Raises:
        UnsupportedParameterError: A field cannot be honoured; names it.
        InvalidRequestError: A field has the wrong shape; names it.
    """
    given: JsonObject = {name: value for name, value in fields.items() if value is not None}
    _refuse(given)
    lora = field_text(given["lora"], "lora") if "lora" in given else None
    body = _options(model if lora is None else f"{model}+{lora}", given)
    if given.get("raw") in (True, "true"):  # Cloudflare's users write both
        return replace(_raw(given, body), lora=lora)
    body["messages"] = _messages(given)
    tools = _tools(given)
    if tools:
        body["tools"] = tools
    is_stream = "stream" in body
    response_format = _response_format(given)
    if response_format is not None:
        if is_stream:
            raise unsupported("stream", "JSON Mode does not stream.")
        body["response_format"] = response_format
    return RunCall(
        operation="chat",
        body=body,
        is_stream=is_stream,
        wants_json=response_format is not None,
        lora=lora,
    )


def run_embeddings(model: str, fields: JsonObject) -> RunCall:
    """Return the call for an embedding model's input, `{"text": …}`.

    Raises:
        UnsupportedParameterError: It asks for a pooling that is not the model's own to choose.
        InvalidRequestError: `text` is neither a string nor a list of strings.
    """
    given: JsonObject = {name: value for name, value in fields.items() if value is not None}
    for name in given:
        if name not in {"text", "model", "options"}:
            raise unsupported(name, "models here embed in one way only.")
    text = given.get("text")
    texts = [text] if isinstance(text, str) else field_list(text, "text")
    if not texts:
        raise InvalidRequestError("Invalid 'text': at least one is needed.", param="text")
    inputs: list[JsonValue] = [field_text(one, f"text[{n}]") for n, one in enumerate(texts)]
    body: JsonObject = {"model": model, "input": inputs, "encoding_format": "float"}
    return RunCall(operation="embeddings", body=body)


def _refuse(given: Mapping[str, JsonValue]) -> None:
    for name in given:
        if name not in _OWN and name not in _AS_THEY_ARE:
            raise unsupported(name, "models here have nothing like it.")


def _options(model: str, given: JsonObject) -> JsonObject:
    """Return what chat and plain completions share."""
    limit = given.get("max_tokens", given.get("max_completion_tokens", DEFAULT_MAX_TOKENS))
    body: JsonObject = {"model": model, "max_tokens": limit}
    for name in _AS_THEY_ARE:
        if name in given:
            body[name] = given[name]
    if "repetition_penalty" in given:
        body["repeat_penalty"] = given["repetition_penalty"]
    if given.get("stream") is True:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return body


def _raw(given: JsonObject, body: JsonObject) -> RunCall:
    for name in _NOT_RAW:
        if name in given:
            raise unsupported(name, "a raw prompt takes none.")
    body["prompt"] = _raw_prompt(given)
    return RunCall(operation="completions", body=body, is_stream="stream" in body)


def _raw_prompt(given: JsonObject) -> str:
    """Return the prompt, or what messages say one after the other, without their roles."""
    if "messages" not in given:
        return field_text(given.get("prompt"), "prompt")
    said = [
        field_text(field_object(value, f"messages[{index}]").get("content"), f"messages[{index}]")
        for index, value in enumerate(field_list(given["messages"], "messages"))
    ]
    if not said:
        raise InvalidRequestError("Invalid 'messages': at least one is needed.", param="messages")
    return "\n".join(said)


def _messages(given: JsonObject) -> list[JsonValue]:
    if "messages" not in given:
        if "prompt" not in given:
            raise InvalidRequestError(
                "Missing required parameter: 'prompt' or 'messages'.",
                code="missing_required_parameter",
                param="prompt",
            )
        return [{"role": "user", "content": field_text(given["prompt"], "prompt")}]
    messages: list[JsonValue] = []
    open_calls: list[str] = []
    for index, value in enumerate(field_list(given["messages"], "messages")):
        message = {**field_object(value, f"messages[{index}]")}
        if message.get("tool_calls"):
            calls = _calls(message["tool_calls"], index)
            open_calls = [str(call["id"]) for call in calls]
            message["tool_calls"] = [*calls]
        elif message.get("role") == "tool":
            _answer_call(message, index, open_calls)
        messages.append(message)
    return messages


def _answer_call(message: JsonObject, index: int, open_calls: list[str]) -> None:
    """Tell a result which call it answers: Cloudflare's own examples leave that to their order."""
    call_id = message.get("tool_call_id")
    if call_id is None:
        message["tool_call_id"] = open_calls.pop(0) if open_calls else f"call_{index}"
    elif call_id in open_calls:
        open_calls.remove(str(call_id))


def _calls(value: JsonValue, index: int) -> list[JsonObject]:
    """Return an assistant's calls in OpenAI's shape, also those in Cloudflare's."""
    calls: list[JsonObject] = []
    for number, item in enumerate(field_list(value, f"messages[{index}].tool_calls")):
        call = field_object(item, f"messages[{index}].tool_calls[{number}]")
        if "function" in call:
            calls.append({"id": f"call_{index}_{number}", "type": "function", **call})
            continue
        arguments = call.get("arguments", {})
        written = arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()
        function: JsonObject = {"name": call.get("name"), "arguments": written}
        call_id = call.get("id") or f"call_{index}_{number}"
        calls.append({"id": call_id, "type": "function", "function": function})
    return calls


def _tools(given: JsonObject) -> list[JsonValue]:
    tools: list[JsonValue] = []
    for name in ("tools", "functions"):
        for index, value in enumerate(field_list(given.get(name, []), name)):
            tool = field_object(value, f"{name}[{index}]")
            if "function" in tool:
                tools.append({"type": "function", "function": tool["function"]})
                continue
            function: JsonObject = {
                key: tool[key] for key in ("name", "description", "parameters") if key in tool
            }
            tools.append({"type": "function", "function": function})
    return tools


def _response_format(given: JsonObject) -> JsonObject | None:
    if "response_format" not in given:
        return None
    wanted = field_object(given["response_format"], "response_format")
    if wanted.get("type") != "json_schema":
        return None if wanted.get("type") == "text" else wanted
    schema = field_object(wanted.get("json_schema"), "response_format.json_schema")
    if "schema" in schema and "name" in schema:
        return wanted  # OpenAI's shape, which newer models of Cloudflare take too
    return {
        "type": "json_schema",
        "json_schema": {"name": "response", "schema": schema.get("schema", schema)},
    }


def _parsed(content: JsonValue) -> JsonValue:
    try:
        parsed: JsonValue = orjson.loads(content) if isinstance(content, str) else None
    except orjson.JSONDecodeError:
        parsed = None
    if not isinstance(parsed, dict | list):
        raise ProviderError(JSON_MODE_FAILED, code="json_mode_failed")
    return parsed


def _embeddings_result(said: JsonObject) -> JsonObject:
    vectors = [a_list(an_object(item).get("embedding")) for item in a_list(said.get("data"))]
    shape: list[JsonValue] = [len(vectors), len(vectors[0]) if vectors else 0]
    return {"shape": shape, "data": [*vectors]}
