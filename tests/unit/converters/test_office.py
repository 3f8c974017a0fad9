from __future__ import annotations

from datetime import date

import pytest

from openworks.converters import opendocument, sheets, slides, word
from openworks.converters.source import Read
from openworks.core.errors import EncryptedFileError, InvalidFileError
from tests import documents
from tests.unit.converters.sources import pages_of, text_of


def test_word_keeps_headings_lists_and_tables() -> None:
    assert text_of(word.read, "a.docx", documents.word()) == (
        "# Записка\n\n"
        "Привет, мир.\n\n- яблоко\n- груша\n\n"
        "| Name | a\\|b |\n| --- | --- |\n| 苹果 | 3 |\n\n"
    )


def test_word_reads_no_other_file() -> None:
    doctype = '<!DOCTYPE x [<!ENTITY x SYSTEM "file:///etc/passwd">]>'

    text = text_of(word.read, "a.docx", documents.word_text("[&x;]", doctype=doctype))

    assert text == "[]\n\n"


def test_slides_are_pages_with_their_notes_levels_and_tables() -> None:
    assert pages_of(slides.read, "a.pptx", documents.slides()) == [
        (1, "## Wasser\n\nEs kocht\n- bei 100 Grad\n\n### Notes\n\nLangsam sprechen\n\n"),
        (2, "## 水\n\n| A |  |\n| --- | --- |\n|  | 猫 |\n\n"),
    ]


def test_sheets_are_tables_under_their_names() -> None:
    made = documents.workbook(
        [["n", "x|y", "when"], [1, 2.5, date(2026, 1, 2)], ["три", True], [], ["last"]]
    )

    assert text_of(sheets.read, "a.xlsx", made) == (
        "## Zahlen\n\n| n | x\\|y | when |\n| --- | --- | --- |\n"
        "| 1 | 2.5 | 2026-01-02 |\n| три | TRUE |  |\n| last |  |  |\n\n"
    )


def test_empty_sheet_is_its_name() -> None:
    assert text_of(sheets.read, "a.xlsx", documents.workbook([], sheet="leer")) == "## leer\n\n\n"


def test_open_document_keeps_headings_lists_tables_and_notes_but_no_deleted_text() -> None:
    made = documents.odt(
        "<text:tracked-changes><text:p>gone</text:p></text:tracked-changes>"
        '<text:h text:outline-level="2">Titel</text:h>'
        '<text:p>A<text:s text:c="2"/>ж<text:line-break/>c <text:span>d</text:span> e'
        "<office:annotation><text:p>remark</text:p></office:annotation></text:p>"
        "<text:section><text:list><text:list-item><text:p>x</text:p><text:list><text:list-item>"
        "<text:p>y</text:p></text:list-item></text:list></text:list-item></text:list>"
        "</text:section><table:table><table:table-row><table:table-cell><text:p>1</text:p>"
        "</table:table-cell><table:table-cell><text:p>2</text:p><text:p>3</text:p>"
        "</table:table-cell></table:table-row></table:table>"
    )

    assert text_of(opendocument.read, "a.odt", made) == (
        "## Titel\n\nA  ж\nc d e\n\n- x\n  - y\n\n| 1 | 2 3 |\n| --- | --- |\n\n"
    )


def test_open_document_with_a_password_is_refused() -> None:
    made = documents.odt("", manifest="<manifest><encryption-data/></manifest>")

    with pytest.raises(EncryptedFileError, match=r"'a\.odt' opens only with a password"):
        text_of(opendocument.read, "a.odt", made)


@pytest.mark.parametrize(
    ("read", "name", "data", "content"),
    [
        (slides.read, "a.pptx", documents.word(), "a Word document"),
        (word.read, "a.docx", documents.slides(), "a PowerPoint presentation"),
        (word.read, "a.docx", documents.workbook([]), "an Excel workbook"),
        (sheets.read, "a.xlsx", documents.word(), "a Word document"),
        (
            opendocument.read,
            "a.odt",
            documents.archive({"mimetype": b"application/epub+zip"}),
            "no OpenDocument text",
        ),
    ],
)
def test_archive_of_another_kind_is_named(read: Read, name: str, data: bytes, content: str) -> None:
    with pytest.raises(InvalidFileError, match=f"{name}' is not .* it holds {content}"):
        text_of(read, name, data)
