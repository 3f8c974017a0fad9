"""The kinds of documents that are read: their endings, their media types, and who reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from openworks.core.errors import UnsupportedFileError
from openworks.ports.converters import DocumentFormat

Reader = Literal["csv", "docx", "html", "json", "odt", "pdf", "pptx", "sheet", "text"]

READERS: Final[Mapping[Reader, str]] = {
    "csv": "openworks.converters.tables:read_csv",
    "docx": "openworks.converters.word:read",
    "html": "openworks.converters.html:read",
    "json": "openworks.converters.text:read_json",
    "odt": "openworks.converters.opendocument:read",
    "pdf": "openworks.converters.pdf:read",
    "pptx": "openworks.converters.slides:read",
    "sheet": "openworks.converters.sheets:read",
    "text": "openworks.converters.text:read",
}
"""Reader → `module:function`; the module is imported in the process that reads alone."""

_OFFICE: Final = "application/vnd.openxmlformats-officedocument"
_EXCEL: Final = "application/vnd.ms-excel"
_OPEN: Final = "application/vnd.oasis.opendocument"


@dataclass(frozen=True, slots=True)
class Format(DocumentFormat):
    """A kind of document, and who reads it."""

    reader: Reader


FORMATS: Final = (
    Format(".pdf", "application/pdf", "pdf"),
    Format(".docx", f"{_OFFICE}.wordprocessingml.document", "docx"),
    Format(".pptx", f"{_OFFICE}.presentationml.presentation", "pptx"),
    Format(".xlsx", f"{_OFFICE}.spreadsheetml.sheet", "sheet"),
    Format(".xlsm", f"{_EXCEL}.sheet.macroenabled.12", "sheet"),
    Format(".xlsb", f"{_EXCEL}.sheet.binary.macroenabled.12", "sheet"),
    Format(".xls", _EXCEL, "sheet"),
    Format(".et", _EXCEL, "sheet"),
    Format(".ods", f"{_OPEN}.spreadsheet", "sheet"),
    Format(".odt", f"{_OPEN}.text", "odt"),
    Format(".html", "text/html", "html"),
    Format(".htm", "text/html", "html"),
    Format(".xml", "application/xml", "text"),
    Format(".csv", "text/csv", "csv"),
    Format(".tsv", "text/tab-separated-values", "csv"),
    Format(".json", "application/json", "json"),
    Format(".jsonl", "application/x-ndjson", "json"),
    Format(".ndjson", "application/x-ndjson", "json"),
    Format(".md", "text/markdown", "text"),
    Format(".markdown", "text/markdown", "text"),
    Format(".txt", "text/plain", "text"),
    Format(".text", "text/plain", "text"),
    Format(".log", "text/plain", "text"),
    Format(".rst", "text/x-rst", "text"),
    Format(".tex", "text/x-tex", "text"),
    Format(".yaml", "application/yaml", "text"),
    Format(".yml", "application/yaml", "text"),
    Format(".toml", "application/toml", "text"),
    Format(".ini", "text/plain", "text"),
    Format(".css", "text/css", "text"),
    Format(".c", "text/x-c", "text"),
    Format(".h", "text/x-c", "text"),
    Format(".cpp", "text/x-c++", "text"),
    Format(".hpp", "text/x-c++", "text"),
    Format(".cs", "text/x-csharp", "text"),
    Format(".go", "text/x-golang", "text"),
    Format(".java", "text/x-java", "text"),
    Format(".js", "text/javascript", "text"),
    Format(".mjs", "text/javascript", "text"),
    Format(".jsx", "text/javascript", "text"),
    Format(".kt", "text/x-kotlin", "text"),
    Format(".lua", "text/x-lua", "text"),
    Format(".php", "text/x-php", "text"),
    Format(".pl", "text/x-perl", "text"),
    Format(".py", "text/x-python", "text"),
    Format(".r", "text/x-r", "text"),
    Format(".rb", "text/x-ruby", "text"),
    Format(".rs", "text/x-rust", "text"),
    Format(".scala", "text/x-scala", "text"),
    Format(".sh", "application/x-sh", "text"),
    Format(".sql", "application/sql", "text"),
    Format(".swift", "text/x-swift", "text"),
    Format(".ts", "application/typescript", "text"),
    Format(".tsx", "application/typescript", "text"),
)
_BY_EXTENSION: Final = {item.extension: item for item in FORMATS}
_BY_MEDIA_TYPE: Final = {item.media_type: item for item in reversed(FORMATS)}
_PICTURES: Final = {
    ".avif": "image/avif",
    ".bmp": "image/bmp",
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".webp": "image/webp",
}
_NEWER: Final = {".doc": ".docx", ".dot": ".docx", ".pps": ".pptx", ".ppt": ".pptx"}
"""Formats of before 2007 → what the same programs write today."""
_UNKNOWN: Final = "application/octet-stream"


def format_of(name: str, media_type: str) -> Format:
    """Return what a document is by its name, else by what its sender says.

    Raises:
        UnsupportedFileError: Nothing here reads it.
    """
    extension, kind = _extension(name), _plain(media_type)
    found = _BY_EXTENSION.get(extension)
    if found is None and extension not in _PICTURES and extension not in _NEWER:
        found = _BY_MEDIA_TYPE.get(kind)
        if found is None and kind.startswith("text/"):
            found = Format(extension, kind, "text")
    if found is not None:
        return found
    if extension in _PICTURES or kind.startswith("image/"):
        raise UnsupportedFileError(f"{name!r} is a picture, and nothing here describes pictures.")
    if extension in _NEWER:
        raise UnsupportedFileError(
            f"{name!r} is in a format of before 2007, which is not read; "
            f"save it as {_NEWER[extension]}."
        )
    raise UnsupportedFileError(
        f"{name!r} is of no kind that is read here: neither its name nor its type, "
        f"{kind or 'which was not given'}, says that it is a document or a text."
    )


def media_type_of(name: str, media_type: str) -> str:
    """Say what a document seems to be, whether or not it is read."""
    extension = _extension(name)
    if (found := _BY_EXTENSION.get(extension)) is not None:
        return found.media_type
    return _PICTURES.get(extension) or _plain(media_type) or _UNKNOWN


def _extension(name: str) -> str:
    stem, dot, ending = name.rpartition(".")
    return f".{ending.lower()}" if dot and stem else ""


def _plain(media_type: str) -> str:
    """Return a media type without its parameters."""
    return media_type.partition(";")[0].strip().lower()
