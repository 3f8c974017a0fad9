"""All indexes of a folder, opened as they are asked for, on threads of their own."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import re
import shutil
import sqlite3
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import faiss

from openworks.core.clock import Clock
from openworks.core.errors import ConflictError, NotFoundError, StorageError
from openworks.ports.vectors import (
    IdPage,
    IndexId,
    IndexInfo,
    IndexSpec,
    Match,
    Mutation,
    Search,
    VectorRow,
)
from openworks.storage.vectors.index import LocalIndex, SealConfig

log = logging.getLogger(__name__)

Result = TypeVar("Result")

_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorsConfig:
    """How much of the machine the indexes may use."""

    threads: int = 4
    """Calls that run at a time; further ones wait."""
    seal: SealConfig = SealConfig()
    max_open: int = 256
    """Indexes that are kept open; the least recently used idle one is closed."""


@dataclass(slots=True)
class _Entry:
    """An index that is open, or about to be."""

    opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    index: LocalIndex | None = None
    users: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while there are no users."""
    maintenance: asyncio.Task[None] | None = None


class LocalVectorIndexes:
    """The `VectorIndex` of one server process, in one folder: an index has a folder in it.

    Calls that are cancelled let their thread finish: a mutation is then made or not made.
    """

    def __init__(self, folder: Path, config: VectorsConfig, clock: Clock) -> None:
        self._folder = folder
        self._config = config
        self._clock = clock
        self._entries: OrderedDict[IndexId, _Entry] = OrderedDict()
        self._threads = ThreadPoolExecutor(
            config.threads, "vectors", initializer=faiss.omp_set_num_threads, initargs=(1,)
        )
        self._builder = ThreadPoolExecutor(
            1,
            "vectors-build",
            initializer=faiss.omp_set_num_threads,
            initargs=(config.seal.threads,),
        )
        self._lock_file: int | None = None

    async def open(self) -> None:
        """Take the folder.

        Raises:
            StorageError: It cannot be used, or another process uses it.
        """
        await self._run(self._take)

    async def close(self) -> None:
        """Wait for calls under way, break sealing off, and let go of the folder."""
        for entry in self._entries.values():
            if entry.index is not None:
                entry.index.end_maintenance()
        tasks = [e.maintenance for e in self._entries.values() if e.maintenance is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown()
        self._builder.shutdown()
        for entry in self._entries.values():
            if entry.index is not None:
                entry.index.close()
        self._entries.clear()
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    async def settle(self) -> None:
        """Wait until no index is being sealed or vacuumed."""
        while tasks := [e.maintenance for e in self._entries.values() if e.maintenance]:
            await asyncio.wait(tasks)

    async def create(self, index: IndexId, spec: IndexSpec) -> None:
        await self._run(self._make, index, spec)

    async def drop(self, index: IndexId) -> bool:
        entry = self._entry(index)
        async with entry.opening:
            if entry.index is not None:
                entry.index.end_maintenance()
            await entry.idle.wait()
            opened, entry.index = entry.index, None
            return await self._run(self._remove, index, opened)

    async def insert(self, index: IndexId, rows: Sequence[VectorRow], mutation: Mutation) -> int:
        return await self._change(index, lambda opened: opened.insert(rows, mutation))

    async def upsert(self, index: IndexId, rows: Sequence[VectorRow], mutation: Mutation) -> None:
        await self._change(index, lambda opened: opened.upsert(rows, mutation))

    async def delete(self, index: IndexId, ids: Sequence[str], mutation: Mutation) -> int:
        return await self._change(index, lambda opened: opened.delete(ids, mutation))

    async def get(self, index: IndexId, ids: Sequence[str]) -> list[VectorRow]:
        async with self._opened(index) as (_, opened):
            return await self._run(opened.get, ids)

    async def search(self, index: IndexId, search: Search) -> list[Match]:
        async with self._opened(index) as (_, opened):
            return await self._run(opened.search, search)

    async def list_ids(self, index: IndexId, *, count: int, cursor: str | None = None) -> IdPage:
        async with self._opened(index) as (_, opened):
            return await self._run(opened.list_ids, count, cursor)

    async def info(self, index: IndexId) -> IndexInfo:
        async with self._opened(index) as (_, opened):
            return await self._run(opened.info)

    # -- opening

    def _entry(self, index: IndexId) -> _Entry:
        entry = self._entries.get(index)
        if entry is None:
            entry = self._entries[index] = _Entry()
            entry.idle.set()
        self._entries.move_to_end(index)
        return entry

    @asynccontextmanager
    async def _opened(self, index: IndexId) -> AsyncIterator[tuple[_Entry, LocalIndex]]:
        """Hold an index open."""
        entry = self._entry(index)
        async with entry.opening:
            if entry.index is not None and entry.index.is_broken and not entry.users:
                entry.index.close()
                entry.index = None
            if entry.index is None:
                try:
                    entry.index = await self._run(self._read, index)
                except NotFoundError:
                    self._entries.pop(index, None)
                    raise
            opened = entry.index
            entry.users += 1
            entry.idle.clear()
        try:
            yield entry, opened
        finally:
            entry.users -= 1
            if not entry.users:
                entry.idle.set()
            self._close_idle()

    def _close_idle(self) -> None:
        surplus = len(self._entries) - self._config.max_open
        for index, entry in list(self._entries.items())[: max(0, surplus)]:
            if not entry.users and not entry.opening.locked():
                del self._entries[index]
                if entry.index is not None:
                    entry.index.close()

    async def _change(self, index: IndexId, change: Callable[[LocalIndex], Result]) -> Result:
        async with self._opened(index) as (entry, opened):
            async with entry.changing:  # those that wait hold no thread
                changed = await self._run(change, opened)
            if entry.maintenance is None and opened.needs_maintenance():
                entry.maintenance = asyncio.create_task(self._maintain(index, entry))
        return changed

    async def _maintain(self, index: IndexId, entry: _Entry) -> None:
        try:
            async with self._opened(index) as (_, opened):
                while opened.needs_maintenance():
                    await self._run(opened.maintain, on=self._builder)
        except StorageError as error:  # searches look at the tail meanwhile
            log.warning("vectors.maintain", extra={"index": index, "error": error.message})
        finally:
            entry.maintenance = None

    # -- on threads

    async def _run(
        self,
        call: Callable[..., Result],
        *args: object,
        on: ThreadPoolExecutor | None = None,
    ) -> Result:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(on or self._threads, call, *args)
        except (OSError, sqlite3.Error, RuntimeError) as error:  # faiss raises RuntimeError
            raise StorageError(f"The vector index cannot be used: {error}.") from error

    def _take(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock_file = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StorageError(f"Another process uses {self._folder}.") from error
        for left in self._folder.glob(".part-*"):
            shutil.rmtree(left, ignore_errors=True)

    def _make(self, index: IndexId, spec: IndexSpec) -> None:
        place = self._place(index)
        unfinished = self._folder / f".part-{uuid4().hex}"
        unfinished.mkdir()
        LocalIndex.create(unfinished, spec)
        try:
            unfinished.rename(place)
        except OSError as error:
            shutil.rmtree(unfinished)
            if not place.exists():
                raise
            raise ConflictError(f"There is an index '{index}' already.") from error

    def _read(self, index: IndexId) -> LocalIndex:
        place = self._place(index)
        if not place.exists():
            raise NotFoundError(f"No index found with id '{index}'.")
        return LocalIndex(place, self._clock, self._config.seal)

    def _remove(self, index: IndexId, opened: LocalIndex | None) -> bool:
        if opened is not None:
            opened.close()
        gone = self._folder / f".part-{uuid4().hex}"
        try:
            self._place(index).rename(gone)
        except FileNotFoundError:
            return False
        shutil.rmtree(gone, ignore_errors=True)
        return True

    def _place(self, index: IndexId) -> Path:
        if not _NAME.fullmatch(index):
            raise NotFoundError(f"No index found with id '{index}'.")
        return self._folder / index
