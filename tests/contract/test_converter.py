"""Reading documents: every kind, every harm, within bounds, and nothing left behind."""

from __future__ import annotations

import asyncio
import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final

import pytest
import xlsxwriter

from openworks.converters.process import DocumentsConfig, ProcessConverter
from openworks.core.errors import (
    EncryptedFileError,
    FileTooComplexError,
    InvalidFileError,
    InvalidRequestError,
    UnsupportedFileError,
)
from openworks.ports.converters import ConversionOptions, Converted, Document
from tests import documents

SMALL: Final = DocumentsConfig(cpu_s=20, memory_mib=300, unpacked_mib=8, max_chars=1_000_000)
GOOD: Final = {
    "a.pdf": (documents.pdf(["Привет", "水 кипит"]), "Привет\n\n水 кипит\n\n"),
    "a.docx": (documents.word(), "яблоко"),
    "a.pptx": (documents.slides(), "Langsam sprechen"),
    "a.xlsx": (documents.workbook([["猫", 1]]), "| 猫 | 1 |"),
    "a.odt": (documents.odt("<text:p>größe</text:p>"), "größe\n\n"),
    "a.html": ("<p>größe".encode(), "größe\n\n"),
    "a.csv": ("имя,n\nя,2".encode(), "| я | 2 |"),
    "a.json": (b'"\\u732b"', '"猫"'),
    "a.py": ("x = '猫'\r\ny\t= 1\n".encode(), "x = '猫'\ny\t= 1\n"),
}


@contextmanager
def opened(name: str, data: bytes, media_type: str = "") -> Iterator[Document]:
    with TemporaryFile() as file:
        file.write(data)
        file.flush()
        yield Document(name=name, file=file, media_type=media_type)


async def convert(
    name: str, data: bytes, config: DocumentsConfig = SMALL, **options: Any
) -> Converted:
    with opened(name, data) as document:
        return await ProcessConverter(config).convert(document, ConversionOptions(**options))


@pytest.mark.parametrize("name", GOOD)
async def test_every_kind_is_read(name: str) -> None:
    data, expected = GOOD[name]

    converted = await convert(name, data)

    assert expected in converted.text
    assert "".join(segment.text for segment in converted.segments) == converted.text


@pytest.mark.parametrize(("name", "pages"), [("a.pdf", [1, 2]), ("a.pptx", [1, 2])])
async def test_pages_are_segments(name: str, pages: list[int]) -> None:
    converted = await convert(name, GOOD[name][0])

    assert [segment.page for segment in converted.segments] == pages


async def test_text_without_pages_is_one_segment() -> None:
    converted = await convert("a.csv", b"a,b\n1,2\n3,4\n")

    assert [segment.page for segment in converted.segments] == [None]
    assert converted.media_type == "text/csv"


async def test_pdf_says_what_it_is() -> None:
    converted = await convert("a.pdf", documents.pdf(["x"], info={"Title": "Water"}))

    assert converted.properties == {"PDFFormatVersion": "1.4", "Title": "Water"}


async def test_options_reach_the_reader() -> None:
    html = b"<p>a<a href=/x>b</a><div>c</div>"

    converted = await convert("a.html", html, base_url="https://e.example", css_selector="a")

    assert converted.text == "[b](https://e.example/x)\n\n"


async def test_control_characters_are_left_out() -> None:
    converted = await convert("a.txt", "a\x07b\x0cc\x9bd\x85e\ttab".encode())

    assert converted.text == "ab\nc" + "d\ne\ttab"


def sparse_workbook() -> bytes:
    """Return a workbook with a cell in either corner, and seventeen milliards between them."""
    out = io.BytesIO()
    with xlsxwriter.Workbook(out) as book:
        sheet = book.add_worksheet()
        sheet.write(0, 0, 1)
        sheet.write(1_048_575, 16_383, 1)
    return out.getvalue()


