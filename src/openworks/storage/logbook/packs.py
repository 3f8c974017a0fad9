"""Bodies of calls, packed: many in one blob, in compressed blocks that are read one by one."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from openworks.core.errors import StorageError

_BLOCK_BYTES: Final = 128 * 1024
"""So much is decompressed to read one body; alike bodies in a block compress to a tenth."""
_LEVEL: Final = 1


class BodyPlace(NamedTuple):
    """Where the two bodies of a call are in a pack."""

    block_offset: int
    block_bytes: int
    body_offset: int
    """In the decompressed block: the request, and right after it the response."""


class Pack:
    """A blob in the making. The places are known only once it is closed."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._blocks: list[tuple[int, int]] = []
        self._places: list[tuple[int, int]] = []
        self._compressor = zlib.compressobj(_LEVEL)
        self._raw_bytes = 0
        self._begin = 0

    def add(self, request: bytes, response: bytes) -> None:
        """Append the bodies of the next call."""
        if self._raw_bytes and self._raw_bytes + len(request) + len(response) > _BLOCK_BYTES:
            self._end_block()
        self._places.append((len(self._blocks), self._raw_bytes))
        self._data += self._compressor.compress(request)
        self._data += self._compressor.compress(response)
        self._raw_bytes += len(request) + len(response)

    def close(self) -> tuple[bytearray, Sequence[BodyPlace]]:
        """Return the blob, and a place for each call in the order of `add`."""
        if self._raw_bytes or not self._blocks:
            self._end_block()
        places = [BodyPlace(*self._blocks[block], offset) for block, offset in self._places]
        return self._data, places

    def _end_block(self) -> None:
        self._data += self._compressor.flush()
        self._blocks.append((self._begin, len(self._data) - self._begin))
        self._begin = len(self._data)
        self._compressor = zlib.compressobj(_LEVEL)
        self._raw_bytes = 0


def unpack(block: bytes, *, offset: int, length: int) -> bytes:
    """Return what stands at a place of a block.

    Raises:
        StorageError: The block is damaged.
    """
    if not length:
        return b""  # zlib takes a limit of 0 for none
    decompressor = zlib.decompressobj()
    try:
        raw = decompressor.decompress(block, offset + length)
    except zlib.error as error:
        raise StorageError(f"A log's body is damaged: {error}.") from error
    if len(raw) < offset + length:
        raise StorageError("A log's body is damaged: it ends too early.")
    return raw[offset:]
