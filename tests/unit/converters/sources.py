"""Documents as their readers are given them."""

from __future__ import annotations

import io
from typing import Any

from openworks.converters.formats import format_of
from openworks.converters.source import Piece, Property, Read, Source
from openworks.ports.converters import ConversionOptions


def source_of(name: str, data: bytes, media_type: str = "", **options: Any) -> Source:
    """Return a document that is about to be read."""
    return Source(
        name=name,
        file=io.BytesIO(data),
        format=format_of(name, media_type),
        options=ConversionOptions(**options),
        max_unpacked_bytes=100 << 20,
    )


def text_of(read: Read, name: str, data: bytes, **options: Any) -> str:
    """Return what a reader makes of a document, whatever the page."""
    pieces = read(source_of(name, data, **options))
    return "".join(piece.text for piece in pieces if isinstance(piece, Piece))


def pages_of(read: Read, name: str, data: bytes) -> list[tuple[int | None, str]]:
    """Return what a reader makes of each page."""
    pieces = read(source_of(name, data))
    return [(piece.page, piece.text) for piece in pieces if isinstance(piece, Piece)]


def properties_of(read: Read, name: str, data: bytes) -> dict[str, str]:
    """Return what a document says of itself."""
    pieces = read(source_of(name, data))
    return {piece.name: piece.value for piece in pieces if isinstance(piece, Property)}
