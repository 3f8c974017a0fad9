"""Removes files and uploads that have expired, and content that a crash left without an owner."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from openworks.core.clock import Clock
from openworks.ports import files as file_ports
from openworks.ports import uploads as upload_ports
from openworks.ports.blobs import Blobs
from openworks.ports.files import FileStore, blob_of
from openworks.ports.uploads import UploadStore, part_blob_of
from openworks.services.bytes_first import BytesFirst

log = logging.getLogger(__name__)

_BATCH: Final = 500
_ENDED_TTL_S: Final = 86_400
"""How long an upload that has ended can still be asked for, with a reason instead of a 404."""


class FileSweep:
    """The rounds that keep the store of files clean; several servers may do them at once."""

    def __init__(
        self,
        files: FileStore,
        uploads: UploadStore,
        blobs: Blobs,
        *,
        orphan_after_s: float,
        clock: Clock,
    ) -> None:
        self._files = files
        self._uploads = uploads
        self._blobs = blobs
        self._bytes_first = BytesFirst(blobs, clock, orphan_after_s=orphan_after_s)
        self._orphan_after_s = orphan_after_s
        self._clock = clock

    async def remove_expired(self) -> None:
        """Remove what has expired: first what is known of it, then its content."""
        now_s = self._clock.now_s()
        while file_ids := await self._files.delete_expired(now_s=now_s, limit=_BATCH):
            await self._bytes_first.drop(blob_of(file_id) for file_id in file_ids)
            log.info("files.expired", extra={"files": len(file_ids)})
        expired = True
        while expired:
            count, part_ids = await self._uploads.expire(now_s=now_s, limit=_BATCH)
            await self._bytes_first.drop(part_blob_of(part_id) for part_id in part_ids)
            expired = count > 0
        await self._uploads.delete_ended(before_s=now_s - _ENDED_TTL_S)

    async def remove_orphans(self) -> None:
        """Remove content that is old and belongs to nothing.

        What is being stored at this moment is not old: see `BytesFirst`.
        """
        before_s = self._clock.now_s() - self._orphan_after_s
        await self._remove_orphans_of(file_ports.FOLDER, before_s, self._files.known)
        await self._remove_orphans_of(upload_ports.FOLDER, before_s, self._uploads.known_parts)

    async def _remove_orphans_of(
        self,
        folder: str,
        before_s: float,
        known: Callable[[Collection[str]], Awaitable[frozenset[str]]],
    ) -> None:
        removed = await self._blobs.remove_unfinished(folder, before_s=before_s)
        names: dict[str, str] = {}
        async for name in self._blobs.list_older(folder, before_s=before_s):
            names[name.rpartition("/")[2]] = name
            if len(names) == _BATCH:
                removed += await self._drop_unknown(names, known)
                names.clear()
        removed += await self._drop_unknown(names, known)
        if removed:
            log.info("files.orphans_removed", extra={"folder": folder, "blobs": removed})

    async def _drop_unknown(
        self,
        names: dict[str, str],
        known: Callable[[Collection[str]], Awaitable[frozenset[str]]],
    ) -> int:
        orphans = names.keys() - await known(names.keys())
        await self._bytes_first.drop(names[orphan] for orphan in orphans)
        return len(orphans)
