"""Blobs in a folder, or in a bucket of S3, Google or Azure."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, ObjectStore, from_url

from openworks.core.errors import StorageError

_SCHEMES = ("s3://", "gs://", "az://")
_MISSING = (FileNotFoundError, NotFoundError)  # obstore raises one or the other

_PIECE_BYTES: Final = 8 << 20
"""How much of a file is in memory at once."""

_STAGED: Final = re.compile(r".+#[0-9]+")

Data: TypeAlias = bytes | bytearray | memoryview


class ObjectBlobs:
    """Blobs in an object store; the methods that end in `_now` block, for a process of their own.

    A bucket's credentials come from where its own tools find them (environment, instance role).
    """

    def __init__(self, place: str | ObjectStore) -> None:
        """Open a place.

        Args:
            place: A folder, made when it is not there, or a URL such as `s3://bucket/prefix`; or
                a store that is open.

        Raises:
            StorageError: The URL names no such service, or the folder cannot be made.
        """
        self._store = _open(place) if isinstance(place, str) else place

    async def put(self, name: str, data: Data) -> None:
        with _translated(name):
            await obstore.put_async(self._store, name, data)

    async def put_file(self, name: str, file: BinaryIO) -> None:
        file.seek(0)
        with _translated(name):
            await obstore.put_async(
                self._store, name, file, chunk_size=_PIECE_BYTES, max_concurrency=2
            )

    async def put_stream(self, name: str, pieces: AsyncIterator[bytes]) -> None:
        # Not `put_async`, which would leave `pieces` running when it is cancelled.
        writer = obstore.open_writer_async(
            self._store, name, buffer_size=_PIECE_BYTES, max_concurrency=2
        )
        try:
            async for piece in pieces:
                with _translated(name):
                    await writer.write(piece)
            with _translated(name):
                await writer.close()
        finally:
            del writer  # one that is let go before its end removes what it wrote

    async def get(self, name: str) -> bytes | None:
        try:
            with _translated(name):
                answer = await obstore.get_async(self._store, name)
                return bytes(await answer.bytes_async())
        except _MISSING:
            return None

    async def get_range(self, name: str, *, start: int, length: int) -> bytes | None:
        if length == 0:
            return b""
        try:
            with _translated(name):
                found = await obstore.get_range_async(self._store, name, start=start, length=length)
        except _MISSING:
            return None
        return bytes(found)

    async def get_file(self, name: str, path: Path) -> bool:
        try:
            with _translated(name):
                if await asyncio.to_thread(self._link, name, path):
                    return True
                await self._copy(name, path)
        except _MISSING:
            return False
        return True

    async def delete(self, name: str) -> None:
        try:
            with _translated(name):
                await obstore.delete_async(self._store, name)
        except _MISSING:
            return

    async def list(self, prefix: str) -> AsyncIterator[str]:
        with _translated(prefix):
            async for page in obstore.list(self._store, prefix=prefix):
                for meta in page:
                    yield meta["path"]

    async def list_older(self, prefix: str, *, before_s: float) -> AsyncIterator[str]:
        with _translated(prefix):
            async for page in obstore.list(self._store, prefix=prefix):
                for meta in page:
                    if meta["last_modified"].timestamp() < before_s:
                        yield meta["path"]

    async def remove_unfinished(self, prefix: str, *, before_s: float) -> int:
        root = self._store.prefix if isinstance(self._store, LocalStore) else None
        if root is None:
            return 0
        with _translated(prefix):
            return await asyncio.to_thread(_remove_staged, root / prefix, before_s)

    def _link(self, name: str, path: Path) -> bool:
        """Give a blob that is a file of this machine another name, which costs nothing."""
        root = self._store.prefix if isinstance(self._store, LocalStore) else None
        if root is None:
            return False
        try:
            path.hardlink_to(root / name)
        except OSError:  # another file system, one without links, a name written otherwise
            return False
        return True

    async def _copy(self, name: str, path: Path) -> None:
        size = (await obstore.head_async(self._store, name))["size"]
        with await asyncio.to_thread(path.open, "xb") as file:
            for start in range(0, size, _PIECE_BYTES):
                length = min(_PIECE_BYTES, size - start)
                piece = await obstore.get_range_async(self._store, name, start=start, length=length)
                await asyncio.to_thread(file.write, piece)

    def put_now(self, name: str, data: Data) -> None:
        """As `put`, waiting in this thread."""
        with _translated(name):
            obstore.put(self._store, name, data)

    def delete_now(self, name: str) -> None:
        """As `delete`, waiting in this thread."""
        try:
            with _translated(name):
                obstore.delete(self._store, name)
        except _MISSING:
            return


def _open(place: str) -> ObjectStore:
    try:
        if place.startswith(_SCHEMES):
            return from_url(place)
        if "://" in place:
            raise StorageError(
                f"A place for blobs is a folder or begins with {', '.join(_SCHEMES)}, "
                f"not with {place.partition('://')[0]!r}."
            )
        return LocalStore(Path(place).absolute(), mkdir=True, automatic_cleanup=True)
    except (BaseError, OSError, ValueError) as error:
        raise StorageError(f"The place for blobs cannot be opened: {error}.") from error


def _remove_staged(folder: Path, before_s: float) -> int:
    """Remove what obstore writes to until a blob is whole: files named `name#1`, which no blob is.

    It hides them from lists and removes them itself, unless its process is killed.
    """
    removed = 0
    for path in folder.rglob("*#*"):
        with suppress(FileNotFoundError):  # it has become whole meanwhile
            if _STAGED.fullmatch(path.name) and path.stat().st_mtime < before_s:
                path.unlink()
                removed += 1
    return removed


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except _MISSING:
        raise
    except (BaseError, OSError, ValueError) as error:  # ValueError: no such name can be
        kind = type(error).__name__  # its words would tell callers where the folder is
        raise StorageError(f"The blob {name!r} could not be read or written: {kind}.") from error
