"""Rows of cells as Markdown, and tables that come as text."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from openworks.converters.source import Piece, Source
from openworks.converters.text import decoded
from openworks.core.errors import InvalidFileError

_DELIMITERS: Final = ",;\t|"


def table_lines(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table; its first row is its head."""
    width = 0
    for row in rows:
        is_head = width == 0
        width = width or max(1, len(row))
        cells = [" ".join(cell.split()).replace("|", "\\|") for cell in row]
        cells += [""] * (width - len(cells))
        yield f"| {' | '.join(cells)} |\n"
        if is_head:
            yield f"|{' --- |' * width}\n"


def read_csv(source: Source) -> Iterator[Piece]:
    """Yield a table whose cells are apart by what parts most of its first line."""
    text = decoded(source)
    head = text[: text.find("\n")] if "\n" in text else text
    delimiter = "\t" if source.format.extension == ".tsv" else max(_DELIMITERS, key=head.count)
    csv.field_size_limit(sys.maxsize)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for line in table_lines(row for row in rows if row):
            yield Piece(line)
    except csv.Error as exc:
        raise InvalidFileError(
            f"{source.name!r} is no table: line {rows.line_num} is wrong ({exc})."
        ) from exc
