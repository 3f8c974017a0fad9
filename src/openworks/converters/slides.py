"""PowerPoint's presentations, by their XML: the libraries for them bring what only writers need."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Final
from xml.etree import ElementTree as ET
from zipfile import ZipFile

from openworks.converters.package import open_package
from openworks.converters.source import Piece, Source
from openworks.converters.tables import table_lines

_MAIN: Final = "ppt/presentation.xml"
_TITLES: Final = ("title", "ctrTitle")
_HIDDEN: Final = ("dt", "ftr", "hdr", "sldImg", "sldNum")
"""Placeholders that say nothing: date, footer, header, the slide's own picture, its number."""


def read(source: Source) -> Iterator[Piece]:
    """Yield each slide with its notes, in the order in which they are shown."""
    package = open_package(source, folder="ppt/")
    targets = _targets(package, _MAIN)
    order = [
        targets[target][1]
        for item in _parts(_xml(package, _MAIN), "sldId")
        for name, target in item.attrib.items()
        if _local(name) == "id" and target in targets
    ]
    for number, path in enumerate(order, 1):
        blocks = [*_blocks(_xml(package, path)), *_notes(package, path)]
        yield Piece("".join(f"{block}\n\n" for block in blocks), number)


def _notes(package: ZipFile, slide: str) -> Iterator[str]:
    for kind, path in _targets(package, slide).values():
        if kind == "notesSlide" and (blocks := list(_blocks(_xml(package, path)))):
            yield "### Notes"
            yield from blocks


def _blocks(slide: ET.Element) -> Iterator[str]:
    """Yield what the shapes of a slide say, in its order of drawing; groups are opened."""
    for shape in _shapes(slide):
        match _local(shape.tag):
            case "sp" if text := _shape_text(shape):
                yield text
            case "tbl":
                rows = ([_text(cell) for cell in _parts(row, "tc")] for row in _parts(shape, "tr"))
                yield "".join(table_lines(rows)).strip()


def _shapes(parent: ET.Element) -> Iterator[ET.Element]:
    for item in parent:
        if _local(item.tag) != "Fallback":  # the same again, for older programs
            yield item
            yield from _shapes(item)


def _shape_text(shape: ET.Element) -> str:
    role = next((item.get("type", "body") for item in _parts(shape, "ph")), None)
    if role in _HIDDEN:
        return ""
    text = _text(shape)
    return "## " + " ".join(text.split()) if text and role in _TITLES else text


def _text(parent: ET.Element) -> str:
    """Return the paragraphs in an element, those below the first level as items of lists."""
    lines = []
    for paragraph in _parts(parent, "p"):
        level = max((int(item.get("lvl", "0")) for item in _parts(paragraph, "pPr")), default=0)
        text = "".join(_runs(paragraph)).strip()
        if text:
            lines.append(f"{'  ' * (level - 1)}- {text}" if level > 0 else text)
    return "\n".join(lines)


def _runs(paragraph: ET.Element) -> Iterator[str]:
    for item in paragraph.iter():
        match _local(item.tag):
            case "t":
                yield item.text or ""
            case "br":
                yield "\n"
            case "tab":
                yield "\t"


def _targets(package: ZipFile, path: str) -> dict[str, tuple[str, str]]:
    """Return what a part refers to inside the archive: id → kind and path."""
    folder, name = posixpath.split(path)
    relations = f"{folder}/_rels/{name}.rels"
    if relations not in package.namelist():
        return {}
    return {
        item.attrib["Id"]: (
            posixpath.basename(item.attrib["Type"]),
            posixpath.normpath(posixpath.join("/", folder, item.attrib["Target"])).lstrip("/"),
        )
        for item in _xml(package, relations)
        if item.get("TargetMode") != "External"
    }


def _xml(package: ZipFile, path: str) -> ET.Element:
    return ET.fromstring(package.read(path))


def _parts(parent: ET.Element, name: str) -> Iterator[ET.Element]:
    """Yield descendants by their name, in whichever namespace: there are two of each."""
    return (item for item in parent.iter() if _local(item.tag) == name)


def _local(name: str) -> str:
    return name.rpartition("}")[2]
