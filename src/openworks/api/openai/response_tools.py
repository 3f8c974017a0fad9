"""The tools of a response and how they may be chosen, checked."""

from __future__ import annotations

from typing import cast

from openworks.api.context import as_object
from openworks.api.openai import values
from openworks.core.json import JsonObject, JsonValue

_MAX_TOOLS = 128
_REFUSED = ("defer_loading", "output_schema", "async")


def parse_tools(fields: JsonObject) -> list[JsonObject]:
    """Return the functions that a model may call.

    Raises:
        InvalidRequestError: There are too many, or a name is none.
        UnsupportedParameterError: A tool is not a function, or is to be more than that.
    """
    tools = [as_object(tool) for tool in cast("list[JsonValue]", fields.get("tools") or [])]
    if len(tools) > _MAX_TOOLS:
        raise values.invalid(
            "tools", f"Invalid 'tools': at most {_MAX_TOOLS} are allowed, got {len(tools)}."
        )
    return [_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools)]


def parse_tool_choice(fields: JsonObject, tools: list[JsonObject]) -> JsonValue:
    """Return how a model is to choose, in the shape of answers.

    Raises:
        InvalidRequestError: It names what is not among the tools.
        UnsupportedParameterError: It names what is no function.
    """
    choice = fields.get("tool_choice")
    if choice is None:
        return "auto"
    if isinstance(choice, str):
        if choice == "required" and not tools:
            raise values.invalid("tool_choice", "'tool_choice' may be sent only with 'tools'.")
        return choice
    chosen = as_object(choice)
    match chosen["type"]:
        case "function":
            _check_known(str(chosen["name"]), tools, "tool_choice.name")
        case "allowed_tools":
            allowed = [as_object(tool) for tool in cast("list[JsonValue]", chosen["tools"])]
            for index, tool in enumerate(allowed):
                place = f"tool_choice.tools[{index}]"
                if tool.get("type") != "function":
                    raise values.unsupported(f"{place}.type", f"the tool {tool.get('type')!r}.")
                _check_known(str(tool.get("name")), tools, f"{place}.name")
        case kind:
            raise values.unsupported("tool_choice.type", f"the tool {kind!r}.")
    return chosen


def _tool(tool: JsonObject, at: str) -> JsonObject:
    if tool["type"] != "function":
        raise values.unsupported(f"{at}.type", f"the tool {tool['type']!r}; it calls functions.")
    for name in _REFUSED:
        if tool.get(name):
            raise values.unsupported(f"{at}.{name}", f"'{name}' of a function.")
    callers = cast("list[str]", tool.get("allowed_callers") or ["direct"])
    if callers != ["direct"]:
        raise values.unsupported(f"{at}.allowed_callers", "functions that programs call.")
    function: JsonObject = {
        "type": "function",
        "name": values.function_name(str(tool["name"]), f"{at}.name"),
        "parameters": tool["parameters"],
        "strict": tool["strict"],
    }
    if tool.get("description") is not None:
        function["description"] = tool["description"]
    return function


def _check_known(name: str, tools: list[JsonObject], param: str) -> None:
    if all(tool["name"] != name for tool in tools):
        raise values.invalid(param, f"Invalid '{param}': there is no function {name[:80]!r}.")
