"""Reads translated streams the way OpenAI's client does."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import orjson
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from openworks.core.json import JsonObject
from openworks.gateway.compat.base import StreamTranslator

DONE = "[DONE]"


def events(data: bytes) -> list[str]:
    """The data of each event; nothing else may be in the bytes."""
    if not data:
        return []
    assert data.endswith(b"\n\n")
    lines = data[:-2].split(b"\n\n")
    assert all(line.startswith(b"data: ") for line in lines)
    return [line[6:].decode() for line in lines]


def chunks(data: bytes) -> list[ChatCompletionChunk]:
    """The chunks before `[DONE]`, checked against OpenAI's own model."""
    *parts, last = events(data)
    assert last == DONE
    return [ChatCompletionChunk.model_validate_json(part) for part in parts]


def completion(data: bytes) -> JsonObject:
    """A whole answer, checked against OpenAI's own model."""
    ChatCompletion.model_validate_json(data)
    return cast("JsonObject", orjson.loads(data))


def message_of(answer: JsonObject) -> JsonObject:
    """The message of a whole answer, with its calls' arguments parsed."""
    message = cast("JsonObject", cast("list[JsonObject]", answer["choices"])[0]["message"])
    calls = cast("list[JsonObject]", message.get("tool_calls", []))
    parsed = [_parsed(cast("JsonObject", call["function"]), call["id"]) for call in calls]
    return _said(
        message["content"], message.get("reasoning_content"), message.get("thinking_blocks"), parsed
    )


def joined(data: bytes) -> JsonObject:
    """What a client puts together of a stream, in the form of `message_of`."""
    content, reasoning = "", ""
    blocks: list[object] = []
    calls: dict[int, JsonObject] = {}
    for chunk in chunks(data):
        for choice in chunk.choices:
            delta = choice.delta.model_dump(exclude_none=True)
            content += delta.get("content", "")
            reasoning += delta.get("reasoning_content", "")
            blocks += delta.get("thinking_blocks", [])
            for call in delta.get("tool_calls", []):
                if "id" in call:
                    assert call["index"] == len(calls)
                    calls[call["index"]] = {"id": call["id"], **call["function"]}
                else:
                    known = calls[call["index"]]
                    known["arguments"] = f"{known['arguments']}{call['function']['arguments']}"
    parsed = [_parsed(call, call["id"]) for call in calls.values()]
    return _said(content, reasoning, blocks, parsed)


def finish_reasons(data: bytes) -> list[str]:
    return [c.finish_reason for chunk in chunks(data) for c in chunk.choices if c.finish_reason]


def fed(translator: StreamTranslator, data: bytes) -> bytes:
    """Everything that a translator makes of a stream in one piece."""
    return translator.feed(data) + translator.end()


def assert_every_split_agrees(make: Callable[[], StreamTranslator], data: bytes) -> None:
    """Cut in two at each byte, and into single bytes, a stream becomes the same."""
    expected = fed(make(), data)
    for at in range(len(data)):
        translator = make()
        assert (
            translator.feed(data[:at]) + translator.feed(data[at:]) + translator.end() == expected
        )
    translator = make()
    pieces = [translator.feed(data[at : at + 1]) for at in range(len(data))]
    assert b"".join(pieces) + translator.end() == expected


def _parsed(function: JsonObject, call_id: object) -> JsonObject:
    return cast(
        "JsonObject",
        {
            "id": call_id,
            "name": function["name"],
            "arguments": orjson.loads(cast("str", function["arguments"])),
        },
    )


def _said(content: object, reasoning: object, blocks: object, calls: object) -> JsonObject:
    return cast(
        "JsonObject",
        {
            "content": content or "",
            "reasoning": reasoning or "",
            "thinking_blocks": blocks or [],
            "calls": calls,
        },
    )
