"""Workbooks of Excel and OpenDocument, by calamine: each sheet is a table under its name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from typing import Final, TypeAlias
from zipfile import is_zipfile

from python_calamine import CalamineWorkbook, PasswordError, SheetTypeEnum

from openworks.converters.package import open_package
from openworks.converters.source import Piece, Source
from openworks.converters.tables import table_lines
from openworks.core.errors import EncryptedFileError

Cell: TypeAlias = int | float | str | bool | time | date | datetime | timedelta

_OFFICE: Final = (".xlsx", ".xlsm", ".xlsb")


def read(source: Source) -> Iterator[Piece]:
    """Yield the sheets, hidden ones too; of formulas, what was last computed."""
    if is_zipfile(source.file):
        open_package(source, folder="xl/" if source.format.extension in _OFFICE else None)
    source.file.seek(0)
    try:
        book = CalamineWorkbook.from_filelike(source.file)
    except PasswordError as exc:
        raise EncryptedFileError(f"{source.name!r} opens only with a password.") from exc
    for sheet in book.sheets_metadata:
        if sheet.typ is not SheetTypeEnum.WorkSheet:
            continue
        yield Piece(f"## {sheet.name}\n\n")
        cells = book.get_sheet_by_name(sheet.name)
        for line in table_lines(_rows(cells.iter_rows())):
            yield Piece(line)
        yield Piece("\n")


def _rows(rows: Iterator[list[Cell]]) -> Iterator[Sequence[str]]:
    for row in rows:
        if any(cell != "" for cell in row):
            yield [_shown(cell) for cell in row]


def _shown(cell: Cell) -> str:
    match cell:
        case bool():
            return str(cell).upper()
        case float() if cell.is_integer():
            return str(int(cell))
        case datetime() if cell.time() == time():
            return cell.date().isoformat()
        case datetime():
            return cell.isoformat(" ")
        case _:
            return str(cell)
