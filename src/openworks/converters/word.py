"""Word's documents, by mammoth: their styles say what is a heading, a list, a table."""

from __future__ import annotations

from collections.abc import Iterator

import mammoth

from openworks.converters.html import markdown, parsed
from openworks.converters.package import open_package
from openworks.converters.source import Piece, Source


def read(source: Source) -> Iterator[Piece]:
    """Yield a document's text; where its pages end is known only to who prints it."""
    open_package(source, folder="word/")
    made = mammoth.convert_to_html(
        source.file,
        convert_image=lambda image: [],  # no bytes
        external_file_access=False,  # what a document refers to is not for it to read
        include_embedded_style_map=False,
    )
    yield Piece(markdown(parsed(made.value)))
