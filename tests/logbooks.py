"""A log writer and the stores that read what it wrote, over one database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from openworks.ports.calls import CallBodies, CallRecord
from openworks.ports.logbook import Entry
from openworks.storage.blobs.store import ObjectBlobs
from openworks.storage.logbook.database import LogDatabase, SqliteLogDatabase
from openworks.storage.logbook.postgres import PostgresLogDatabase
from openworks.storage.logbook.retention import Caretaker
from openworks.storage.logbook.writer import LogWriter
from openworks.storage.sql.database import Database
from openworks.storage.sql.logs import SqlLogStore
from openworks.storage.sql.records import SqlRecordStore
from openworks.storage.sql.rollups import SqlAnalytics
from tests.fakes import FakeClock

_numbers = count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Logbooks:
    """All that writes and reads logs."""

    clock: FakeClock
    database: Database
    log_database: LogDatabase
    blobs: ObjectBlobs
    writer: LogWriter
    records: SqlRecordStore
    logs: SqlLogStore
    analytics: SqlAnalytics

    async def write(self, entries: Sequence[Entry], *, number: int | None = None) -> int:
        """Write a batch as the writer process does; by default one that was never sent before."""
        batch = ("0123456789abcdef", next(_numbers) if number is None else number)
        return await asyncio.to_thread(self.writer.write, batch, entries)

    async def insert_many(self, records: Sequence[CallRecord]) -> None:
        """Write records without bodies."""
        await self.write([Entry(record=record) for record in records])

    async def insert(self, record: CallRecord, request: bytes, response: bytes) -> None:
        """Write one call with what was said."""
        bodies = CallBodies(request=request, response=response)
        await self.write([Entry(record=record, bodies=bodies)])

    async def care(self, *, max_age_s: float | None = None) -> None:
        """Do all that is due between batches."""
        caretaker = Caretaker(self.log_database, self.blobs, max_age_s=max_age_s)
        limits = self.writer.limits
        while not await asyncio.to_thread(caretaker.work, self.clock.now_s(), limits):
            pass

    async def blob_names(self) -> list[str]:
        """The packs that are there."""
        return [name async for name in self.blobs.list("logs")]


@asynccontextmanager
async def open_logbooks(
    database: Database, folder: Path, *, postgres_url: str | None, now_s: float
) -> AsyncIterator[Logbooks]:
    """Open a writer and the stores; without a URL, the database is `state.db` in the folder."""
    clock = FakeClock(now_s)
    blobs = ObjectBlobs(str(folder / "blobs"))
    log_database: LogDatabase = (
        SqliteLogDatabase(str(folder / "state.db"))
        if postgres_url is None
        else await asyncio.to_thread(PostgresLogDatabase, postgres_url)
    )
    try:
        yield Logbooks(
            clock=clock,
            database=database,
            log_database=log_database,
            blobs=blobs,
            writer=LogWriter(log_database, blobs),
            records=SqlRecordStore(database, clock=clock),
            logs=SqlLogStore(database, blobs),
            analytics=SqlAnalytics(database, clock=clock),
        )
    finally:
        await asyncio.to_thread(log_database.close)
