"""The body of a request for a response, checked; what cannot be honoured is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from openai.types.responses import InputTokenCountParams, ResponseCompactParams
from openai.types.responses.response_create_params import ResponseCreateParams

from openworks.api.context import as_object
from openworks.api.openai import values
from openworks.api.openai.item_request import EXTRA_FIELDS_OF, loosened, parse_items
from openworks.api.openai.response_tools import parse_tool_choice, parse_tools
from openworks.api.openai.sampling import OWN_FIELDS
from openworks.core.errors import UnsupportedParameterError
from openworks.core.json import JsonObject, JsonValue
from openworks.services.responses.responses import NewResponse
from openworks.wire.openai.validate import RequestValidator

_OWN_FIELDS = {**OWN_FIELDS, "seed": int, "chat_template_kwargs": dict[str, object]}
_CREATE = RequestValidator(
    ResponseCreateParams, extra_fields=_OWN_FIELDS, extra_fields_of=EXTRA_FIELDS_OF
)
_COUNT = RequestValidator(InputTokenCountParams, extra_fields_of=EXTRA_FIELDS_OF)
_COMPACT = RequestValidator(ResponseCompactParams, extra_fields_of=EXTRA_FIELDS_OF)
_MAX_SEED = 2**63

_REFUSED: Mapping[str, str] = {
    "access_programs": "models here are for everybody who may use them.",
    "context_management": "send 'truncation', or ask /v1/responses/compact.",
    "moderation": "this server moderates through /v1/moderations alone.",
    "personality": "write it into 'instructions'.",
    "prompt": "this server keeps no prompts; send 'instructions' and 'input'.",
}
_DEFAULT_ONLY: Mapping[str, tuple[JsonValue, ...]] = {
    "image": ({}, {"context_compression": "auto"}, {"context_compression": "disabled"}),
    "service_tier": ("auto", "default"),
    "stream_options": ({}, {"include_obfuscation": False}),
}
_REASONING_ONLY: Mapping[str, tuple[JsonValue, ...]] = {
    "context": ("auto",),
    "generate_summary": ("auto",),
    "mode": ("standard",),
    "summary": ("auto",),
}
INCLUDABLE = frozenset(
    {
        "message.input_image.image_url",
        "message.output_text.logprobs",
        "reasoning.encrypted_content",
    }
)
"""The first of them is always told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedResponse:
    """What is to be answered, and whether the caller listens meanwhile."""

    new: NewResponse
    stream: bool


def parse_response(body: JsonValue) -> ParsedResponse:
    """Check a body and translate it.

    Raises:
        InvalidRequestError: It breaks OpenAI's types or ranges; names the field and the value.
        UnsupportedParameterError: It asks for what no model here can do.
    """
    fields = cast("JsonObject", _CREATE.check(_loosened(body)))
    stream = fields.get("stream") is True
    if fields.get("stream_options") is not None and not stream:
        raise values.invalid(
            "stream_options", "'stream_options' may be sent only when 'stream' is true."
        )
    is_background, is_stored = fields.get("background") is True, fields.get("store") is not False
    if is_background and not is_stored:
        raise values.invalid(
            "background", "'background' needs 'store': what nobody keeps cannot be fetched later."
        )
    new = _new(fields, settings=_settings(fields, stream=stream))
    return ParsedResponse(
        new=NewResponse(
            model=new.model,
            settings=new.settings,
            items=new.items,
            previous_id=new.previous_id,
            conversation_id=new.conversation_id,
            is_background=is_background,
            is_stored=is_stored,
        ),
        stream=stream,
    )


def parse_count(body: JsonValue) -> NewResponse:
    """Check a request for the number of tokens of an input; errors as in `parse_response`."""
    fields = cast("JsonObject", _COUNT.check(_loosened(body)))
    return _new(fields, settings=_settings(fields, stream=False))


def parse_compaction(body: JsonValue) -> NewResponse:
    """Check a request for a compaction; errors as in `parse_response`."""
    fields = cast("JsonObject", _COMPACT.check(_loosened(body)))
    return _new(fields, settings=_settings(fields, stream=False))


def check_include(include: list[str]) -> None:
    """Refuse to include what never is in a response of this server."""
    for index, name in enumerate(include):
        if name not in INCLUDABLE:
            raise values.unsupported(f"include[{index}]", f"{name!r}.")


