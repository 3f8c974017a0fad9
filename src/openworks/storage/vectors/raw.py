"""The vectors as they came: one file of float32 rows, where a slot is a place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Matrix: TypeAlias = NDArray[np.float32]
Slots: TypeAlias = NDArray[np.int64]

BLOCK_ROWS = 16_384


class RawVectors:
    """Rows by slot, read with plain reads: mapped pages would count as this process's memory.

    What lies behind the last row that the database knows is left from a mutation that was broken
    off, and is overwritten.
    """

    def __init__(self, path: Path, width: int) -> None:
        self._path = path
        self._width = width
        self._row_bytes = 4 * width
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, start: int, rows: Matrix) -> None:
        """Put rows at `start` and the slots after it; on disk when this returns."""
        rest = np.ascontiguousarray(rows, dtype="<f4").data.cast("B")
        offset = start * self._row_bytes
        while rest:
            written = os.pwrite(self._file, rest, offset)
            rest, offset = rest[written:], offset + written
        os.fdatasync(self._file)

    def read(self, slots: Slots) -> Matrix:
        """Return the rows of these slots, in their order: [len(slots), width]."""
        rows = np.empty((len(slots), self._width), dtype="<f4")
        for row, slot in zip(rows, slots.tolist(), strict=True):
            self._fill(row, slot)
        return rows

    def blocks(self, start: int, stop: int) -> Iterator[tuple[int, Matrix]]:
        """Yield the rows from `start` to `stop`, some thousand at a time, each with its slot."""
        for first in range(start, stop, BLOCK_ROWS):
            rows = np.empty((min(BLOCK_ROWS, stop - first), self._width), dtype="<f4")
            self._fill(rows, first)
            yield first, rows

    def close(self) -> None:
        os.close(self._file)

    def _fill(self, rows: Matrix, slot: int) -> None:
        rest = rows.data.cast("B")
        offset = slot * self._row_bytes
        while rest:
            got = os.preadv(self._file, [rest], offset)
            if not got:
                raise OSError(f"{self._path} ends before slot {slot}.")
            rest, offset = rest[got:], offset + got