def lying(package: bytes, part: str) -> bytes:
    """Return an archive that says a part of it unpacks to ten bytes."""
    out = bytearray(package)
    for mark, to_name, to_size in ((b"PK\x03\x04", 30, 22), (b"PK\x01\x02", 46, 24)):
        place = out.find(mark)
        while place >= 0:
            if out[place + to_name :].startswith(part.encode()):
                out[place + to_size : place + to_size + 4] = struct.pack("<I", 10)
            place = out.find(mark, place + 4)
    return bytes(out)


HUGE: Final = b" " * 50_000_000
HARMFUL: Final = {
    "PDF that unpacks to too much": (
        "a.pdf",
        documents.pdf_bomb(900_000_000),
        FileTooComplexError,
        "300 MiB of memory",
    ),
    "PDF of the same page again and again": (
        "a.pdf",
        documents.assembled(
            [
                b"<< /Type /Catalog /Pages 2 0 R >>",
                b"<< /Type /Pages /Count 20000 /Kids [" + b"3 0 R " * 20_000 + b"] >>",
                b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] >>",
            ]
        ),
        InvalidFileError,
        "",
    ),
    "PDF whose pages are each other's parents": (
        "a.pdf",
        documents.assembled(
            [
                b"<< /Type /Catalog /Pages 2 0 R >>",
                b"<< /Type /Pages /Count 9 /Kids [2 0 R] /Parent 2 0 R >>",
            ]
        ),
        InvalidFileError,
        "",
    ),
    "PDF with a password": ("a.pdf", documents.pdf(["x"], encrypted=True), EncryptedFileError, ""),
    "PDF that breaks off": ("a.pdf", documents.pdf(["x"])[:150], InvalidFileError, "broken"),
    "archive that unpacks to too much": (
        "a.docx",
        documents.word_around(HUGE),
        FileTooComplexError,
        "unpacks to 3 parts of 50 MB",
    ),
    "archive of too many parts": (
        "a.xlsx",
        documents.archive({f"xl/{number}": b"" for number in range(10_001)}),
        FileTooComplexError,
        "unpacks to 10001 parts",
    ),
    "archive that lies about a size": (
        "a.docx",
        lying(documents.word_around(HUGE), "word/document.xml"),
        InvalidFileError,
        "cannot be read as .docx",
    ),
    "workbook that lies about a size": (
        "a.xlsx",
        lying(documents.workbook([[" " * 30_000] * 100] * 10), "xl/sharedStrings.xml"),
        InvalidFileError,
        "",
    ),
    "entities that multiply": (
        "a.docx",
        documents.word_text("&e9;", doctype=documents.laughs()),
        InvalidFileError,
        "amplification",
    ),
    "entities in slides": (
        "a.pptx",
        documents.archive({"ppt/presentation.xml": f"{documents.laughs()}<x>&e9;</x>".encode()}),
        InvalidFileError,
        "amplification",
    ),
    "XML without an end of depth": (
        "a.docx",
        documents.word_around(b"<a>" * 100_000 + b"</a>" * 100_000),
        FileTooComplexError,
        "nested deeper",
    ),
    "page without an end of depth": (
        "a.html",
        b"<div>" * 100_000 + b"x",
        FileTooComplexError,
        "nested deeper",
    ),
    "sheet with more cells than memory": ("a.xlsx", sparse_workbook(), FileTooComplexError, "MiB"),
    "table of too many rows": (
        "a.csv",
        b"a,b\n" * 200_000,
        FileTooComplexError,
        "more than 1000000 characters",
    ),
    "document with a password": (
        "a.docx",
        documents.OLE + bytes(9) + "EncryptedPackage".encode("utf-16-le"),
        EncryptedFileError,
        "password",
    ),
    "document of before 2007 under a new name": (
        "a.pptx",
        documents.OLE + bytes(600),
        InvalidFileError,
        "begins like an old Office file, not like .pptx",
    ),
    "archive that breaks off": ("a.docx", documents.word()[:3000], InvalidFileError, "broken"),
    "archive of something": (
        "a.docx",
        documents.archive({"x": b"y"}),
        InvalidFileError,
        "cannot be read as .docx",
    ),
    "PDF under another name": ("a.docx", documents.pdf(["x"]), InvalidFileError, "like a PDF"),
    "archive under another name": ("a.txt", documents.word(), InvalidFileError, "an archive"),
    "text under another name": ("a.pdf", b"hello", InvalidFileError, "like a text"),
    "picture under another name": ("a.md", b"\x89PNG\r\n\x1a\n", InvalidFileError, "a picture"),
    "nothing at all": ("a.pdf", b"", InvalidFileError, "like a text, not like .pdf"),
    "bytes": ("a.md", b"\xfe\x80\x00", InvalidFileError, "not text in UTF-8"),
    "a picture": ("a.png", b"\x89PNG\r\n\x1a\n", UnsupportedFileError, "a picture"),
}


