"""The functions that a caller offers, as the formats need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from openworks.core.json import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that the model may call."""

    name: str
    parameters: JsonObject
    """JSON Schema of an object."""
    strict: bool = False
    """The schema must be enforced whole; otherwise unknown keywords are passed over."""


def read_tools(tools: Sequence[JsonObject]) -> tuple[Tool, ...]:
    """Return OpenAI's tool objects of type function as `Tool`s; one without parameters has none."""
    return tuple(_read_tool(tool) for tool in tools)


def _read_tool(tool: JsonObject) -> Tool:
    function = tool["function"]
    assert isinstance(function, dict)
    name, parameters = function["name"], function.get("parameters")
    assert isinstance(name, str)
    return Tool(
        name=name,
        parameters=parameters if isinstance(parameters, dict) else {"properties": {}},
        strict=function.get("strict") is True,
    )