def _loosened(body: JsonValue) -> JsonValue:
    if not isinstance(body, dict):
        return body
    loose: JsonObject = {**body}
    if "input" in loose:
        loose["input"] = loosened(loose["input"])
    tools = loose.get("tools")
    if isinstance(tools, list):
        loose["tools"] = [
            {"parameters": None, "strict": None, **tool}
            if isinstance(tool, dict) and tool.get("type") == "function"
            else tool
            for tool in tools
        ]
    return loose


def _new(fields: JsonObject, *, settings: JsonObject) -> NewResponse:
    model = fields.get("model")
    if not isinstance(model, str):
        raise values.missing("model")
    previous_id, conversation_id = fields.get("previous_response_id"), _conversation_id(fields)
    if previous_id is not None and conversation_id is not None:
        raise values.invalid(
            "previous_response_id",
            "'previous_response_id' and 'conversation' may not be sent together.",
        )
    for param, id_ in (
        ("previous_response_id", previous_id),
        ("conversation", conversation_id),
    ):
        if isinstance(id_, str) and "\0" in id_:
            raise values.invalid(param, f"Invalid '{param}': {id_[:80]!r} is no id.")
    return NewResponse(
        model=model,
        settings={**settings, "model": model},
        items=parse_items(fields.get("input"), "input"),
        previous_id=cast("str | None", previous_id),
        conversation_id=conversation_id,
    )


def _conversation_id(fields: JsonObject) -> str | None:
    value = fields.get("conversation")
    return str(value["id"]) if isinstance(value, dict) else cast("str | None", value)


def _settings(fields: JsonObject, *, stream: bool) -> JsonObject:
    _refuse(fields)
    tools = parse_tools(fields)
    include = cast("list[str]", fields.get("include") or [])
    check_include(include)
    settings: JsonObject = {
        "include": [*include],
        "instructions": fields.get("instructions"),
        "max_output_tokens": values.integer(fields, "max_output_tokens", 1),
        "max_tool_calls": values.integer(fields, "max_tool_calls", 1),
        "metadata": dict(values.metadata(fields.get("metadata"))),
        "parallel_tool_calls": fields.get("parallel_tool_calls") is not False,
        "reasoning": _reasoning(fields),
        "service_tier": "default",
        "stream": stream,
        "temperature": values.number(fields, "temperature", 0, 2),
        "text": _text(fields),
        "tool_choice": parse_tool_choice(fields, tools),
        "tools": [*tools],
        "top_logprobs": values.integer(fields, "top_logprobs", 0, 20),
        "top_p": values.number(fields, "top_p", 0, 1),
        "truncation": fields.get("truncation") or "disabled",
    }
    for name in ("prompt_cache_key", "prompt_cache_retention", "safety_identifier", "user"):
        settings[name] = fields.get(name)
    return {**settings, **_own(fields)}


def _own(fields: JsonObject) -> JsonObject:
    values.check_depth(fields.get("chat_template_kwargs"), "chat_template_kwargs")
    own: dict[str, Any] = {
        "top_k": values.integer(fields, "top_k", 0),
        "min_p": values.number(fields, "min_p", 0, 1),
        "repeat_penalty": values.number(fields, "repeat_penalty", 0, 10),
        "seed": values.integer(fields, "seed", -_MAX_SEED, _MAX_SEED - 1),
        "chat_template_kwargs": fields.get("chat_template_kwargs"),
    }
    return {name: value for name, value in own.items() if value is not None}


def _refuse(fields: JsonObject) -> None:
    for name, reason in _REFUSED.items():
        if fields.get(name) is not None:
            raise UnsupportedParameterError(
                f"Unsupported parameter: '{name}': {reason}", param=name
            )
    _check_defaults(fields, _DEFAULT_ONLY, "")


def _check_defaults(
    fields: JsonObject, allowed: Mapping[str, tuple[JsonValue, ...]], at: str
) -> None:
    for name, admitted in allowed.items():
        value = fields.get(name)
        if value is not None and value not in admitted:
            raise UnsupportedParameterError(
                f"Unsupported value: '{at}{name}' {value!r} cannot be honoured; leave it out.",
                code="unsupported_value",
                param=f"{at}{name}",
            )


def _reasoning(fields: JsonObject) -> JsonObject:
    reasoning = as_object(fields.get("reasoning") or {})
    _check_defaults(reasoning, _REASONING_ONLY, "reasoning.")
    return {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")}


def _text(fields: JsonObject) -> JsonObject:
    text = as_object(fields.get("text") or {})
    _check_defaults(text, {"verbosity": ("medium",)}, "text.")
    wanted = text.get("format")
    return {"format": {"type": "text"} if wanted is None else wanted}
