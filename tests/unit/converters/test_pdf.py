from __future__ import annotations

import pytest

from openworks.converters.pdf import read
from openworks.core.errors import EncryptedFileError, InvalidFileError
from tests.documents import pdf
from tests.unit.converters.sources import pages_of, properties_of


def test_pages_are_numbered_and_keep_their_lines() -> None:
    made = pdf(["Water boils\nat 100 degrees.", "", "Вода кипит. 水"])

    pages = pages_of(read, "a.pdf", made)

    assert [(page, text.split()) for page, text in pages] == [
        (1, ["Water", "boils", "at", "100", "degrees."]),
        (2, []),
        (3, ["Вода", "кипит.", "水"]),
    ]
    assert len(pages[0][1].splitlines()) == 3
    assert pages[1][1] == ""


def test_pdf_says_what_it_is() -> None:
    made = pdf(["x"], info={"Title": "On water", "Author": "Ann"})

    assert properties_of(read, "a.pdf", made) == {
        "PDFFormatVersion": "1.4",
        "Title": "On water",
        "Author": "Ann",
    }


def test_pdf_with_a_password_is_refused() -> None:
    with pytest.raises(EncryptedFileError, match=r"'a\.pdf' opens only with a password"):
        pages_of(read, "a.pdf", pdf(["x"], encrypted=True))


def test_pdf_that_breaks_off_is_refused() -> None:
    with pytest.raises(InvalidFileError, match=r"'a\.pdf' is broken"):
        pages_of(read, "a.pdf", pdf(["x"])[:200])


def test_pdf_of_pictures_is_refused_and_not_empty() -> None:
    with pytest.raises(InvalidFileError, match="no text on any of its pages"):
        pages_of(read, "a.pdf", pdf(["", ""]))
