"""The body of a request about an assistant as its settings; what cannot be honoured is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

from openai.types.beta import AssistantCreateParams, AssistantUpdateParams

from openworks.api.context import as_object
from openworks.api.openai import values
from openworks.api.openai.tool_resources import tool_resources
from openworks.core.json import JsonObject, JsonValue
from openworks.wire.openai.validate import RequestValidator

_CREATE = RequestValidator(AssistantCreateParams)
_UPDATE = RequestValidator(AssistantUpdateParams, keep_nulls=True)

_MAX_CHARS: Mapping[str, int] = {"name": 256, "description": 512, "instructions": 256_000}
_MAX_TOOLS = 128
_MAX_RESULTS = 50
_MAX_DEPTH = 128
"""Of a JSON Schema; what goes much deeper cannot be written as an answer."""
_SCHEMA_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def parse_create(body: JsonValue) -> JsonObject:
    """Check the body of a new assistant; return its settings, without those that it leaves open.

    Raises:
        InvalidRequestError: It breaks OpenAI's types or limits; names the field and the value.
        UnsupportedParameterError: It asks for what this server does not have.
    """
    return _settings(cast("JsonObject", _CREATE.check(body)))


def parse_update(body: JsonValue) -> JsonObject:
    """Check the body of a change; return the settings that it names.

    What null clears is as if it had never been given.

    Raises:
        InvalidRequestError: As `parse_create`.
        UnsupportedParameterError: The same.
    """
    return _settings(cast("JsonObject", _UPDATE.check(body)))


def _settings(fields: JsonObject) -> JsonObject:
    settings = dict(fields)
    for name, most in _MAX_CHARS.items():
        values.check_length(settings.get(name), name, most=most)
    values.number(settings, "temperature", 0, 2)
    values.number(settings, "top_p", 0, 1)
    if "metadata" in settings:
        settings["metadata"] = dict(values.metadata(settings["metadata"]))
    if "tools" in settings:
        check_tools(cast("list[JsonObject]", settings["tools"]))
    if "tool_resources" in settings:
        settings["tool_resources"] = tool_resources(settings["tool_resources"])
    if "response_format" in settings:
        settings["response_format"] = response_format(settings["response_format"])
    return settings


def check_tools(tools: list[JsonObject]) -> None:
    """Return if this server may keep an assistant with such tools; errors as in `parse_create`."""
    if len(tools) > _MAX_TOOLS:
        raise values.invalid(
            "tools", f"Invalid 'tools': at most {_MAX_TOOLS} are allowed, got {len(tools)}."
        )
    for index, tool in enumerate(tools):
        place = f"tools[{index}]"
        match tool["type"]:
            case "function":
                function = as_object(tool["function"])
                values.function_name(str(function["name"]), f"{place}.function.name")
                values.check_depth(
                    function.get("parameters"), f"{place}.function.parameters", limit=_MAX_DEPTH
                )
            case "file_search":
                _check_search(as_object(tool.get("file_search") or {}), f"{place}.file_search")
            case _:
                raise values.unsupported(f"{place}.type", "the tool 'code_interpreter'.")


def _check_search(options: JsonObject, place: str) -> None:
    most = options.get("max_num_results")
    if most is not None and not 1 <= cast("int", most) <= _MAX_RESULTS:
        at = f"{place}.max_num_results"
        raise values.invalid(
            at, f"Invalid '{at}': it must be between 1 and {_MAX_RESULTS}, got {most}."
        )
    ranking = as_object(options.get("ranking_options") or {})
    threshold = ranking.get("score_threshold")
    if threshold is not None and not 0 <= cast("float", threshold) <= 1:
        at = f"{place}.ranking_options.score_threshold"
        raise values.invalid(at, f"Invalid '{at}': it must be between 0 and 1, got {threshold}.")


def response_format(value: JsonValue) -> JsonValue:
    """Return a format as assistants and runs show it; errors as in `parse_create`."""
    if not isinstance(value, dict):
        return "auto"
    if value["type"] == "json_schema":
        schema = as_object(value["json_schema"])
        if not _SCHEMA_NAME.fullmatch(name := str(schema["name"])):
            raise values.invalid(
                "response_format.json_schema.name",
                "Invalid 'response_format.json_schema.name': it has 1 to 64 letters, digits, "
                f"underscores or dashes, got {name[:80]!r}.",
            )
        values.check_depth(
            schema.get("schema"), "response_format.json_schema.schema", limit=_MAX_DEPTH
        )
    return value
