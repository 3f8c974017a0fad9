"""The writer process as the server sees it: started, kept alive, fed, and ended."""

from __future__ import annotations

import asyncio
import logging
import secrets
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from openworks.core.clock import Clock
from openworks.ports.logbook import Report
from openworks.storage.blobs.s3 import S3Config
from openworks.storage.logbook.messages import (
    BATCH_HEADER,
    REPORT_HEADER,
    Start,
    decode_report,
    encode_start,
)

log = logging.getLogger(__name__)

_BACKOFF_S: Final = (0.0, 0.1, 0.5, 2.0, 10.0)
_STABLE_S: Final = 30.0
_SAY_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolConfig:
    """What is kept on disk while the database is away."""

    spool_max_bytes: Annotated[int, Field(ge=1 << 20)] = 1 << 30
    """Room for batches: from the half on without bodies; at the end, calls wait in memory."""
    max_age_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Logs older than this are deleted; sums stay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogbookPlaces:
    """Where the process writes."""

    dialect: Literal["sqlite", "postgresql"]
    address: str = field(repr=False)
    """A file's path, or a DSN, which may hold a password."""
    blobs: str
    """As `ObjectBlobs` takes it."""
    s3: S3Config = S3Config()
    """If that is in a bucket of S3."""
    spool: Path
    """A folder."""


class LogbookProcess:
    """Keeps one writer process alive. Implements `ports.logbook.LogSink`.

    A batch is sent again to the next process until one says that it is safe; the number on it
    keeps that from being written twice.
    """

    def __init__(
        self, places: LogbookPlaces, config: SpoolConfig | None = None, *, clock: Clock
    ) -> None:
        config = config or SpoolConfig()
        self._start = Start(
            writer=secrets.token_hex(8),
            dialect=places.dialect,
            address=places.address,
            blobs=places.blobs,
            s3=places.s3,
            spool=str(places.spool),
            spool_max_bytes=config.spool_max_bytes,
            max_age_s=config.max_age_s,
        )
        self._clock = clock
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._number = 0
        self._unsafe: bytes | bytearray | None = None
        self._answer: asyncio.Future[Report] | None = None
        self._replayed = asyncio.Event()
        self._said_at_s = -_SAY_EVERY_S
        self.last = Report()
        """The latest news, of any kind."""
        self.lost_rows = 0
        """Calls that no database takes, in all."""
        self.lost_bodies = 0
        """Calls whose bodies were left out of the spool file, in all."""

    @property
    def pid(self) -> int | None:
        """The process of this moment."""
        return None if self._process is None else self._process.pid

    async def open(self) -> None:
        """Start the process."""
        self._keeper = asyncio.create_task(self._keep())

    async def write(self, batch: bytes | bytearray) -> Report:
        self._number += 1
        self._unsafe = batch
        self._answer = asyncio.get_running_loop().create_future()
        try:
            self._send()
            return await self._answer
        finally:
            self._unsafe = self._answer = None

    async def replayed(self) -> None:
        await self._replayed.wait()

    async def close(self, *, timeout_s: float = 10.0) -> None:
        """End its input and wait until it has written what it was sent; kill it after a while."""
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
        if self._process is not None:
            await _end(self._process, timeout_s=timeout_s)
            self._process = None

    async def _keep(self) -> None:
        failures = 0
        while True:
            started_s = self._clock.monotonic_s()
            try:
                self._process = await self._spawn()
            except OSError as error:
                log.error("logbook.start_failed", extra={"error": str(error)})
            else:
                self._send()
                await self._read(self._process)
                status = await self._process.wait()
                log.error("logbook.died", extra={"status": status})
            self._replayed.clear()
            if self._clock.monotonic_s() - started_s > _STABLE_S:
                failures = 0
            await self._clock.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
            failures += 1

    async def _spawn(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "openworks.storage.logbook",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C in the terminal is ours to pass on
        )
        assert process.stdin is not None
        process.stdin.write(encode_start(self._start))
        return process

    def _send(self) -> None:
        """Send the batch that waits for its answer, if there are both a batch and a process."""
        process = self._process
        if self._unsafe is None or process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        if not process.stdin.is_closing():
            process.stdin.write(BATCH_HEADER.pack(self._number, len(self._unsafe)))
            process.stdin.write(self._unsafe)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Take reports until there are no more."""
        assert process.stdout is not None
        try:
            while True:
                (length,) = REPORT_HEADER.unpack(
                    await process.stdout.readexactly(REPORT_HEADER.size)
                )
                self._take(decode_report(await process.stdout.readexactly(length)))
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    def _take(self, report: Report) -> None:
        self.last = report
        self.lost_rows += report.lost_rows
        self.lost_bodies += report.lost_bodies
        if report.spooled_bytes:
            self._replayed.clear()
        else:
            self._replayed.set()
        self._say(report)
        answer = self._answer
        if report.number == self._number and answer is not None and not answer.done():
            answer.set_result(report)

    def _say(self, report: Report) -> None:
        is_news = report.error or report.lost_rows or report.lost_bodies
        now_s = self._clock.monotonic_s()
        if is_news and now_s - self._said_at_s >= _SAY_EVERY_S:
            self._said_at_s = now_s
            log.warning(
                "logbook.trouble",
                extra={
                    "error": report.error,
                    "spooled_bytes": report.spooled_bytes,
                    "lost_rows": self.lost_rows,
                    "lost_bodies": self.lost_bodies,
                },
            )


async def _end(process: asyncio.subprocess.Process, *, timeout_s: float) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(timeout_s):
            await process.stdout.read()  # to its end; nobody else reads it any more
            await process.wait()
    except TimeoutError:
        log.error("logbook.killed", extra={"after_s": timeout_s})
        process.kill()
        await process.wait()
    with suppress(ConnectionError):  # it died before it had read everything
        await process.stdin.wait_closed()
