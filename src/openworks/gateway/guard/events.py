"""Which texts a stream's event carries, and which of them continue a text of events before.

Told apart by the event's own shape, so that a stream needs no label: OpenAI's chat, completions and
Responses, Anthropic's messages, Google's generateContent, Workers AI. Any other JSON is taken as a
text for every place in it that holds strings.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from openworks.gateway.guard.bodies import STRUCTURE, is_text

ALL = "*"
"""Closes every text."""


class Piece(NamedTuple):
    """A string in an event that continues a text."""

    group: Any
    """The answer that the text is of. An answer speaks one text at a time, or several in step."""
    name: Any
    """Which of its texts."""
    parent: Any
    """The object or array that holds the string."""
    key: Any
    """Where in `parent`."""


class Texts(NamedTuple):
    """The strings of one event."""

    pieces: list[Piece]
    wholes: list[tuple[Any, Any]]
    """(object or array, key) of strings that are complete in this event."""
    closes: list[Any]
    """Groups whose texts end with this event."""


def texts_of_event(event: Any) -> Texts:
    """Find the texts of a decoded event."""
    texts = Texts([], [], [])
    if not isinstance(event, dict):
        _collect(event, texts)
    elif isinstance(choices := event.get("choices"), list):
        _openai(event, choices, texts)
    elif isinstance(kind := event.get("type"), str):
        _typed(event, kind, texts)
    elif isinstance(candidates := event.get("candidates"), list):
        _google(event, candidates, texts)
    elif "error" in event:
        _collect(event, texts)
    elif isinstance(event.get("response"), str):
        if event["response"]:
            texts.pieces.append(Piece(0, "response", event, "response"))
        _collect({key: value for key, value in event.items() if key != "response"}, texts)
    else:
        _unknown(0, event, texts)
    return texts


def _openai(event: dict[str, Any], choices: list[Any], texts: Texts) -> None:
    for position, choice in enumerate(choices):
        if isinstance(choice, dict):
            _choice(choice.get("index", position), choice, texts)
    for key, value in event.items():
        if type(value) in _NESTS and value and key != "choices":
            _collect(value, texts)


def _choice(index: Any, choice: dict[str, Any], texts: Texts) -> None:
    for key, value in choice.items():
        if key == "delta" and type(value) is dict:
            _delta(index, value, texts)
        elif type(value) is str:
            if value and key not in STRUCTURE:
                texts.pieces.append(Piece(index, key, choice, key))
        elif type(value) in _NESTS and key != "logprobs":
            _collect(value, texts)
    if choice.get("finish_reason") is not None:
        texts.closes.append(index)


def _delta(index: Any, delta: dict[str, Any], texts: Texts) -> None:
    for name, said in delta.items():
        if type(said) is str:
            if said and name not in STRUCTURE:
                texts.pieces.append(Piece(index, name, delta, name))
        elif said:
            _unknown(index, said, texts, (name,))


_NESTS = frozenset({dict, list})


def _typed(event: dict[str, Any], kind: str, texts: Texts) -> None:
    if kind == "content_block_delta" and isinstance(delta := event.get("delta"), dict):
        _unknown(event.get("index"), delta, texts)
    elif kind.startswith("response."):
        _responses(event, kind, texts)
    elif kind in _ANTHROPIC:
        _collect(event, texts)
        if kind != "content_block_start" and kind != "ping":
            texts.closes.append(event.get("index", ALL))
    elif kind == "error":
        _collect(event, texts)
    else:
        _unknown((kind, event.get("index")), event, texts)


_ANTHROPIC = frozenset(
    {
        "message_start",
        "content_block_start",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "ping",
    }
)


def _responses(event: dict[str, Any], kind: str, texts: Texts) -> None:
    group = event.get("output_index")
    if kind.endswith(".delta"):
        # Sound comes as base64; its transcript has a kind of its own.
        if isinstance(event.get("delta"), str) and event["delta"] and "audio.delta" not in kind:
            name = (kind, event.get("content_index"), event.get("summary_index"))
            texts.pieces.append(Piece(group, name, event, "delta"))
        return
    _collect(event, texts)
    if kind.endswith(".done"):
        texts.closes.append(group)
    elif group is None and kind not in ("response.created", "response.in_progress"):
        texts.closes.append(ALL)


def _google(event: dict[str, Any], candidates: list[Any], texts: Texts) -> None:
    for position, candidate in enumerate(candidates):
        if not isinstance(candidate, dict):
            continue
        index = candidate.get("index", position)
        content = candidate.get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict) and part.get("text"):
                texts.pieces.append(Piece(index, bool(part.get("thought")), part, "text"))
            elif isinstance(part, dict):
                _collect(part, texts)
        if candidate.get("finishReason") is not None:
            texts.closes.append(index)
    for key, value in event.items():
        if key != "candidates" and isinstance(value, dict | list):
            _collect(value, texts)


def _unknown(group: Any, value: Any, texts: Texts, path: tuple[Any, ...] = ()) -> None:
    """Take every string as a piece of the text at its place; items of arrays by their `index`."""
    stack: list[tuple[tuple[Any, ...], Any]] = [(path, value)] if type(value) in _NESTS else []
    while stack:
        path, value = stack.pop()
        items = value.items() if isinstance(value, dict) else enumerate(value)
        found: list[tuple[tuple[Any, ...], Any]] = []
        for key, item in items:
            if type(item) is str:
                if item and is_text(key if type(key) is str else None, item):
                    texts.pieces.append(Piece(group, (*path, key), value, key))
            elif isinstance(item, dict):
                place = item.get("index", key) if type(key) is int else key
                found.append(((*path, place), item))
            elif isinstance(item, list):
                found.append(((*path, key), item))
        stack.extend(reversed(found))


def _collect(value: Any, texts: Texts) -> None:
    """Take every string as a whole text."""
    inner = Texts([], [], [])
    if isinstance(value, dict | list):
        _unknown(None, value, inner)
    texts.wholes.extend((piece.parent, piece.key) for piece in inner.pieces)
