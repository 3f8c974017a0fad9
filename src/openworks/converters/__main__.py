"""Reads one document: `python -m openworks.converters START`, with the document as its input.

What it reads may be made to harm: it runs within bounds that it sets itself before it looks at
anything, may write nothing but its answer, and knows no secrets. One document, then it ends.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import cast

from openworks.converters.formats import READERS, format_of
from openworks.converters.kinds import check_kind
from openworks.converters.messages import Done, Failed, Start, decode_start, encode_reply, failure
from openworks.converters.source import Piece, Property, Read, Source
from openworks.core.errors import AppError, FileTooComplexError, InvalidFileError
from openworks.ports.converters import Converted, Segment

_MIB = 1 << 20
_NICENESS = 5
_CONTROLS = {code: None for code in (*range(32), 127, *range(0x80, 0xA0)) if code not in (9, 10)}
_LINE_ENDS = (("\r\n", "\n"), ("\r", "\n"), ("\v", "\n"), ("\f", "\n"), ("\x85", "\n"))


def main() -> None:
    """Answer on standard output."""
    start = decode_start(sys.argv[1])
    _bind(start)
    sys.stdout.buffer.write(encode_reply(_reply(start)))


def _bind(start: Start) -> None:
    """Keep this process within its bounds, also when its server is no more."""
    if sys.platform != "darwin":  # which has no such limit
        _limit(resource.RLIMIT_AS, start.memory_bytes)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    # A second apart: the first limit's signal says why, the second's does not.
    _limit(resource.RLIMIT_CPU, start.cpu_s, hard=start.cpu_s + 1)
    signal.alarm(start.wall_s)
    os.nice(_NICENESS)  # calls of models go first


def _limit(what: int, soft: int, *, hard: int | None = None) -> None:
    """Set a limit, or leave the lower one that whoever runs the server has set."""
    most = soft if hard is None else hard
    given = resource.getrlimit(what)[1]
    if given != resource.RLIM_INFINITY:
        most = min(most, given)
    resource.setrlimit(what, (min(soft, most), most))


def _reply(start: Start) -> Done | Failed:
    try:
        return Done(converted=_converted(start))
    except AppError as error:
        return failure(error)


def _converted(start: Start) -> Converted:
    source = Source(
        name=start.name,
        file=sys.stdin.buffer,
        format=format_of(start.name, start.media_type),
        options=start.options,
        max_unpacked_bytes=start.max_unpacked_bytes,
    )
    check_kind(source)
    module, _, function = READERS[source.format.reader].partition(":")
    try:
        read = cast("Read", getattr(import_module(module), function))
        return _gathered(start, source, read(source))
    except AppError:
        raise
    except MemoryError as exc:
        raise FileTooComplexError(
            f"Reading {source.name!r} takes more than {start.memory_bytes // _MIB} MiB of memory."
        ) from exc
    except RecursionError as exc:
        raise FileTooComplexError(
            f"{source.name!r} is nested deeper than what reads it can follow."
        ) from exc
    except Exception as exc:
        # The boundary of one document: its libraries may raise anything when it is broken.
        reason = f"{type(exc).__name__}: {exc}"[:200]
        raise InvalidFileError(
            f"{source.name!r} cannot be read as {source.ending}: {reason}."
        ) from exc


def _gathered(start: Start, source: Source, pieces: Iterator[Piece | Property]) -> Converted:
    """Join pieces into segments, one for each page."""
    texts: list[tuple[int | None, list[str]]] = []
    properties: dict[str, str] = {}
    num_chars = 0
    for piece in pieces:
        if isinstance(piece, Property):
            properties[piece.name] = " ".join(_clean(piece.value).split())
            continue
        num_chars += len(piece.text)
        if num_chars > start.max_chars:
            raise FileTooComplexError(
                f"{source.name!r} makes more than {start.max_chars} characters of text."
            )
        if not texts or texts[-1][0] != piece.page:
            texts.append((piece.page, []))
        texts[-1][1].append(piece.text)
    return Converted(
        media_type=source.format.media_type,
        segments=[Segment(text=_clean("".join(parts)), page=page) for page, parts in texts],
        properties=properties,
    )


def _clean(text: str) -> str:
    """Return text in which lines end in one way, and that every database takes."""
    for end, newline in _LINE_ENDS:
        text = text.replace(end, newline)
    return text.translate(_CONTROLS).encode(errors="replace").decode()


if __name__ == "__main__":
    main()
