from __future__ import annotations

from importlib import import_module

import pytest

from openworks.converters.formats import FORMATS, READERS, format_of, media_type_of
from openworks.core.errors import UnsupportedFileError


def test_every_reader_is_there_and_is_used() -> None:
    for place in READERS.values():
        module, _, function = place.partition(":")
        assert callable(getattr(import_module(module), function))
    assert {item.reader for item in FORMATS} == set(READERS)


def test_extensions_are_apart() -> None:
    extensions = [item.extension for item in FORMATS]

    assert len(set(extensions)) == len(extensions)
    assert all(each.startswith(".") and each == each.lower() for each in extensions)


@pytest.mark.parametrize(
    ("name", "media_type", "reader"),
    [
        ("Report.PDF", "", "pdf"),
        ("a.b.docx", "text/plain", "docx"),
        ("page.html", "application/octet-stream", "html"),
        ("page", "text/html; charset=utf-8", "html"),
        ("Makefile", "text/x-makefile", "text"),
        ("readme.unheard", "text/plain", "text"),
        (".json", "application/json", "json"),
        ("table", "text/csv", "csv"),
    ],
)
def test_name_says_what_a_document_is_and_else_its_sender(
    name: str, media_type: str, reader: str
) -> None:
    assert format_of(name, media_type).reader == reader


@pytest.mark.parametrize(
    ("name", "media_type", "reason"),
    [
        ("cat.png", "", "'cat.png' is a picture"),
        ("cat.svg", "image/svg+xml", "is a picture"),
        ("cat", "image/webp", "is a picture"),
        ("cat.jpg", "text/plain", "is a picture"),
        ("old.doc", "application/msword", "save it as .docx"),
        ("old.ppt", "", "save it as .pptx"),
        ("song.mp3", "audio/mpeg", "'song.mp3' is of no kind .* audio/mpeg"),
        ("mystery", "", "which was not given"),
        ("mystery.bin", "application/octet-stream", "application/octet-stream"),
    ],
)
def test_what_nobody_reads_is_refused_by_its_name(name: str, media_type: str, reason: str) -> None:
    with pytest.raises(UnsupportedFileError, match=reason):
        format_of(name, media_type)


@pytest.mark.parametrize(
    ("name", "media_type", "expected"),
    [
        ("a.pdf", "text/plain", "application/pdf"),
        ("cat.JPEG", "", "image/jpeg"),
        ("mystery", "Audio/MPEG; rate=1", "audio/mpeg"),
        ("mystery", "", "application/octet-stream"),
    ],
)
def test_everything_has_a_media_type(name: str, media_type: str, expected: str) -> None:
    assert media_type_of(name, media_type) == expected
