"""Reads OpenAI's chat body for translation; what a translator cannot say is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from openworks.core.errors import InvalidRequestError
from openworks.core.json import JsonObject, JsonValue
from openworks.gateway.compat.chat_messages import read_messages
from openworks.gateway.compat.chat_parts import ChatInput, OutputSchema, Tool, ToolChoice
from openworks.gateway.compat.read import (
    field_count,
    field_list,
    field_number,
    field_object,
    field_text,
    unsupported,
    wrong_type,
)

EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

_READ: Final = frozenset(
    {
        "model", "messages", "stream", "stream_options", "tools", "tool_choice",
        "parallel_tool_calls", "max_tokens", "max_completion_tokens", "temperature", "top_p",
        "top_k", "stop", "reasoning_effort", "response_format", "user", "safety_identifier",
        "service_tier",
    }
)  # fmt: skip
_HARMLESS: Final = frozenset(
    {
        "metadata",  # labels of completions that OpenAI keeps; `store` is refused
        "prediction",  # makes an answer faster, never another one
        "prompt_cache_key",  # caching changes the price alone
        "prompt_cache_options",
        "prompt_cache_retention",
        "seed",  # OpenAI promises an effort, no equal answers
    }
)
_REFUSED: Final[Mapping[str, str]] = {
    "audio": "this provider does not speak.",
    "function_call": "it is deprecated; send 'tool_choice'.",
    "functions": "it is deprecated; send 'tools'.",
    "moderation": "this provider does not moderate on request.",
    "top_logprobs": "this provider gives no probabilities.",
    "web_search_options": "this provider does not search the web by it.",
}
_DEFAULT_ONLY: Final[Mapping[str, tuple[JsonValue, ...]]] = {
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "presence_penalty": (0,),
    "store": (False,),
    "verbosity": ("medium",),
}
_ANY_OBJECT: Final[JsonObject] = {"type": "object", "properties": {}}


def read_chat(body: JsonObject) -> ChatInput:
    """Read a chat request.

    Beside OpenAI's fields it takes `top_k`. Without effect, and therefore let pass, are `metadata`,
    `prediction`, the `prompt_cache_*` hints, `seed`, the `name` of messages, the `detail` of images
    and `strict: false`: none changes what an answer may say. Everything else that a translator
    cannot say is refused.

    Raises:
        UnsupportedParameterError: A field cannot be honoured.
        InvalidRequestError: A field has the wrong shape.
    """
    fields: JsonObject = {name: value for name, value in body.items() if value is not None}
    _refuse(fields)
    system, turns = read_messages(field_list(fields.get("messages"), "messages"))
    tools = _tools(fields)
    tools, choice = _choose(fields, tools)
    return ChatInput(
        system=system,
        turns=turns,
        tools=tools,
        tool_choice=choice,
        is_parallel=fields.get("parallel_tool_calls") is not False,
        max_tokens=field_count(fields, "max_completion_tokens")
        or field_count(fields, "max_tokens"),
        temperature=field_number(fields, "temperature"),
        top_p=field_number(fields, "top_p"),
        top_k=field_count(fields, "top_k"),
        stop=_stop(fields),
        effort=_effort(fields),
        schema=_schema(fields),
        user=_user(fields),
        service_tier=_service_tier(fields),
        is_stream=fields.get("stream") is True,
    )


def wants_usage(body: JsonObject) -> bool:
    """Whether the caller asked for usage at the end of a stream."""
    options = body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _refuse(fields: JsonObject) -> None:
    for name, value in fields.items():
        if name in _READ or name in _HARMLESS:
            continue
        allowed = _DEFAULT_ONLY.get(name)
        if allowed is None:
            raise unsupported(name, _REFUSED.get(name, "this provider has nothing like it."))
        if value not in allowed:
            raise unsupported(name, f"this provider cannot honour {value!r:.100}; leave it out.")


def _tools(fields: JsonObject) -> list[Tool]:
    tools = field_list(fields.get("tools", []), "tools")
    return [_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools)]


def _tool(value: JsonValue, param: str) -> Tool:
    tool = field_object(value, param)
    if tool.get("type") != "function":
        raise unsupported(f"{param}.type", "only functions can be translated for this provider.")
    function = field_object(tool.get("function"), f"{param}.function")
    description = function.get("description")
    parameters = function.get("parameters")
    if parameters is None:
        parameters = _ANY_OBJECT
    cache_control = tool.get("cache_control")
    return Tool(
        name=field_text(function.get("name"), f"{param}.function.name"),
        description=None if description is None else field_text(description, f"{param}.function"),
        parameters={"type": "object", **field_object(parameters, f"{param}.function.parameters")},
        is_strict=function.get("strict") is True,
        cache_control=cache_control if isinstance(cache_control, dict) else None,
    )


def _choose(fields: JsonObject, tools: list[Tool]) -> tuple[list[Tool], ToolChoice | None]:
    """Return the tools that may be used and how; `allowed_tools` leaves the others out."""
    value = fields.get("tool_choice")
    if value is None:
        return tools, None
    if not tools:
        if isinstance(value, str) and value in {"auto", "none"}:
            return tools, None
        raise InvalidRequestError(
            "'tool_choice' may be sent only with 'tools'.", param="tool_choice"
        )
    if isinstance(value, dict):
        return _choose_named(value, tools)
    match value:
        case "auto" | "none":
            return tools, ToolChoice(mode="auto" if value == "auto" else "none")
        case "required":
            return tools, ToolChoice(mode="any")
        case _:
            raise wrong_type("tool_choice", "'none', 'auto', 'required' or an object", value)


def _choose_named(choice: JsonObject, tools: list[Tool]) -> tuple[list[Tool], ToolChoice]:
    match choice.get("type"):
        case "function":
            function = field_object(choice.get("function"), "tool_choice.function")
            name = field_text(function.get("name"), "tool_choice.function.name")
            return tools, ToolChoice(mode="tool", name=name)
        case "allowed_tools":
            param = "tool_choice.allowed_tools"
            allowed = field_object(choice.get("allowed_tools"), param)
            names = {_allowed_name(tool, param) for tool in field_list(allowed.get("tools"), param)}
            kept = [tool for tool in tools if tool.name in names]
            must_call = allowed.get("mode") == "required"
            return kept, ToolChoice(mode="any" if must_call else "auto")
        case kind:
            raise unsupported("tool_choice.type", f"{kind!r} cannot be translated.")


def _allowed_name(value: JsonValue, param: str) -> str:
    tool = field_object(value, f"{param}.tools")
    function = field_object(tool.get("function"), f"{param}.tools.function")
    return field_text(function.get("name"), f"{param}.tools.function.name")


def _stop(fields: JsonObject) -> list[str]:
    stop = fields.get("stop", [])
    if isinstance(stop, str):
        return [stop]
    return [field_text(one, "stop") for one in field_list(stop, "stop")]


def _effort(fields: JsonObject) -> str | None:
    effort = fields.get("reasoning_effort")
    if effort is None:
        return None
    if effort not in EFFORTS:
        raise InvalidRequestError(
            f"Invalid value for 'reasoning_effort': expected one of {', '.join(EFFORTS)}, "
            f"got {effort!r:.100}.",
            code="invalid_value",
            param="reasoning_effort",
        )
    return str(effort)


def _schema(fields: JsonObject) -> OutputSchema | None:
    if "response_format" not in fields:
        return None
    wanted = field_object(fields["response_format"], "response_format")
    match wanted.get("type"):
        case "text":
            return None
        case "json_schema":
            param = "response_format.json_schema"
            named = field_object(wanted.get("json_schema"), param)
            description = named.get("description")
            return OutputSchema(
                name=field_text(named.get("name"), f"{param}.name"),
                description=None if description is None else field_text(description, param),
                schema=field_object(named.get("schema"), f"{param}.schema"),
            )
        case "json_object":
            raise unsupported(
                "response_format.type",
                "this provider writes JSON only by a schema; send 'json_schema'.",
            )
        case kind:
            raise wrong_type("response_format.type", "'text' or 'json_schema'", kind)


def _user(fields: JsonObject) -> str | None:
    for name in ("safety_identifier", "user"):
        if name in fields:
            return field_text(fields[name], name)
    return None


def _service_tier(fields: JsonObject) -> str | None:
    tier = fields.get("service_tier")
    return None if tier in (None, "auto") else field_text(tier, "service_tier")
