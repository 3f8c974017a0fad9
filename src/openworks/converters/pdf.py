"""PDF, by PDFium: text page by page, as it is read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pypdfium2 import PdfDocument, PdfiumError
from pypdfium2.raw import FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY

from openworks.converters.source import Piece, Property, Source
from openworks.core.errors import EncryptedFileError, InvalidFileError

_HYPHEN: Final = "\x02"
"""What PDFium writes for a hyphen that only a line's end has made."""


def read(source: Source) -> Iterator[Piece | Property]:
    """Yield what a PDF says of itself, then its pages."""
    document = _open(source)
    if (version := document.get_version()) is not None:
        yield Property("PDFFormatVersion", f"{version // 10}.{version % 10}")
    for name, value in document.get_metadata_dict(skip_empty=True).items():
        yield Property(name, value)
    has_text = False
    for number in range(len(document)):
        text = _page(source, document, number)
        has_text = has_text or bool(text)
        yield Piece(f"{text}\n\n" if text else "", number + 1)
    if not has_text:
        raise InvalidFileError(
            f"{source.name!r} has no text on any of its pages (there are {len(document)}): perhaps "
            "they are pictures, which nothing here reads."
        )


def _open(source: Source) -> PdfDocument:
    try:
        return PdfDocument(source.file.read())
    except PdfiumError as exc:
        if exc.err_code in (FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY):
            raise EncryptedFileError(f"{source.name!r} opens only with a password.") from exc
        raise InvalidFileError(f"{source.name!r} is broken: {str(exc).rstrip('.')}.") from exc


def _page(source: Source, document: PdfDocument, number: int) -> str:
    try:
        page = document[number]
        text = page.get_textpage()
    except PdfiumError as exc:
        raise InvalidFileError(f"{source.name!r} is broken on page {number + 1}.") from exc
    shown: str = text.get_text_bounded()
    text.close()
    page.close()
    return shown.replace(_HYPHEN, "").strip()
