"""Plain text and JSON: what is text already."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Final

from openworks.converters.source import Piece, Source
from openworks.core.errors import InvalidFileError

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ESCAPES: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})(?:\\u([dD][c-fC-F][0-9a-fA-F]{2}))?|.)", re.S)
_FIRST_HIGH, _FIRST_LOW, _FIRST_BEYOND = 0xD800, 0xDC00, 0x10000
_LAST_ASCII: Final = 0x9F
"""With the control characters after ASCII, which stay escaped too."""


def read(source: Source) -> Iterator[Piece]:
    """Yield a text as it is."""
    yield Piece(decoded(source))


def read_json(source: Source) -> Iterator[Piece]:
    r"""Yield JSON as it is, but for letters that are written as `\uXXXX`."""
    yield Piece(_ESCAPES.sub(_unescaped, decoded(source)))


def decoded(source: Source) -> str:
    """Return a file's text.

    Raises:
        InvalidFileError: It is not UTF-8, nor UTF-16 with a byte order mark.
    """
    data = source.file.read()
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as exc:
        raise InvalidFileError(
            f"{source.name!r} is not text in UTF-8, or in UTF-16 with a byte order mark: "
            f"byte {exc.start} does not fit."
        ) from exc
    if (place := text.find("\0")) >= 0:
        raise InvalidFileError(f"{source.name!r} is not a text: character {place} is a zero.")
    return text


def _unescaped(match: re.Match[str]) -> str:
    first, second = match.groups()
    if first is None:
        return match[0]
    code = int(first, 16)
    if code < _FIRST_HIGH or code >= _FIRST_HIGH + 0x800:
        shown = chr(code) if code > _LAST_ASCII else f"\\u{first}"
        return shown + (f"\\u{second}" if second else "")
    if second is None or code >= _FIRST_LOW:  # half a character
        return match[0]
    low = int(second, 16) - _FIRST_LOW
    return chr(_FIRST_BEYOND + ((code - _FIRST_HIGH) << 10) + low)
