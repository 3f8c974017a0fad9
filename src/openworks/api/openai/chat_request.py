"""A chat completion's body as our request; what cannot be honoured is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from openai.types.chat import (
    ChatCompletionAssistantMessageParam,
    ChatCompletionMessageToolCallUnionParam,
)
from openai.types.chat.completion_create_params import CompletionCreateParams

from openworks.api.context import as_object
from openworks.api.openai import values
from openworks.api.openai.sampling import MAX_ANSWERS, OWN_FIELDS, parse_sampling, wants_usage
from openworks.core.errors import UnsupportedParameterError
from openworks.core.json import JsonObject, JsonValue
from openworks.ports.text import ChatRequest, JsonFormat, Sampling
from openworks.wire.openai.validate import RequestValidator

_VALIDATOR = RequestValidator(
    CompletionCreateParams,
    extra_fields={**OWN_FIELDS, "chat_template_kwargs": dict[str, object]},
    # Clients send back the very message that they received, with what the request types leave out.
    extra_fields_of={
        ChatCompletionAssistantMessageParam: {
            "annotations": list[object] | None,
            "reasoning_content": str | None,
            "tool_calls": list[ChatCompletionMessageToolCallUnionParam] | None,
        }
    },
)
_MAX_TOOLS = 128

_REFUSED: Mapping[str, str] = {
    "audio": "no model here speaks in a chat.",
    "functions": "it is deprecated; send 'tools'.",
    "function_call": "it is deprecated; send 'tool_choice'.",
    "moderation": "this server moderates through /v1/moderations alone.",
    "web_search_options": "this server does not search the web.",
}
_REFUSED_IN_MESSAGES: Mapping[str, str] = {
    "audio": "no model here hears what it said.",
    "function_call": "it is deprecated; send 'tool_calls'.",
}
_DEFAULT_ONLY: Mapping[str, tuple[JsonValue, ...]] = {
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "verbosity": ("medium",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedChat:
    """A chat request with what concerns its transport."""

    model: str
    request: ChatRequest
    stream: bool
    include_usage: bool
    store: bool
    metadata: Mapping[str, str]
    messages: list[JsonObject]
    """As the caller sent them, for the store."""


def parse_chat(body: JsonValue) -> ParsedChat:
    """Check a body and translate it.

    Raises:
        InvalidRequestError: It breaks OpenAI's types or ranges; names the field and the value.
        UnsupportedParameterError: It asks for what no model here can do.
    """
    fields = cast("JsonObject", _VALIDATOR.check(body))
    _refuse(fields)
    messages = [as_object(message) for message in cast("list[JsonValue]", fields["messages"])]
    if not messages:
        raise values.invalid(
            "messages", "Invalid 'messages': an empty array; at least one message is needed."
        )
    stream = fields.get("stream") is True
    return ParsedChat(
        model=str(fields["model"]),
        request=ChatRequest(
            messages=[_message(message, index) for index, message in enumerate(messages)],
            tools=_tools(fields),
            tool_choice=_tool_choice(fields),
            parallel_tool_calls=fields.get("parallel_tool_calls") is not False,
            response_format=_response_format(fields),
            reasoning_effort=cast("str | None", fields.get("reasoning_effort")),
            template_args=_template_args(fields),
            sampling=_sampling(fields),
            n=values.integer(fields, "n", 1, MAX_ANSWERS) or 1,
        ),
        stream=stream,
        include_usage=wants_usage(fields, stream=stream),
        store=fields.get("store") is True,
        metadata=values.metadata(fields.get("metadata")),
        messages=messages,
    )


def _refuse(fields: JsonObject) -> None:
    for name, reason in _REFUSED.items():
        if fields.get(name) is not None:
            raise UnsupportedParameterError(
                f"Unsupported parameter: '{name}': {reason}", param=name
            )
    for name, allowed in _DEFAULT_ONLY.items():
        value = fields.get(name)
        if value is not None and value not in allowed:
            raise UnsupportedParameterError(
                f"Unsupported value: '{name}' {value!r} cannot be honoured; leave it out.",
                code="unsupported_value",
                param=name,
            )


def _message(message: JsonObject, index: int) -> JsonObject:
    """Say a message the way that open models' templates expect.

    OpenAI's newer `developer` role is their `system`; what is null or concerns OpenAI's own
    bookkeeping is left out.
    """
    for name, reason in _REFUSED_IN_MESSAGES.items():
        if message.get(name) is not None:
            param = f"messages[{index}].{name}"
            raise UnsupportedParameterError(
                f"Unsupported parameter: '{param}': {reason}", param=param
            )
    if message["role"] == "function":
        raise UnsupportedParameterError(
            f"Unsupported value: 'messages[{index}].role' 'function' is deprecated; send 'tool'.",
            code="unsupported_value",
            param=f"messages[{index}].role",
        )
    kept: JsonObject = {
        name: value
        for name, value in message.items()
        if value is not None and name not in {"annotations", "refusal"}
    }
    kept.setdefault("content", message.get("refusal") or "")
    return {**kept, "role": "system"} if message["role"] == "developer" else kept


def _template_args(fields: JsonObject) -> JsonObject:
    args = as_object(fields.get("chat_template_kwargs") or {})
    values.check_depth(args, "chat_template_kwargs")
    return args


def _sampling(fields: JsonObject) -> Sampling:
    top_logprobs = values.integer(fields, "top_logprobs", 0, 20)
    wants_logprobs = fields.get("logprobs") is True
    if top_logprobs is not None and not wants_logprobs:
        raise values.invalid(
            "top_logprobs", "'top_logprobs' may be sent only when 'logprobs' is true."
        )
    max_tokens = values.integer(fields, "max_completion_tokens", 1)
    return parse_sampling(
        fields,
        max_tokens=max_tokens or values.integer(fields, "max_tokens", 1),
        top_logprobs=(top_logprobs or 0) if wants_logprobs else None,
    )


def _tools(fields: JsonObject) -> list[JsonObject]:
    tools = [as_object(tool) for tool in cast("list[JsonValue]", fields.get("tools") or [])]
    if len(tools) > _MAX_TOOLS:
        raise values.invalid(
            "tools", f"Invalid 'tools': at most {_MAX_TOOLS} are allowed, got {len(tools)}."
        )
    for index, tool in enumerate(tools):
        if tool["type"] != "function":
            raise UnsupportedParameterError(
                f"Unsupported tool type {tool['type']!r}: only functions are served.",
                param=f"tools[{index}].type",
            )
        function = as_object(tool["function"])
        values.function_name(str(function["name"]), f"tools[{index}].function.name")
    return tools


def _tool_choice(fields: JsonObject) -> str:
    choice = fields.get("tool_choice")
    if choice is not None and not fields.get("tools"):
        if choice in {"none", "auto"}:
            return "auto"
        raise values.invalid("tool_choice", "'tool_choice' may be sent only with 'tools'.")
    if choice is None or isinstance(choice, str):
        return choice or "auto"
    named = as_object(choice)
    if named["type"] != "function":
        raise UnsupportedParameterError(
            f"Unsupported tool_choice type {named['type']!r}: name a function instead.",
            param="tool_choice.type",
        )
    return str(as_object(named["function"])["name"])


def _response_format(fields: JsonObject) -> JsonFormat | None:
    value = fields.get("response_format")
    if value is None or as_object(value)["type"] == "text":
        return None
    if as_object(value)["type"] == "json_object":
        return JsonFormat()
    schema = as_object(as_object(value)["json_schema"]).get("schema")
    return JsonFormat(schema=as_object(schema) if schema else None)
