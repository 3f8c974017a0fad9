"""A file that keeps batches while the database is away, in the order in which they came."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import zlib
from pathlib import Path
from typing import Final

_HEADER: Final = struct.Struct("<16sQII")
"""The writer's id, the batch's number, its length, and its checksum."""
_MAX_SPOOLS: Final = 64


class SpoolFullError(Exception):
    """The file has reached its bound, or the disk is full; nothing was appended."""


class Spool:
    """Frames in a file. What was read stays there until all was: reading twice does no harm."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        """Open the first spool file of a folder that no other process has.

        What an earlier process left in it is read first.
        """
        self._file = _claim(folder)
        self._max_bytes = max_bytes
        self._read_at = 0
        self._end = self._find_end()
        os.ftruncate(self._file, self._end)

    @property
    def waiting_bytes(self) -> int:
        """What has not been read yet."""
        return self._end - self._read_at

    def has_room_for(self, data: bytes | bytearray) -> bool:
        """Whether a batch with bodies may be kept: it ends in the first half of the room."""
        return self._end + _HEADER.size + len(data) <= self._max_bytes // 2

    def append(self, writer: str, number: int, data: bytes | bytearray) -> None:
        """Keep a batch at the end.

        Raises:
            SpoolFullError: There is no room.
        """
        frame = _HEADER.pack(writer.encode(), number, len(data), zlib.crc32(data)) + data
        if self._end + len(frame) > self._max_bytes:
            raise SpoolFullError(f"The spool file has reached {self._max_bytes} bytes.")
        try:
            self._write(frame)
        except OSError as error:
            os.ftruncate(self._file, self._end)
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
                raise SpoolFullError(f"The spool file cannot grow: {error}.") from error
            raise
        self._end += len(frame)

    def first(self) -> tuple[str, int, bytes] | None:
        """Return the oldest batch that was not `passed`: its writer, number and bytes."""
        while self._read_at < self._end:
            head = os.pread(self._file, _HEADER.size, self._read_at)
            writer, number, length, checksum = _HEADER.unpack(head)
            data = os.pread(self._file, length, self._read_at + _HEADER.size)
            if zlib.crc32(data) == checksum:
                return writer.decode(), number, data
            self._read_at += _HEADER.size + length  # damaged on disk; those behind it may be fine
        self._clear()
        return None

    def passed(self, data: bytes | bytearray) -> None:
        """Leave the oldest batch behind; the file is emptied behind the last."""
        self._read_at += _HEADER.size + len(data)
        if self._read_at >= self._end:
            self._clear()

    def close(self) -> None:
        """Let another process have the file."""
        os.close(self._file)

    def _write(self, frame: bytes) -> None:
        at, view = self._end, memoryview(frame)
        while view:
            written = os.pwrite(self._file, view, at)
            at, view = at + written, view[written:]

    def _clear(self) -> None:
        self._read_at = self._end = 0
        os.ftruncate(self._file, 0)

    def _find_end(self) -> int:
        """Return where the last whole frame ends: the process may have died while it wrote."""
        size, end = os.fstat(self._file).st_size, 0
        while end + _HEADER.size <= size:
            _, _, length, _ = _HEADER.unpack(os.pread(self._file, _HEADER.size, end))
            if end + _HEADER.size + length > size:
                break
            end += _HEADER.size + length
        return end


def _claim(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, _MAX_SPOOLS + 1):
        file = os.open(folder / f"calls-{number}.spool", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
        else:
            return file
    raise SpoolFullError(f"All {_MAX_SPOOLS} spool files in {folder} are in use.")
