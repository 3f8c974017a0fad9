"""AWS event-stream frames: lengths, CRCs, headers and payload, however the bytes are cut.

Format: https://docs.aws.amazon.com/lexv2/latest/dg/event-stream-encoding.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final
from zlib import crc32

from openworks.gateway.compat.read import MalformedAnswer

MAX_FRAME_BYTES: Final = 24 * 2**20
_PRELUDE: Final = struct.Struct(">III")
_CRC: Final = struct.Struct(">I")
_OVERHEAD: Final = _PRELUDE.size + _CRC.size
_STRING: Final = 7
_FIXED_SIZES: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Value type → its bytes; 6 (binary) and 7 (string) say their own length first."""


class Frames:
    """Cuts a byte stream into frames and checks both of their sums."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[tuple[dict[str, str], bytes]]:
        """Yield the text headers and the payload of each frame that is complete now.

        Raises:
            MalformedAnswer: A sum or a length is wrong, or a frame is over 24 MiB.
        """
        rest = self._rest + chunk
        at = 0
        while len(rest) - at >= _PRELUDE.size:
            total, headers_size, prelude_crc = _PRELUDE.unpack_from(rest, at)
            if crc32(rest[at : at + 8]) != prelude_crc:
                raise MalformedAnswer("the checksum of a frame's prelude is wrong")
            if not _OVERHEAD + headers_size <= total <= MAX_FRAME_BYTES:
                raise MalformedAnswer(f"a frame of {total} bytes is not possible")
            if len(rest) - at < total:
                break
            frame = rest[at : at + total]
            at += total
            if crc32(frame[:-4]) != _CRC.unpack_from(frame, total - 4)[0]:
                raise MalformedAnswer("the checksum of a frame is wrong")
            headers_end = _PRELUDE.size + headers_size
            yield _headers(frame[_PRELUDE.size : headers_end]), frame[headers_end:-4]
        self._rest = rest[at:]

    @property
    def is_between(self) -> bool:
        """Whether no frame is half there."""
        return not self._rest


def _headers(data: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    at = 0
    try:
        while at < len(data):
            name_end = at + 1 + data[at]
            name = data[at + 1 : name_end].decode()
            kind, at = data[name_end], name_end + 1
            size = _FIXED_SIZES.get(kind)
            if size is None:
                if kind not in {6, _STRING}:
                    raise MalformedAnswer(f"a header has the unknown type {kind}")
                size = int.from_bytes(data[at : at + 2], "big")
                at += 2
            if at + size > len(data):
                raise MalformedAnswer("a header is longer than its frame")
            if kind == _STRING:
                found[name] = data[at : at + size].decode()
            at += size
    except (IndexError, UnicodeDecodeError) as error:
        raise MalformedAnswer("a frame's headers are broken") from error
    return found
