"""Memory that the system gets back when we say so, not when the allocator does."""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
import tempfile
from types import TracebackType

import torch
from torch import Tensor


def own_memory(count: int, dtype: torch.dtype) -> Tensor:
    """Return zeros whose memory the system gets back as soon as nobody holds them.

    What comes from the allocator stays with it, in pieces that nothing may fit into.
    """
    memory = _zeros(count * dtype.itemsize)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype, count=count)


def _zeros(size_bytes: int) -> mmap.mmap:
    # Shared memory, which it is elsewhere, is written for the first time at half the speed.
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if sys.platform != "win32" else {}
    return mmap.mmap(-1, max(1, size_bytes), **private)


class Reserve:
    """Zeros that take up memory only where they were written."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Set addresses aside."""
        count = math.prod(shape)
        self._map = _zeros(count * dtype.itemsize)
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            # Otherwise a few written bytes may take up two megabytes.
            self._map.madvise(mmap.MADV_NOHUGEPAGE)
        self.data: Tensor = torch.frombuffer(self._map, dtype=dtype, count=count).view(shape)

    def trim(self, num_rows: int) -> None:
        """Give back what is behind the first rows; it is zeros again, or stays as it is."""
        if not hasattr(mmap, "MADV_DONTNEED"):
            return
        used = num_rows * self.data.stride(0) * self.data.itemsize
        start = -(-used // mmap.PAGESIZE) * mmap.PAGESIZE
        if start < len(self._map):
            self._map.madvise(mmap.MADV_DONTNEED, start, len(self._map) - start)


class Spill:
    """Values in a file without a name, mapped: their memory can be given back and is read anew.

    The compiler makes its own form of weights and holds on to the one that it was given; this
    keeps a model from being in memory twice. A context, in which values are added; they stay for as
    long as this is held.
    """

    def __init__(self, capacity_bytes: int) -> None:
        """Open the file, where the system keeps temporary ones; what is not written takes no room.

        Raises:
            OSError: There is no place for it.
        """
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 # closed as this context ends
        self._file.truncate(capacity_bytes)
        self._map = mmap.mmap(self._file.fileno(), capacity_bytes, access=mmap.ACCESS_WRITE)
        self._end = 0
        self._in_memory: list[Tensor] = []

    def __enter__(self) -> Spill:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def keep(self, values: Tensor) -> Tensor:
        """Move values to the file; where it has no room they stay in memory."""
        values = values.contiguous()
        start = -(-self._end // mmap.PAGESIZE) * mmap.PAGESIZE
        if start + values.nbytes > len(self._map) or not self._write(values, start):
            self._in_memory.append(values)
            return values
        self._end = start + values.nbytes
        moved = torch.frombuffer(self._map, dtype=values.dtype, count=values.numel(), offset=start)
        return moved.view(values.shape)

    def _write(self, values: Tensor, start: int) -> bool:
        try:
            self._file.seek(start)
            self._file.write(values.view(torch.uint8).numpy().data)
            self._file.flush()
        except OSError:
            return False
        return True

    def release(self) -> None:
        """Give the memory of all values back, until they are read again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def give_back_freed() -> None:
    """Give back what the allocator holds though nothing uses it: half a model, after a load."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # of glibc alone
        trim(0)
