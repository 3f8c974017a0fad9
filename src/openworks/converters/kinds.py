"""What a document is by its first bytes: checked against what its name says."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from openworks.converters.formats import Reader
from openworks.converters.source import Source
from openworks.core.errors import EncryptedFileError, InvalidFileError

Kind: TypeAlias = Literal["a PDF", "an archive", "an old Office file", "a picture", "a text"]

_HEAD_BYTES: Final = 1024
_PDF: Final = b"%PDF-"
_MAGIC: Final[tuple[tuple[bytes, Kind], ...]] = (
    (_PDF, "a PDF"),
    (b"PK\x03\x04", "an archive"),
    (b"PK\x05\x06", "an archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office file"),
    (b"\x89PNG\r\n\x1a\n", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
)
_EXPECTED: Final[dict[Reader, tuple[Kind, ...]]] = {
    "docx": ("an archive",),
    "odt": ("an archive",),
    "pdf": ("a PDF",),
    "pptx": ("an archive",),
    "sheet": ("an archive", "an old Office file"),
}
"""Reader → what it reads; the others read text."""
_SEALED: Final = "EncryptedPackage".encode("utf-16-le")
"""What today's Office puts into a file of the old kind when there is a password."""


def check_kind(source: Source) -> None:
    """Check that a document begins like what its name says; leaves its file at its beginning.

    Raises:
        EncryptedFileError: It opens only with a password.
        InvalidFileError: It is something else.
    """
    source.file.seek(0)
    head = source.file.read(_HEAD_BYTES)
    found: Kind = next((kind for magic, kind in _MAGIC if head.startswith(magic)), "a text")
    if source.format.reader == "pdf" and _PDF in head:
        found = "a PDF"  # readers of PDF have always let something stand before it
    source.file.seek(0)
    if found == "an old Office file":
        if _SEALED in source.file.read():
            raise EncryptedFileError(f"{source.name!r} opens only with a password.")
        source.file.seek(0)
    if found not in _EXPECTED.get(source.format.reader, ("a text",)):
        raise InvalidFileError(
            f"{source.name!r} is not what its name says: it begins like {found}, not like "
            f"{source.ending}."
        )
