"""The loop of the writer process: takes batches, writes or spools them, and says so."""

from __future__ import annotations

import os
import select
import zlib
from typing import Final, TypeAlias

import msgspec

from openworks.core.clock import Clock
from openworks.ports.logbook import Report
from openworks.storage.logbook.database import DatabaseAwayError
from openworks.storage.logbook.messages import (
    BATCH_HEADER,
    decode_batch,
    encode_batch,
    encode_report,
)
from openworks.storage.logbook.retention import Caretaker
from openworks.storage.logbook.spool import Spool, SpoolFullError
from openworks.storage.logbook.writer import LogWriter

Frame: TypeAlias = tuple[int, bytes | bytearray]

_RETRY_S: Final = 0.5
_LEVEL: Final = 1  # of compression in the spool file
_REPLAY_SLICE_S: Final = 0.1
_IDLE_S: Final = 1.0
_LAST_REPLAY_S: Final = 5.0


class ServerGoneError(Exception):
    """The other end of the pipe is closed."""


class Pipe:
    """Batches in, reports out, on two file descriptors."""

    def __init__(self, batches: int, reports: int) -> None:
        self._batches = batches
        self._reports = reports

    def is_ready(self, *, within_s: float) -> bool:
        """Whether there is something to receive, be it the end."""
        return bool(select.select([self._batches], [], [], within_s)[0])

    def receive(self) -> Frame:
        """Read one batch.

        Raises:
            ServerGoneError: There will be no more.
        """
        number, length = BATCH_HEADER.unpack(self._read(BATCH_HEADER.size))
        return number, self._read(length)

    def read_line(self) -> bytes:
        """Read up to the end of a line, not a byte further."""
        line = bytearray()
        while not line.endswith(b"\n"):
            line += self._read(1)
        return bytes(line)

    def send(self, report: Report) -> None:
        """Send one report.

        Raises:
            ServerGoneError: Nobody reads it.
        """
        try:
            os.write(self._reports, encode_report(report))  # far shorter than what is atomic
        except BrokenPipeError:
            raise ServerGoneError from None

    def _read(self, length: int) -> bytearray:
        data = bytearray(length)
        rest = memoryview(data)
        while rest:
            size = os.readv(self._batches, [rest])
            if not size:
                raise ServerGoneError
            rest = rest[size:]
        return data


class Logbook:
    """Writes what comes until the server is gone."""

    def __init__(
        self,
        *,
        writer_id: str,
        pipe: Pipe,
        writer: LogWriter,
        caretaker: Caretaker,
        spool: Spool,
        clock: Clock,
    ) -> None:
        self._id = writer_id
        self._pipe = pipe
        self._writer = writer
        self._caretaker = caretaker
        self._spool = spool
        self._clock = clock
        self._retry_at_s = 0.0
        self._care_at_s = 0.0
        self._lost_rows = 0
        """While replaying; told with the next news."""

    def run(self) -> None:
        """Work until the server is gone, then write what is left."""
        try:
            self._pipe.send(Report(spooled_bytes=self._spool.waiting_bytes))
            while True:
                if self._pipe.is_ready(within_s=self._pause_s()):
                    self._take(*self._pipe.receive())
                self._work()
        except ServerGoneError:
            self._replay(for_s=_LAST_REPLAY_S)

    def _pause_s(self) -> float:
        due_s = self._retry_at_s if self._spool.waiting_bytes else self._care_at_s
        return min(max(0.0, due_s - self._clock.monotonic_s()), _IDLE_S)

    def _take(self, number: int, data: bytes | bytearray) -> None:
        """Bring one batch to safety, then report it."""
        lost_rows = lost_bodies = 0
        error = None
        if not self._spool.waiting_bytes:
            try:
                lost_rows = self._write(self._id, number, data)
            except DatabaseAwayError as away:
                error = str(away)
                self._retry_at_s = self._clock.monotonic_s() + _RETRY_S
        if error is not None or self._spool.waiting_bytes:
            lost_rows, lost_bodies = self._keep(number, data)
        self._pipe.send(
            Report(
                number=number,
                lost_rows=lost_rows,
                lost_bodies=lost_bodies,
                spooled_bytes=self._spool.waiting_bytes,
                error=error,
            )
        )

    def _write(self, writer_id: str, number: int, data: bytes | bytearray) -> int:
        entries, lost = decode_batch(data)
        return lost + self._writer.write((writer_id, number), entries)

    def _keep(self, number: int, data: bytes | bytearray) -> tuple[int, int]:
        """Spool a batch; without bodies when there is little room, and waiting when there is none.

        Returns:
            How many rows and how many bodies were lost.
        """
        packed = zlib.compress(data, _LEVEL)
        lost_bodies: int | None = None
        while True:
            if lost_bodies is None and not self._spool.has_room_for(packed):
                data, lost_bodies = _without_bodies(data)
                packed = zlib.compress(data, _LEVEL)
            try:
                self._spool.append(self._id, number, packed)
            except SpoolFullError as full:
                self._wait(str(full))
            else:
                return 0, lost_bodies or 0
            if not self._spool.waiting_bytes:
                try:
                    return self._write(self._id, number, data), lost_bodies or 0
                except DatabaseAwayError as away:
                    self._wait(str(away))

    def _wait(self, reason: str) -> None:
        """Let time pass while no batch can be kept; the server holds what comes after.

        Raises:
            ServerGoneError: It sends nothing in between, so this is its end.
        """
        self._pipe.send(Report(spooled_bytes=self._spool.waiting_bytes, error=reason))
        if self._pipe.is_ready(within_s=_RETRY_S):
            raise ServerGoneError
        self._replay(for_s=_IDLE_S)

    def _work(self) -> None:
        now_s = self._clock.monotonic_s()
        if self._spool.waiting_bytes:
            if now_s >= self._retry_at_s:
                self._replay(for_s=_REPLAY_SLICE_S)
                if not self._spool.waiting_bytes:
                    self._pipe.send(Report(lost_rows=self._lost_rows))
                    self._lost_rows = 0
        elif now_s >= self._care_at_s:
            self._care(now_s)

    def _replay(self, *, for_s: float) -> None:
        until_s = self._clock.monotonic_s() + for_s
        while self._clock.monotonic_s() < until_s and (found := self._spool.first()):
            writer_id, number, packed = found
            try:
                self._lost_rows += self._write(writer_id, number, zlib.decompress(packed))
            except DatabaseAwayError:
                self._retry_at_s = self._clock.monotonic_s() + _RETRY_S
                return
            self._spool.passed(packed)

    def _care(self, now_s: float) -> None:
        try:
            is_done = self._caretaker.work(self._clock.now_s(), self._writer.limits)
        except DatabaseAwayError:
            is_done = True
        self._care_at_s = now_s + (_IDLE_S if is_done else 0.0)


def _without_bodies(data: bytes | bytearray) -> tuple[bytes, int]:
    entries, _ = decode_batch(data)
    num_bodies = sum(entry.bodies is not None for entry in entries)
    bare = [msgspec.structs.replace(entry, bodies=None) for entry in entries]
    return encode_batch(bare), num_bodies
