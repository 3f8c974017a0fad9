"""Files that are sent piece by piece, whole or in part, under a name that harms nobody."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from openworks.core.errors import AppError, RangeNotSatisfiableError

log = logging.getLogger(__name__)

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_RANGE: Final = re.compile(r"bytes=\s*([0-9]*)\s*-\s*([0-9]*)\s*", re.IGNORECASE)
_MAX_DIGITS: Final = 18
_PLAIN: Final = re.compile(r"[^A-Za-z0-9 ._()+-]")


class Download(Response):
    """A file that is sent as it is read; one that fails on its way is cut, which clients notice."""

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        *,
        name: str,
        media_type: str,
        status: int = 200,
        headers: Mapping[str, str] = _NOTHING,
    ) -> None:
        """Prepare to send.

        Args:
            pieces: The content; closed in the end.
            name: What a browser calls the file.
            media_type: What it is.
            status: 206 for a part.
            headers: Further ones, such as the length where it is known.
        """
        super().__init__(
            status_code=status,
            headers={
                "content-type": media_type,  # as it is: nobody knows the charset of a file
                "content-disposition": disposition(name),
                **headers,
            },
        )
        if "content-length" not in headers:
            del self.headers["content-length"]
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._pieces) as pieces:
            first = await anext(pieces, b"")  # what fails here has an answer of its own
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            await send({"type": "http.response.body", "body": first, "more_body": True})
            try:
                async for piece in pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            except AppError as error:
                log.warning("download.failed", extra={"error": error.message})
                return  # without an end, so the server closes the connection
        await send({"type": "http.response.body", "body": b"", "more_body": False})


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A part of a file."""

    start: int
    length: int

    def header(self, size: int) -> str:
        """The part as `Content-Range` tells it."""
        return f"bytes {self.start}-{self.start + self.length - 1}/{size}"


def span_of(header: str | None, size: int) -> Span | None:
    """Return the part that a `Range` header asks for; None for the whole file.

    As RFC 9110 has it, what is no range is passed over; several at once are answered by the whole.

    Raises:
        RangeNotSatisfiableError: It begins behind the end, or is empty.
    """
    found = _RANGE.fullmatch(header or "")
    if found is None or not any(found.groups()) or max(map(len, found.groups())) > _MAX_DIGITS:
        return None
    first, last = found.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None
    if start >= end:
        raise RangeNotSatisfiableError(
            f"The file has {size} bytes, and the range {header!r} is not among them."
        )
    return Span(start=start, length=end - start)


def disposition(name: str) -> str:
    """Return a `Content-Disposition` that saves under any name, and never shows."""
    plain = _PLAIN.sub("_", name)
    if plain == name:
        return f'attachment; filename="{plain}"'
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
