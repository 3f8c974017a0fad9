"""Documents as text: what an index, an assistant or a caller of `tomarkdown` reads of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A file to read."""

    name: str
    """What it is called: its ending says what it is, and errors name it."""
    file: BinaryIO
    """On this machine's disk, with a descriptor, and flushed. It is read from its beginning, by one
    conversion at a time, and its position moves."""
    media_type: str = ""
    """What its sender says that it is; asked where the name does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionOptions:
    """What of a document is wanted."""

    base_url: str | None = None
    """What relative links of a web page are relative to, unless it says so itself."""
    css_selector: str | None = None
    """Which elements of a web page are wanted; None for the page without its header and footer."""


WHOLE = ConversionOptions()
"""All of a document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch of a document's text."""

    text: str
    page: int | None = None
    """The page or slide that it is from, counted from 1; None where the format has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What a document says."""

    media_type: str
    segments: Sequence[Segment]
    """In reading order; a page is one segment."""
    properties: Mapping[str, str] = field(default_factory=dict)
    """What a PDF says of itself, such as its `Title`."""

    @property
    def text(self) -> str:
        """All of it: Markdown, or a text or a program as it is."""
        return "".join(segment.text for segment in self.segments)


@dataclass(frozen=True, slots=True)
class DocumentFormat:
    """A kind of document that is read."""

    extension: str
    """With its dot, in small letters."""
    media_type: str


class Converter(Protocol):
    """Reads documents."""

    async def convert(self, document: Document, options: ConversionOptions = WHOLE) -> Converted:
        """Return what a document says.

        Text has `\\n` at the ends of lines and no other control character but the tab. A cancelled
        conversion stops at once.

        Raises:
            UnsupportedFileError: It is of a kind that is not read here, such as a picture.
            EncryptedFileError: It opens only with a password.
            FileTooComplexError: It takes more time, memory or text than one document may.
            InvalidFileError: It is broken, or not what its name says.
            InvalidRequestError: The selector is none.
            ServerOverloadedError: This machine can start nothing more; retryable.
        """
        ...

    def formats(self) -> Sequence[DocumentFormat]:
        """Return every kind that is read, richest first."""
        ...

    def media_type(self, document: Document) -> str:
        """Say what a document seems to be, by its name, else by its sender."""
        ...
