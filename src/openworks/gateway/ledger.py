"""Takes the record of every call at once, and brings it to the logs in batches, off its path."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from pydantic import Field

from openworks.core.clock import Clock
from openworks.ports.calls import CallBodies, CallRecord
from openworks.ports.gateways import LogPolicy
from openworks.ports.logbook import LogSink

log = logging.getLogger(__name__)

_GATHER_S: Final = 0.05
_BATCH_BYTES: Final = 1 << 20
_SAY_EVERY_S: Final = 1.0
_ARRAY: Final = 0xDD  # MessagePack: an array whose length follows as 32 bits
_COUNT: Final = struct.Struct(">I")
_EMPTY: Final = bytes((_ARRAY, 0, 0, 0, 0))
_DEFAULT_POLICY: Final = LogPolicy()


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerConfig:
    """How much may wait in memory for the log writer."""

    max_bytes: Annotated[int, Field(ge=1 << 20)] = 32 << 20
    """At three quarters, bodies of further calls are left out; at the end, their records too."""
    max_body_bytes: Annotated[int, Field(ge=0)] = 10_000_000
    """Of one call, request and response together; what is longer is cut."""


class Ledger:
    """Records wait here, encoded, for the sink. Implements `ports.recorder.Recorder`.

    Nothing waits for a disk, and nothing grows without bound: when the sink is far behind, first
    bodies and then whole records are left out, counted, and said so once a second.
    """

    def __init__(self, sink: LogSink, *, clock: Clock, config: LedgerConfig | None = None) -> None:
        config = config or LedgerConfig()
        self._lost_rows = 0
        self._lost_bodies = 0
        self._sink = sink
        self._clock = clock
        self._max_bytes = config.max_bytes
        self._max_bytes_with_bodies = config.max_bytes * 3 // 4
        self._max_body_bytes = config.max_body_bytes
        self._buffer = bytearray(_EMPTY)
        self._count = 0
        self._sealed: deque[tuple[bytearray, int]] = deque()
        self._sealed_bytes = 0
        self._recorded = 0
        self._settled = 0
        self._wake = asyncio.Event()
        self._progress = asyncio.Condition()
        self._writer: asyncio.Task[None] | None = None
        self._said_at_s = -_SAY_EVERY_S
        self._encode_into: Callable[[object, bytearray, int], None] = (
            msgspec.msgpack.Encoder().encode_into
        )

    @property
    def waiting_bytes(self) -> int:
        """What the sink has not taken yet."""
        return self._sealed_bytes + len(self._buffer) - len(_EMPTY)

    @property
    def spooled_bytes(self) -> int:
        """What the sink keeps in a file while the database is away."""
        return self._sink.last.spooled_bytes

    @property
    def lost_rows(self) -> int:
        """Records that found no room, or that no database takes, in all."""
        return self._lost_rows + self._sink.lost_rows

    @property
    def lost_bodies(self) -> int:
        """Records whose bodies found no room, in all."""
        return self._lost_bodies + self._sink.lost_bodies

    def open(self) -> None:
        """Begin to write."""
        self._writer = asyncio.create_task(self._write())

    def record(
        self,
        record: CallRecord,
        bodies: CallBodies | None = None,
        *,
        policy: LogPolicy | None = None,
    ) -> None:
        if policy is None:
            policy = _DEFAULT_POLICY
        buffer = self._buffer
        begin = len(buffer)
        waiting = self._sealed_bytes + begin
        if bodies is not None:
            if not (policy.payloads and policy.collect):
                bodies = None
            elif waiting > self._max_bytes_with_bodies:
                bodies = None
                self._lost_bodies += 1
                self._say_lost()
            elif len(bodies.request) + len(bodies.response) > self._max_body_bytes:
                bodies = _cut(bodies, self._max_body_bytes)
        if waiting > self._max_bytes:
            self._lose()
            return
        is_stopping = policy.strategy == "STOP_INSERTING"
        try:  # the fields of `ports.logbook.Entry`, without making one
            self._encode_into(
                (record, bodies, policy.collect, policy.limit, is_stopping), buffer, begin
            )
        except (UnicodeEncodeError, OverflowError, TypeError) as error:  # a fault of its maker
            del buffer[begin:]
            log.error("ledger.unwritable", extra={"request_id": record.id, "error": str(error)})
            self._lose()
            return
        self._recorded += 1
        self._count += 1
        if self._count == 1:
            self._wake.set()
        if begin > _BATCH_BYTES:
            self._seal()

    async def drain(self) -> None:
        """Return once everything recorded so far can be queried."""
        await self._until_safe()
        await self._sink.replayed()

    async def close(self, *, timeout_s: float = 10.0) -> None:
        """Bring what is waiting to safety, then stop; after `timeout_s` say how many are lost."""
        assert self._writer is not None
        try:
            async with asyncio.timeout(timeout_s):
                await self._until_safe()
        except TimeoutError:
            log.error("ledger.lost", extra={"records": self._recorded - self._settled})
        self._writer.cancel()
        with suppress(asyncio.CancelledError):
            await self._writer

    async def _until_safe(self) -> None:
        recorded = self._recorded
        async with self._progress:
            await self._progress.wait_for(lambda: self._settled >= recorded)

    def _seal(self) -> None:
        _COUNT.pack_into(self._buffer, 1, self._count)
        self._sealed.append((self._buffer, self._count))
        self._sealed_bytes += len(self._buffer)
        self._buffer = bytearray(_EMPTY)
        self._count = 0

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            if not self._sealed:
                await self._clock.sleep(_GATHER_S)
            self._wake.clear()
            if self._count:
                self._seal()
            while self._sealed:
                await self._write_batch(*self._sealed[0])

    async def _write_batch(self, batch: bytearray, count: int) -> None:
        try:
            await self._sink.write(batch)
        except Exception:
            # A fault of ours, which writing again would not mend: the next batch must not wait.
            log.exception("ledger.lost", extra={"records": count})
            self._lost_rows += count
        self._sealed.popleft()
        self._sealed_bytes -= len(batch)
        async with self._progress:
            self._settled += count
            self._progress.notify_all()

    def _lose(self) -> None:
        self._lost_rows += 1
        self._say_lost()

    def _say_lost(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._said_at_s >= _SAY_EVERY_S:
            self._said_at_s = now_s
            log.error(
                "ledger.full",
                extra={"lost_rows": self._lost_rows, "lost_bodies": self._lost_bodies},
            )


def _cut(bodies: CallBodies, limit: int) -> CallBodies:
    """Keep the beginnings; a body that is short leaves its room to the other."""
    request_bytes = max(limit // 2, limit - len(bodies.response))
    request = bodies.request[:request_bytes]
    return msgspec.structs.replace(
        bodies,
        request=request,
        response=bodies.response[: limit - len(request)],
        is_partial=True,
    )
