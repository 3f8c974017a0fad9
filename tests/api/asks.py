"""What tests ask: messages, tools, and biases that make noise predictable."""

from __future__ import annotations

from typing import Any

from openai.types.chat import (
    ChatCompletionChunk,
    ChatCompletionFunctionToolParam,
    ChatCompletionMessageParam,
)

from tests.api.weights import BYTES, CALL_BEGIN, ENDS

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]

NO_END: dict[str, int] = {str(token): -100 for token in ENDS}
"""The answer goes on until something else ends it."""

ASCII: dict[str, int] = {str(token): -100 for token in range(128, BYTES)}
"""No token is a part of a character."""

CALLING: dict[str, int] = {str(CALL_BEGIN): 100}
"""`talker` begins with a tool call where it may; the grammar decides how that goes on."""

WEATHER: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
TIME: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {
        "name": "get_time",
        "parameters": {
            "type": "object",
            "properties": {"hours": {"type": "integer", "minimum": 0, "maximum": 24}},
            "required": ["hours"],
            "additionalProperties": False,
        },
    },
}
COLOUR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "colour": {"type": "string", "enum": ["red", "green"]},
        "shades": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
    },
    "required": ["colour", "shades"],
    "additionalProperties": False,
}


def text_of(chunks: list[ChatCompletionChunk], index: int = 0) -> str:
    """Add up the content of one streamed answer."""
    return "".join(
        choice.delta.content or ""
        for chunk in chunks
        for choice in chunk.choices
        if choice.index == index
    )
