"""Writes call records in batches, off the path of the calls."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from openworks.core.clock import Clock
from openworks.core.errors import AppError
from openworks.ports.calls import CallRecord, RecordStore

log = logging.getLogger(__name__)

_MAX_WAITING = 10_000
_MAX_BATCH = 500
_GATHER_S = 0.05
_RETRY_S = 1.0


class LedgerWriter:
    """A bounded queue before the record store.

    When the store is slower than the calls, calls wait for room in the queue; when it fails, the
    batch is written again until it succeeds. A record is lost only if the process is killed in the
    50 ms before its batch is written.
    """

    def __init__(self, store: RecordStore, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._queue: asyncio.Queue[CallRecord] = asyncio.Queue(_MAX_WAITING)
        self._unwritten = 0
        self._writer: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to write."""
        self._writer = asyncio.create_task(self._write())

    async def record(self, record: CallRecord) -> None:
        await self._queue.put(record)
        self._unwritten += 1

    async def drain(self) -> None:
        """Return once everything recorded so far is in the store."""
        await self._queue.join()

    async def close(self, *, timeout_s: float = 10.0) -> None:
        """Write what is waiting, then stop; after `timeout_s` say how many are lost."""
        assert self._writer is not None
        try:
            async with asyncio.timeout(timeout_s):
                await self.drain()
        except TimeoutError:
            log.error("ledger.lost", extra={"records": self._unwritten})
        self._writer.cancel()
        with suppress(asyncio.CancelledError):
            await self._writer

    async def _write(self) -> None:
        while True:
            batch = [await self._queue.get()]
            await self._clock.sleep(_GATHER_S)
            while len(batch) < _MAX_BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            await self._write_batch(batch)
            self._unwritten -= len(batch)
            for _ in batch:
                self._queue.task_done()

    async def _write_batch(self, batch: list[CallRecord]) -> None:
        while True:
            try:
                await self._store.insert_many(batch)
            except AppError as error:
                log.warning("ledger.retry", extra={"records": len(batch), "error": error.message})
                await self._clock.sleep(_RETRY_S)
            except Exception:
                # A fault of ours, which writing again would not mend: the next batch must not wait.
                log.exception("ledger.lost", extra={"records": len(batch)})
                return
            else:
                return