@pytest.mark.parametrize("harm", HARMFUL)
async def test_harmful_document_is_an_error_that_names_it(harm: str) -> None:
    name, data, kind, reason = HARMFUL[harm]

    with pytest.raises(kind, match=reason or None) as caught:
        await convert(name, data)

    assert f"'{name}'" in caught.value.message
    assert len(caught.value.message) < 400


async def test_selector_that_is_none_is_an_error_of_the_request() -> None:
    with pytest.raises(InvalidRequestError, match="no CSS selector") as caught:
        await convert("a.html", b"<p>x", css_selector="p::")

    assert type(caught.value) is InvalidRequestError
    assert caught.value.param == "html.cssSelector"


SLOW: Final = ("slow.csv", b"a,b,c\n" * 3_000_000)
PATIENT: Final = DocumentsConfig(max_chars=100_000_000, max_processes=1)


async def test_document_that_takes_too_long_is_given_up() -> None:
    with pytest.raises(FileTooComplexError, match=r"'slow\.csv' takes more than 1 seconds"):
        await convert(*SLOW, replace(PATIENT, cpu_s=1))


def readers() -> list[Path]:
    """The processes, of those that this one started, that read a document."""
    ours = {
        child
        for thread in Path("/proc/self/task").iterdir()
        for child in (thread / "children").read_text().split()
    }
    found = (Path("/proc") / child for child in ours)
    return [process for process in found if b"openworks.converters" in _told(process, "cmdline")]


def _told(process: Path, what: str) -> bytes:
    try:
        return (process / what).read_bytes()
    except OSError:  # it has just ended
        return b""


async def test_cancelled_conversion_ends_its_process_and_gives_its_turn_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENWORKS_ACCESS_TOKEN", "a-secret")
    converter = ProcessConverter(PATIENT)
    with opened(*SLOW) as slow, opened("a.txt", b"hello") as quick:
        working = asyncio.create_task(converter.convert(slow))
        while not readers():  # noqa: ASYNC110 - nobody tells that a process has begun
            await asyncio.sleep(0.01)
        assert b"a-secret" not in _told(readers()[0], "environ")
        waiting = asyncio.create_task(converter.convert(quick))

        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working

        assert (await waiting).text == "hello"
    assert not readers()


async def test_one_bad_document_does_not_harm_the_next() -> None:
    converter = ProcessConverter(SMALL)
    with opened("a.xlsx", sparse_workbook()) as bad, opened("a.pdf", GOOD["a.pdf"][0]) as good:
        with pytest.raises(FileTooComplexError):
            await converter.convert(bad)

        assert (await converter.convert(good)).text == GOOD["a.pdf"][1]


async def test_document_is_read_from_its_beginning_and_as_often_as_wanted() -> None:
    converter = ProcessConverter(SMALL)
    with opened("a.docx", documents.word()) as document:
        first = await converter.convert(document)

        assert await converter.convert(document) == first


def test_kinds_are_told_with_their_types() -> None:
    converter = ProcessConverter(SMALL)

    kinds = {each.extension: each.media_type for each in converter.formats()}

    assert kinds[".pdf"] == "application/pdf"
    assert {".docx", ".pptx", ".html", ".md", ".csv", ".json", ".py"} <= set(kinds)
