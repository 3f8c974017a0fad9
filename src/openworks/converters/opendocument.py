"""OpenDocument texts, by their XML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final
from xml.etree import ElementTree as ET

from openworks.converters.package import open_package
from openworks.converters.source import Piece, Source
from openworks.converters.tables import table_lines
from openworks.core.errors import EncryptedFileError, InvalidFileError

_TYPE: Final = b"application/vnd.oasis.opendocument.text"
_NAMESPACE: Final = "{urn:oasis:names:tc:opendocument:xmlns:"
_OFFICE: Final = f"{_NAMESPACE}office:1.0}}"
_TEXT: Final = f"{_NAMESPACE}text:1.0}}"
_TABLE: Final = f"{_NAMESPACE}table:1.0}}"
_UNSEEN: Final = (f"{_TEXT}tracked-changes", f"{_OFFICE}annotation", f"{_OFFICE}forms")
"""What was deleted, comments, and controls."""
_MAX_LEVEL: Final = 6
_MAX_SPACES: Final = 1000


def read(source: Source) -> Iterator[Piece]:
    """Yield a document's headings, paragraphs, lists and tables."""
    package = open_package(source)
    if "mimetype" in package.namelist() and not package.read("mimetype").startswith(_TYPE):
        raise InvalidFileError(
            f"{source.name!r} is not what its name says: it holds no OpenDocument text."
        )
    if b"encryption-data" in package.read("META-INF/manifest.xml"):
        raise EncryptedFileError(f"{source.name!r} opens only with a password.")
    content = ET.fromstring(package.read("content.xml"))
    for body in content.iter(f"{_OFFICE}text"):
        for block in _blocks(body):
            yield Piece(f"{block}\n\n")


def _blocks(parent: ET.Element) -> Iterator[str]:
    for item in parent:
        if item.tag == f"{_TEXT}h":
            level = min(int(item.get(f"{_TEXT}outline-level", "1")), _MAX_LEVEL)
            yield f"{'#' * level} {_line(item)}"
        elif item.tag == f"{_TEXT}p":
            if line := _line(item):
                yield line
        elif item.tag == f"{_TEXT}list":
            yield "\n".join(_items(item))
        elif item.tag == f"{_TABLE}table":
            yield "".join(table_lines(_rows(item))).strip()
        elif item.tag not in _UNSEEN:  # a section, an index, a frame
            yield from _blocks(item)


def _items(parent: ET.Element, level: int = 0) -> Iterator[str]:
    for item in parent:
        for part in item:
            if part.tag == f"{_TEXT}list":
                yield from _items(part, level + 1)
            elif line := _line(part):
                yield f"{'  ' * level}- {line}"


def _rows(table: ET.Element) -> Iterator[Sequence[str]]:
    for row in table.iter(f"{_TABLE}table-row"):
        yield [" ".join(_blocks(cell)) for cell in row if cell.tag == f"{_TABLE}table-cell"]


def _line(paragraph: ET.Element) -> str:
    return "".join(_texts(paragraph)).strip()


def _texts(parent: ET.Element) -> Iterator[str]:
    """Yield text with the spaces, tabs and line ends that are elements; notes follow their mark."""
    yield parent.text or ""
    for item in parent:
        match item.tag.removeprefix(_TEXT):
            case "s":
                yield " " * min(int(item.get(f"{_TEXT}c", "1")), _MAX_SPACES)
            case "tab":
                yield "\t"
            case "line-break":
                yield "\n"
            case _ if item.tag not in _UNSEEN:
                yield from _texts(item)
        yield item.tail or ""
