"""Builds what durable work needs: a journal of its events, and workers that bring it to rest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from openworks.app.settings import Settings
from openworks.core.clock import Clock
from openworks.core.ids import NewId
from openworks.ports.jobs import JobKind
from openworks.services.journal import Journal
from openworks.services.workers import JobHandler, Workers
from openworks.storage.sql.database import Database
from openworks.storage.sql.events import SqlEventStore
from openworks.storage.sql.jobs import SqlJobStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What services hand their work to, and read its events from."""

    journal: Journal
    workers: Workers


@asynccontextmanager
async def open_work(
    settings: Settings,
    database: Database,
    make_handlers: Callable[[Journal], Mapping[JobKind, JobHandler]],
    *,
    clock: Clock,
    new_id: NewId,
) -> AsyncIterator[Work]:
    """Work on jobs for as long as the block lasts.

    Args:
        settings: Of the process.
        database: Keeps jobs and events.
        make_handlers: Returns who knows what each kind of job is about.
        clock: Of this process.
        new_id: Names this process among the workers.
    """
    journal = Journal(SqlEventStore(database), settings.events, clock=clock)
    workers = Workers(
        SqlJobStore(database),
        make_handlers(journal),
        settings.jobs,
        clock=clock,
        new_id=new_id,
    )
    journal.open()
    workers.open()
    try:
        yield Work(journal=journal, workers=workers)
    finally:
        await workers.close()
        await journal.close()
