"""What people saved of assistants, threads, messages and conversations, whatever its shape.

Objects are those of OpenAI's API. They may come as JSON or as JSON Lines, in lists, in pages
(`{"object": "list", "data": [...]}`), under the names of their kinds (`{"threads": [...]}`);
messages in their thread (`"messages"`) or beside it, items in their conversation (`"items"`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, cast

from openworks.core.errors import InvalidRequestError
from openworks.core.json import JsonObject, JsonValue

ITEM: Final = "conversation.item"
"""An item with its conversation's id beside it; OpenAI's items do not say where they are."""

_KINDS: Final = {
    "assistants": "assistant",
    "threads": "thread",
    "messages": "thread.message",
    "conversations": "conversation",
}


@dataclass(slots=True, kw_only=True)
class Saved:
    """A thread with its messages, or a conversation with its items, oldest first."""

    head: JsonObject
    parts: list[JsonObject] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Dump:
    """Everything that a file holds."""

    assistants: list[JsonObject] = field(default_factory=list)
    threads: dict[str, Saved] = field(default_factory=dict)
    """By id; those whose messages alone were saved have a head made from them."""
    conversations: dict[str, Saved] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    """Objects of other kinds, such as runs."""


def read_dump(data: bytes) -> Dump:
    """Read a file.

    Raises:
        InvalidRequestError: It is not JSON, or something in it does not say what it is.
    """
    dump = Dump()
    for place, value in _documents(data):
        for at, kind, found in _objects(value, place, None):
            _add(dump, kind, found, at)
    for thread in dump.threads.values():
        thread.parts = _oldest_first(thread.parts)
    return dump


def _documents(data: bytes) -> Iterator[tuple[str, JsonValue]]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequestError("The file is not text in UTF-8.") from error
    try:
        yield "the file", json.loads(text)
        return
    except json.JSONDecodeError as error:
        lines = text.split("\n")
        if len(lines) < 2:
            raise InvalidRequestError(f"The file is not JSON: {error}.") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except json.JSONDecodeError as error:
                raise InvalidRequestError(f"Line {number} is not JSON: {error}.") from error


def _objects(
    value: JsonValue, place: str, kind: str | None
) -> Iterator[tuple[str, str, JsonObject]]:
    """Yield objects with their places and kinds; `kind` is what the list around them says."""
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from _objects(item, f"{place}[{number}]", kind)
        return
    if not isinstance(value, dict):
        raise InvalidRequestError(f"An object was expected in {place}, got {str(value)[:80]!r}.")
    if value.get("object") == "list":
        yield from _objects(value.get("data"), f"{place}.data", kind)
        return
    named = value.get("object", kind)
    if "object" not in value and value.keys() & _KINDS.keys():
        for name in value.keys() & _KINDS.keys():
            yield from _objects(value[name], f"{place}.{name}", _KINDS[name])
    elif isinstance(named, str):
        yield place, named, value
    else:
        raise InvalidRequestError(
            f"What is in {place} does not say what it is: its 'object' is missing."
        )


def _add(dump: Dump, kind: str, found: JsonObject, place: str) -> None:
    match kind:
        case "assistant":
            dump.assistants.append(found)
        case "thread":
            thread = dump.threads.setdefault(_text(found, "id", place), Saved(head={}))
            thread.head = {name: value for name, value in found.items() if name != "messages"}
            thread.parts.extend(_inner(found, "messages", place, "thread.message"))
        case "thread.message":
            thread_id = _text(found, "thread_id", place)
            head: JsonObject = {"id": thread_id, "created_at": found.get("created_at")}
            dump.threads.setdefault(thread_id, Saved(head=head)).parts.append(found)
        case "conversation":
            head = {name: value for name, value in found.items() if name != "items"}
            saved = dump.conversations.setdefault(_text(found, "id", place), Saved(head=head))
            saved.head = head
            saved.parts.extend(_listed(found.get("items"), f"{place}.items"))
        case "conversation.item":
            conversation_id = _text(found, "conversation_id", place)
            saved = dump.conversations.setdefault(
                conversation_id, Saved(head={"id": conversation_id})
            )
            saved.parts.extend(_listed([found.get("item")], f"{place}.item"))
        case _:
            dump.left_out[f"objects of kind {kind[:40]!r}"] += 1


def _inner(found: JsonObject, name: str, place: str, kind: str) -> Iterator[JsonObject]:
    if found.get(name) is not None:
        for _, _, inner in _objects(found[name], f"{place}.{name}", kind):
            yield inner


def _listed(value: JsonValue, place: str) -> list[JsonObject]:
    """Return a list of objects, or the objects of a page."""
    rows = value.get("data") if isinstance(value, dict) else value
    if rows is None:
        return []
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InvalidRequestError(f"A list of objects was expected in {place}.")
    return cast("list[JsonObject]", rows)


def _oldest_first(messages: list[JsonObject]) -> list[JsonObject]:
    """Order messages by their time; OpenAI lists them newest first, also those of one second."""
    times = [_time(message) for message in messages]
    newest_first = bool(times) and times[0] > times[-1]
    return sorted(messages[::-1] if newest_first else messages, key=_time)


def _time(message: JsonObject) -> float:
    value = message.get("created_at")
    return float(value) if isinstance(value, int | float) else 0.0


def _text(found: JsonObject, name: str, place: str) -> str:
    value = found.get(name)
    if not isinstance(value, str) or not value or "\0" in value:
        raise InvalidRequestError(f"What is in {place} has no '{name}'.", param=name)
    return value
