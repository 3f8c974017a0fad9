"""The text of an answer as a person reads it, whatever provider wrote it, streamed or whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

_MAX_DEPTH = 12
_TEXT_KEYS = ("text", "content", "response", "delta")
_INSIDE = (
    "choices",
    "message",
    "delta",
    "content",
    "output",
    "candidates",
    "parts",
    "result",
    "text",
    "response",
)
"""Members in which answers of the known shapes have their text."""


def answer_text(body: bytes) -> str:
    """Return the text of a response; a body of no known shape is its own text."""
    if _is_event_stream(body):
        return "".join(_streamed(body))
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode("utf-8", "replace")
    found = "".join(_texts(value, 0))
    return found or body.decode("utf-8", "replace")


def _is_event_stream(body: bytes) -> bool:
    start = body[:64].lstrip()
    return start.startswith((b"data:", b"event:", b"id:", b":"))


def _streamed(body: bytes) -> Iterator[str]:
    for line in body.splitlines():
        if not line.startswith(b"data:"):
            continue
        try:
            event = orjson.loads(line[5:])
        except orjson.JSONDecodeError:  # [DONE]
            continue
        if not _repeats(event):
            yield from _texts(event, 0)


def _repeats(event: Any) -> bool:
    """Whether an event says again what earlier ones said, as those that close a part do."""
    kind = event.get("type") if isinstance(event, dict) else None
    return isinstance(kind, str) and kind.endswith((".done", ".completed", "_stop", ".created"))


def _texts(value: Any, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, list):
        for item in value:
            yield from _texts(item, depth + 1)
    elif isinstance(value, dict):
        for key in _INSIDE:
            inner = value.get(key)
            if isinstance(inner, str) and key in _TEXT_KEYS:
                yield inner
            elif isinstance(inner, dict | list):
                yield from _texts(inner, depth + 1)
    elif isinstance(value, str) and depth == 0:
        yield value
