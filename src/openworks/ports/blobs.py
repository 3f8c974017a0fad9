"""Bytes by name: bodies of calls, exports, uploads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadedFile:
    """A file that has come, on this machine's disk as long as it is open."""

    file: BinaryIO
    size_bytes: int
    sha256: str


class Blobs(Protocol):
    """A folder or a bucket. Names are paths with `/`; a blob appears whole or not at all.

    Every method raises `StorageError` when the store cannot be reached or refuses.
    """

    async def put(self, name: str, data: bytes) -> None:
        """Keep `data`, in the place of what had that name before."""
        ...

    async def put_file(self, name: str, file: BinaryIO) -> None:
        """Keep all of an open file, without holding all of it in memory; as `put`."""
        ...

    async def put_stream(self, name: str, pieces: AsyncIterator[bytes]) -> None:
        """Keep what `pieces` yields, a few of them in memory at a time; as `put`.

        What `pieces` raises is raised here, and nothing is kept then.
        """
        ...

    async def get(self, name: str) -> bytes | None:
        """Return a blob; None when there is none."""
        ...

    async def get_range(self, name: str, *, start: int, length: int) -> bytes | None:
        """Return `length` bytes from `start`, which must lie inside the blob; None without one."""
        ...

    async def get_file(self, name: str, path: Path) -> bool:
        """Bring a blob to `path`, where nothing is, to be read only; False when there is none.

        It may share its bytes with the store. After an error or a cancellation, what lies at
        `path` is not whole.
        """
        ...

    async def delete(self, name: str) -> None:
        """Delete a blob; no trouble when there is none."""
        ...

    def list(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names under a folder such as `exports/acct-1`, in no order."""
        ...

    def list_older(self, prefix: str, *, before_s: float) -> AsyncIterator[str]:
        """Yield the names under a folder that were put before a moment, in no order.

        Args:
            prefix: The folder.
            before_s: Seconds since the Unix epoch, by the store's own clock. Some stores count a
                large blob from the beginning of its `put`.
        """
        ...

    async def remove_unfinished(self, prefix: str, *, before_s: float) -> int:
        """Remove what a `put` that was killed has left under a folder; return how many.

        Buckets have rules of their own for that, and nothing is removed there.

        Args:
            prefix: The folder.
            before_s: What was written to since then is left alone: its `put` may be under way.
        """
        ...
