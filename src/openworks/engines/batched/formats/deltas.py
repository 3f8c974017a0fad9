"""What a parser gives out: steps of content, of reasoning and of tool calls."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Content:
    """A piece of what the caller reads."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A piece of what the model thought before it answered."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegin:
    """A call of a function that the caller offered; calls are numbered from 0."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """A piece of the JSON text of a call's arguments."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class CallEnd:
    """A call is complete; one that the end of the answer cut off has no end."""

    index: int


Delta: TypeAlias = Content | Reasoning | CallBegin | CallArguments | CallEnd


def merged(deltas: Iterable[Delta]) -> list[Delta]:
    """Return the deltas with neighbouring pieces of one text put together."""
    parts: list[tuple[Delta, list[str]]] = []
    for delta in deltas:
        match delta:
            case Content() | Reasoning() | CallArguments():
                if parts and parts[-1][0] == replace(delta, text=""):
                    parts[-1][1].append(delta.text)
                else:
                    parts.append((replace(delta, text=""), [delta.text]))
            case _:
                parts.append((delta, []))
    return [
        replace(delta, text="".join(texts))
        if isinstance(delta, Content | Reasoning | CallArguments)
        else delta
        for delta, texts in parts
    ]
