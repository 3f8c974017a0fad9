from __future__ import annotations

import pytest

from openworks.converters.kinds import check_kind
from openworks.core.errors import EncryptedFileError, InvalidFileError
from tests import documents
from tests.unit.converters.sources import source_of

SEALED = documents.OLE + bytes(5000) + "EncryptedPackage".encode("utf-16-le")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.pdf", b"%PDF-1.7 "),
        ("a.pdf", b"some bytes of a mail\r\n%PDF-1.4"),
        ("a.md", b"A file begins so:\n%PDF-1.7\n"),
        ("a.docx", documents.word()),
        ("a.xls", documents.OLE),
        ("a.et", documents.OLE),
        ("a.txt", b""),
    ],
)
def test_document_that_is_what_it_says_is_left_at_its_beginning(name: str, data: bytes) -> None:
    source = source_of(name, data)

    check_kind(source)

    assert source.file.read() == data


@pytest.mark.parametrize("name", ["a.docx", "a.xlsx", "a.xls", "a.txt"])
def test_office_file_with_a_password_is_known_whatever_its_name(name: str) -> None:
    with pytest.raises(EncryptedFileError, match=f"'{name}' opens only with a password"):
        check_kind(source_of(name, SEALED))


@pytest.mark.parametrize(
    ("name", "data", "found"),
    [
        ("a.pdf", b"PK\x03\x04", "an archive, not like .pdf"),
        ("a.docx", b"hello", "a text, not like .docx"),
        ("a.docx", documents.OLE, "an old Office file, not like .docx"),
        ("a.csv", documents.OLE, "an old Office file, not like .csv"),
        ("a.html", b"\xff\xd8\xff\xe0", "a picture, not like .html"),
    ],
)
def test_document_that_is_something_else_is_refused(name: str, data: bytes, found: str) -> None:
    with pytest.raises(InvalidFileError, match=f"'{name}' is not what its name says: .* {found}"):
        check_kind(source_of(name, data))
