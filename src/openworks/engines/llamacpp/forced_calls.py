"""A call that a model was told to make and would rather talk about.

llama.cpp's grammar for required calls lets a model write any text first, and a weak one never comes
to the call. Then the call is made in two answers, each by a grammar of its own: the function's
name, and its arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from openworks.core.ids import NewId
from openworks.core.json import JsonObject
from openworks.engines.base import Sink
from openworks.engines.sinks import Through
from openworks.ports.text import TextChunk, ToolCallDelta

_NO_ARGUMENTS: JsonObject = {"type": "object", "properties": {}, "additionalProperties": False}


def functions_of(body: JsonObject) -> Mapping[str, JsonObject]:
    """Return the functions of a chat body: name → schema of the arguments."""
    tools = cast("list[Any]", body["tools"])
    functions = [tool["function"] for tool in tools]
    return {each["name"]: each.get("parameters") or _NO_ARGUMENTS for each in functions}


def constrained(body: JsonObject, schema: JsonObject, *, max_tokens: int) -> JsonObject:
    """Return a chat body whose answer must fit `schema`; its prompt still shows the tools."""
    return {
        **body,
        "max_tokens": max_tokens,
        "tool_choice": "none",
        "response_format": {"type": "json_schema", "json_schema": {"schema": schema}},
    }


class Collected(Through):
    """A sink that keeps an answer."""

    def __init__(self, out: Sink) -> None:
        super().__init__(out)
        self.text = ""
        self.completion_tokens = 0

    def put(self, chunk: TextChunk) -> None:
        self.text += chunk.content
        if chunk.usage is not None:
            self.completion_tokens = chunk.usage.completion_tokens


class AsArguments(Through):
    """A sink that passes an answer on as the arguments of a call."""

    def __init__(self, out: Sink, name: str, *, new_id: NewId, completion_tokens: int) -> None:
        """Begin a call.

        Args:
            out: Where the call goes.
            name: The function.
            new_id: Makes the call's id.
            completion_tokens: What the choice of the name took.
        """
        super().__init__(out)
        self._before = completion_tokens
        out.put(TextChunk(tool_calls=(ToolCallDelta(index=0, id=new_id("call_"), name=name),)))

    def put(self, chunk: TextChunk) -> None:
        arguments = ToolCallDelta(index=0, arguments=chunk.content)
        usage = chunk.usage
        if usage is not None:
            usage = replace(usage, completion_tokens=self._before + usage.completion_tokens)
        self.out.put(
            TextChunk(
                tool_calls=(arguments,) if chunk.content else (),
                finish_reason="tool_calls"
                if chunk.finish_reason == "stop"
                else chunk.finish_reason,
                usage=usage,
            )
        )
