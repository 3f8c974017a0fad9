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
from obstore.store import LocalStore, ObjectStore

from openworks.core.errors import StorageError
from openworks.storage.blobs.places import bucket_of, open_place
from openworks.storage.blobs.s3 import S3Config

_MISSING = (FileNotFoundError, NotFoundError)  # obstore raises one or the other
_FAILURES = (BaseError, OSError, ValueError)  # ValueError: no such name can be

_ERROR_CODE: Final = re.compile(r"<Code>(\w+)</Code>")
"""What S3, Google and Azure call what went wrong, in the XML that obstore quotes."""

_NO_ANSWER: Final = "HTTP error"
"""What obstore says of a request that no status came back for."""

_NO_BUCKET: Final = ("NoSuchBucket", "ContainerNotFound")

_PIECE_BYTES: Final = 8 << 20
"""How much of a file is in memory at once."""

_STAGED: Final = re.compile(r".+#[0-9]+")

Data: TypeAlias = bytes | bytearray | memoryview


class ObjectBlobs:
    """Blobs in an object store; the methods that end in `_now` block, for a process of their own.

    Credentials that are not given come from where a bucket's own tools find them (environment,
    instance role).
    """

    def __init__(self, place: str | ObjectStore, s3: S3Config | None = None) -> None:
        """Open a place.

        Args:
            place: A folder, made when it is not there, or a URL such as `s3://bucket/prefix`; or
                a store that is open.
            s3: How to reach a bucket of S3; None for what its own tools know.

        Raises:
            StorageError: The URL names no such service, something of `s3` is wrong, or the folder
                cannot be made.
        """
        self._store = open_place(place, s3 or S3Config()) if isinstance(place, str) else place
        self._bucket = bucket_of(place) if isinstance(place, str) else None

    async def put(self, name: str, data: Data) -> None:
        with self._translated(name):
            await obstore.put_async(self._store, name, data)

    async def put_file(self, name: str, file: BinaryIO) -> None:
        file.seek(0)
        with self._translated(name):
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
                with self._translated(name):
                    await writer.write(piece)
            with self._translated(name):
                await writer.close()
        finally:
            del writer  # one that is let go before its end removes what it wrote

    async def get(self, name: str) -> bytes | None:
        try:
            with self._sought(name):
                answer = await obstore.get_async(self._store, name)
                return bytes(await answer.bytes_async())
        except _MISSING:
            return None

    async def get_range(self, name: str, *, start: int, length: int) -> bytes | None:
        if length == 0:
            return b""
        try:
            with self._sought(name):
                found = await obstore.get_range_async(self._store, name, start=start, length=length)
        except _MISSING:
            return None
        return bytes(found)

    async def get_file(self, name: str, path: Path) -> bool:
        try:
            with self._sought(name):
                if await asyncio.to_thread(self._link, name, path):
                    return True
                await self._copy(name, path)
        except _MISSING:
            return False
        return True

    async def delete(self, name: str) -> None:
        try:
            with self._sought(name):
                await obstore.delete_async(self._store, name)
        except _MISSING:
            return

    async def list(self, prefix: str) -> AsyncIterator[str]:
        with self._translated(prefix):
            async for page in obstore.list(self._store, prefix=prefix):
                for meta in page:
                    yield meta["path"]

    async def list_older(self, prefix: str, *, before_s: float) -> AsyncIterator[str]:
        with self._translated(prefix):
            async for page in obstore.list(self._store, prefix=prefix):
                for meta in page:
                    if meta["last_modified"].timestamp() < before_s:
                        yield meta["path"]

    async def remove_unfinished(self, prefix: str, *, before_s: float) -> int:
        root = self._store.prefix if isinstance(self._store, LocalStore) else None
        if root is None:
            return 0
        with self._translated(prefix):
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
        try:
            size = (await obstore.head_async(self._store, name))["size"]
        except _MISSING:
            await obstore.get_async(self._store, name)  # says whether it is blob or bucket
            raise
        with await asyncio.to_thread(path.open, "xb") as file:
            for start in range(0, size, _PIECE_BYTES):
                length = min(_PIECE_BYTES, size - start)
                piece = await obstore.get_range_async(self._store, name, start=start, length=length)
                await asyncio.to_thread(file.write, piece)

    def put_now(self, name: str, data: Data) -> None:
        """As `put`, waiting in this thread."""
        with self._translated(name):
            obstore.put(self._store, name, data)

    def delete_now(self, name: str) -> None:
        """As `delete`, waiting in this thread."""
        try:
            with self._sought(name):
                obstore.delete(self._store, name)
        except _MISSING:
            return

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        try:
            yield
        except _FAILURES as error:
            raise self._failed(name, error) from error

    @contextmanager
    def _sought(self, name: str) -> Iterator[None]:
        """As `_translated`, but let pass that there is no such blob."""
        try:
            yield
        except _FAILURES as error:
            if isinstance(error, _MISSING) and _code_of(error) not in _NO_BUCKET:
                raise
            raise self._failed(name, error) from error

    def _failed(self, name: str, error: Exception) -> StorageError:
        # Not the error's own words, which would tell callers where a folder is.
        reason = _code_of(error) or type(error).__name__
        if _NO_ANSWER in str(error):
            reason = "it does not answer"
        where = "" if self._bucket is None else f" in {self._bucket}"
        return StorageError(f"The blob {name!r} could not be read or written{where}: {reason}.")


def _code_of(error: Exception) -> str | None:
    found = _ERROR_CODE.search(str(error))
    return found and found[1]


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
