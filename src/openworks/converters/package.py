"""Documents that are archives: looked at before anything in them is unpacked."""

from __future__ import annotations

from typing import Final
from zipfile import BadZipFile, ZipFile

from openworks.converters.source import Source
from openworks.core.errors import EncryptedFileError, FileTooComplexError, InvalidFileError

_MAX_ENTRIES: Final = 10_000
_ENCRYPTED: Final = 0x1
_CONTENTS: Final = {
    "word/": "a Word document",
    "ppt/": "a PowerPoint presentation",
    "xl/": "an Excel workbook",
}
"""What an archive of Office holds, by the folder that is in it."""


def open_package(source: Source, *, folder: str | None = None) -> ZipFile:
    """Open an archive whose size, once unpacked, is within bounds; the file is at its beginning.

    Args:
        source: The document.
        folder: Where an Office document of this kind has its parts.

    Raises:
        EncryptedFileError: It holds something that is encrypted.
        FileTooComplexError: It holds more than a document may.
        InvalidFileError: It is broken, or another kind of document.
    """
    try:
        package = ZipFile(source.file)
    except BadZipFile as exc:
        raise InvalidFileError(f"{source.name!r} is broken: {_reason(exc)}.") from exc
    entries = package.infolist()
    unpacked_bytes = sum(entry.file_size for entry in entries)
    if len(entries) > _MAX_ENTRIES or unpacked_bytes > source.max_unpacked_bytes:
        raise FileTooComplexError(
            f"{source.name!r} unpacks to {len(entries)} parts of {unpacked_bytes / 1e6:.0f} MB; "
            f"{_MAX_ENTRIES} of {source.max_unpacked_bytes / 1e6:.0f} MB are read."
        )
    if any(entry.flag_bits & _ENCRYPTED for entry in entries):
        raise EncryptedFileError(f"{source.name!r} opens only with a password.")
    for prefix, content in _CONTENTS.items():
        if folder is not None and prefix != folder and _has(package, prefix):
            if _has(package, folder):
                continue  # a document in a document
            raise InvalidFileError(
                f"{source.name!r} is not what its name says: it holds {content}."
            )
    source.file.seek(0)
    return package


def _has(package: ZipFile, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in package.namelist())


def _reason(error: BadZipFile) -> str:
    text = str(error).rstrip(".")
    return text[:1].lower() + text[1:]
