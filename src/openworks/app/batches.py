"""Builds what answers batches: the work on them, with this server's own routes as what answers."""

from __future__ import annotations

from collections.abc import Callable

from openworks.api.context import Services
from openworks.api.openai.batch_lines import BatchLines
from openworks.app.settings import Settings
from openworks.app.state import make_blobs
from openworks.core.clock import Clock
from openworks.services.batches.files import BatchFiles
from openworks.services.batches.work import BatchWork
from openworks.services.files import Files
from openworks.storage.sql.batches import SqlBatchStore
from openworks.storage.sql.database import Database


def make_batch_work(
    settings: Settings,
    database: Database,
    files: Files,
    services: Callable[[], Services],
    *,
    clock: Clock,
) -> BatchWork:
    """Return who brings batches to their end.

    Args:
        settings: Of the process.
        database: Keeps batches.
        files: Where requests are read.
        services: Returns what routes call; asked when the first line is answered.
        clock: Of this process.
    """
    store = SqlBatchStore(database)
    outcome = BatchFiles(
        store,
        files,
        make_blobs(settings),
        orphan_after_s=settings.files.orphan_after_s,
        clock=clock,
    )
    return BatchWork(store, files, outcome, BatchLines(services), settings.batches, clock=clock)
