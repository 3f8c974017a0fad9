"""Server-sent events as they come from a provider: the data of each, however the bytes are cut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from openworks.gateway.compat.read import MalformedAnswer

MAX_EVENT_BYTES: Final = 16 * 2**20


class EventData:
    """Cuts a byte stream into the `data` of its events.

    Names, ids and comments are passed over: the providers' JSON says what it is. Lines end with LF
    or CRLF, as with every provider; a CR alone does not end one.
    """

    __slots__ = ("_data", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the data of each event that is complete now.

        Raises:
            MalformedAnswer: An event is over 16 MiB.
        """
        *lines, rest = (self._rest + chunk).split(b"\n") if self._rest else chunk.split(b"\n")
        self._rest = rest
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:].strip(b" \r"))
            elif line in {b"", b"\r"} and self._data:
                data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
                self._data = []
                yield data
        if len(rest) + sum(map(len, self._data)) > MAX_EVENT_BYTES:
            raise MalformedAnswer(f"an event is over {MAX_EVENT_BYTES} bytes")
