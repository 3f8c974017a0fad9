"""A document in the process that reads it, and the pieces that its reader makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, TypeAlias

from openworks.converters.formats import Format
from openworks.ports.converters import ConversionOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A document that is being read."""

    name: str
    file: BinaryIO
    """At its beginning."""
    format: Format
    options: ConversionOptions
    max_unpacked_bytes: int
    """What an archive may hold."""

    @property
    def ending(self) -> str:
        """What its name says that it is, for messages."""
        return self.format.extension or self.format.media_type


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text; pieces of one page that follow each other are one text."""

    text: str
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Property:
    """Something that a document says of itself."""

    name: str
    value: str


Read: TypeAlias = Callable[[Source], Iterator[Piece | Property]]
"""What a reader is: it may raise anything, which counts as a broken document."""
