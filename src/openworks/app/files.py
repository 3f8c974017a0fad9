"""Builds what keeps files: their stores, the uploads that become files, the sweep after them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from openworks.api.context import FormKind
from openworks.api.multipart import Forms
from openworks.app.settings import Settings
from openworks.app.state import make_blobs
from openworks.core.clock import Clock
from openworks.core.ids import NewId
from openworks.services.background import Rounds
from openworks.services.file_sweep import FileSweep
from openworks.services.files import Files
from openworks.services.uploads import Uploads
from openworks.storage.sql.database import Database
from openworks.storage.sql.files import SqlFileStore
from openworks.storage.sql.uploads import SqlUploadStore

_ORPHAN_ROUNDS: Final = 24
"""How often orphans are looked for within the age at which they are removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileServices:
    """What routes use of it."""

    files: Files
    uploads: Uploads


@asynccontextmanager
async def open_files(
    settings: Settings, database: Database, *, clock: Clock, new_id: NewId
) -> AsyncIterator[FileServices]:
    """Run the sweep for as long as the block lasts.

    Args:
        settings: Of the process.
        database: Keeps what is known of files.
        clock: Of this process.
        new_id: Makes ids.
    """
    config = settings.files
    blobs = make_blobs(settings)
    store, upload_store = SqlFileStore(database), SqlUploadStore(database)
    files = Files(store, blobs, config, clock=clock, new_id=new_id)
    sweep = FileSweep(store, upload_store, blobs, orphan_after_s=config.orphan_after_s, clock=clock)
    async with AsyncExitStack() as stack:
        for job in (
            Rounds("files.expired", sweep.remove_expired, every_s=config.sweep_every_s),
            Rounds(
                "files.orphans",
                sweep.remove_orphans,
                every_s=config.orphan_after_s / _ORPHAN_ROUNDS,
            ),
        ):
            job.open()
            stack.push_async_callback(job.close)
        yield FileServices(
            files=files,
            uploads=Uploads(upload_store, files, blobs, config, clock=clock, new_id=new_id),
        )


def make_forms(settings: Settings) -> Mapping[FormKind, Forms]:
    """Return the room on disk for each kind of form."""
    folder, files = settings.folder / "uploads", settings.files
    return {
        "asset": Forms(
            folder,
            max_bytes=settings.finetunes.max_bytes,
            max_uploads=settings.finetunes.max_uploads,
            timeout_s=settings.finetunes.upload_timeout_s,
        ),
        "documents": Forms(
            folder,
            max_bytes=settings.documents.max_bytes,
            max_uploads=files.max_uploads,
            timeout_s=files.upload_timeout_s,
            file_field="files",
            max_files=settings.documents.max_files,
        ),
        "file": Forms(
            folder,
            max_bytes=files.max_bytes,
            max_uploads=files.max_uploads,
            timeout_s=files.upload_timeout_s,
        ),
        "part": Forms(
            folder,
            max_bytes=files.max_part_bytes,
            max_uploads=files.max_uploads,
            timeout_s=files.upload_timeout_s,
            file_field="data",
        ),
    }
