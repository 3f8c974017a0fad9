"""Keeps bytes before what is known of them: a crash between leaves an orphan, never a gap."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable

from openworks.core.clock import Clock
from openworks.core.errors import ConflictError, PayloadTooLargeError, StorageError
from openworks.ports.blobs import Blobs

log = logging.getLogger(__name__)


class BytesFirst:
    """Puts a blob, then the row that owns it.

    What has no row may be swept once it is `orphan_after_s` old. A row that would come later than
    half of that after the beginning is not made, so no sweep meets a blob that waits for its row.
    """

    def __init__(self, blobs: Blobs, clock: Clock, *, orphan_after_s: float) -> None:
        self._blobs = blobs
        self._clock = clock
        self._orphan_after_s = orphan_after_s

    async def keep(
        self, name: str, put: Awaitable[None], insert: Callable[[], Awaitable[None]]
    ) -> None:
        """Keep a blob and then its row.

        Args:
            name: Of the blob.
            put: Puts it.
            insert: Makes its row; `ConflictError` and `PayloadTooLargeError` mean that it did not.

        Raises:
            StorageError: It could not be kept, or took too long.
        """
        begun_s = self._clock.monotonic_s()
        await put
        took_s = self._clock.monotonic_s() - begun_s
        if took_s > self._orphan_after_s / 2:
            await self.drop([name])
            raise StorageError(f"Storing the file took {took_s:.0f} seconds, so it was given up.")
        try:
            await insert()
        except (ConflictError, PayloadTooLargeError):
            await self.drop([name])
            raise

    async def drop(self, names: Iterable[str]) -> None:
        """Delete blobs whose rows are gone; what cannot be deleted now is an orphan."""
        for name in names:
            try:
                await self._blobs.delete(name)
            except StorageError as error:
                log.warning("blob.not_deleted", extra={"blob": name, "error": error.message})
