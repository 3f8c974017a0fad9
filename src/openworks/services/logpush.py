"""Pushes logs of gateways to an object store: one window of time after the other, each once.

A window holds the calls that *ended* in it, since a call's row is there only then. Its objects are
named after it alone, and the mark of how far a gateway is moves after they are there: a window that
a crash interrupted is pushed again under the same names. Nothing is lost, nothing stays twice.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Final, TypeVar

import orjson
from pydantic import Field

from openworks.core.clock import Clock
from openworks.core.errors import AppError, StorageError
from openworks.core.json import JsonObject
from openworks.ports.blobs import Blobs
from openworks.ports.calls import CallBodies
from openworks.ports.document_scan import DocumentScan
from openworks.ports.documents import Document
from openworks.ports.logs import LogQuery, LogStore, StoredCall
from openworks.services.gateway_logs import log_row
from openworks.services.log_encryption import LogCipher

log = logging.getLogger(__name__)

MAX_CALL_S: Final = 3600.0
"""Calls that lasted longer are not pushed."""
_SHORT_CALL_S: Final = 120.0
_SETTLE_S: Final = 5.0
"""A window is over for so long before it is pushed: other servers' rows arrive a little later."""
_PART_BYTES: Final = 32 << 20
"""Of lines, before they are compressed; then another object begins."""
_MAX_WINDOWS: Final = 100
"""So many windows of one gateway are pushed before the next gateway has its turn."""
_MOST_FAILURES: Final = 10
"""After so many rounds, a log whose bodies cannot be read is pushed without them."""
_GZIP: Final = 31
_BATCH: Final = 100

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogpushConfig:
    """Where logs of gateways with `logpush` go."""

    destination: str | None = None
    """A folder, or a URL such as `s3://bucket/prefix`; None pushes nothing."""
    interval_s: Annotated[int, Field(ge=10, le=3600)] = 60
    """The length of a window; at most so long and a few seconds, a log waits to be pushed."""


@dataclass(frozen=True, slots=True)
class _Window:
    begin_s: int
    end_s: int

    @property
    def name(self) -> str:
        """Names the objects of this window."""
        return f"{_stamp(self.begin_s)}_{_stamp(self.end_s)}"

    @property
    def folder(self) -> str:
        """The day."""
        return datetime.fromtimestamp(self.begin_s, UTC).strftime("%Y%m%d")

    def holds(self, item: StoredCall) -> bool:
        """Whether a call ended in it."""
        ended_s = item.call.created_at_s + item.call.duration_ms / 1000
        return self.begin_s <= ended_s < self.end_s


class LogPush:
    """Pushes for all gateways; `services.background` calls it."""

    def __init__(
        self,
        scan: DocumentScan,
        logs: LogStore,
        marks: Blobs,
        destination: Blobs,
        *,
        written: Callable[[], Awaitable[None]],
        clock: Clock,
        interval_s: int,
    ) -> None:
        """Push nothing yet.

        Args:
            scan: Finds the gateways.
            logs: What is pushed.
            marks: Keep how far each gateway is; the server's own blobs.
            destination: Where logs go.
            written: Returns once every call that ended before can be found in `logs`.
            clock: Of this process.
            interval_s: The length of a window.
        """
        self._scan = scan
        self._logs = logs
        self._marks = marks
        self._destination = destination
        self._written = written
        self._clock = clock
        self._interval_s = interval_s
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="logpush")
        self._checked: set[str] = set()
        self._failures: dict[str, int] = {}
        """Mark → how many rounds in a row its gateway failed."""

    async def close(self) -> None:
        """Let the thread go."""
        await asyncio.to_thread(self._executor.shutdown)

    async def run_all(self) -> int:
        """Push every window that is over; return how many logs there were."""
        until_s = self._clock.now_s() - _SETTLE_S
        await self._written()
        count = 0
        async for batch in self._scan.scan("gateway"):
            for gateway in batch:
                if gateway.body.get("logpush") is True:
                    count += await self._push_gateway(gateway, until_s)
        return count

    async def _push_gateway(self, gateway: Document, until_s: float) -> int:
        """Push what one gateway has; its failure is not the others'."""
        count = 0
        try:
            cipher = _cipher(gateway)
            begin_s = await self._mark(gateway)
            for _ in range(_MAX_WINDOWS):
                end_s = (begin_s // self._interval_s + 1) * self._interval_s
                if end_s > until_s:
                    break
                count += await self._push(gateway, _Window(begin_s, end_s), cipher)
                begin_s = end_s
                await self._marks.put(_mark_name(gateway), orjson.dumps({"until_s": end_s}))
            self._failures.pop(_mark_name(gateway), None)
        except AppError as error:  # the mark stands where it was
            name = _mark_name(gateway)
            self._failures[name] = self._failures.get(name, 0) + 1
            log.warning(
                "logpush.failed",
                extra={
                    "account": gateway.account_id,
                    "gateway": gateway.id,
                    "error": error.message,
                },
            )
        return count

    async def _mark(self, gateway: Document) -> int:
        """Return how far a gateway is; a new one begins when it was last changed."""
        kept = await self._marks.get(_mark_name(gateway))
        if kept is None:
            begin_s = int(gateway.modified_at_s)
            return begin_s // self._interval_s * self._interval_s
        # A gateway that was deleted and made anew has nothing from before.
        until_s = int(orjson.loads(kept)["until_s"])
        return max(until_s, int(gateway.created_at_s) // self._interval_s * self._interval_s)

    async def _push(self, gateway: Document, window: _Window, cipher: LogCipher | None) -> int:
        folder = f"{gateway.account_id}/{gateway.id}/{window.folder}"
        part, count = _Part(), 0
        names: list[str] = []

        async def put() -> None:
            data = await self._in_thread(part.finish)
            names.append(f"{folder}/{window.name}_{len(names):04d}.log.gz")
            await self._destination.put(names[-1], data)

        async for item in self._calls(gateway, window):
            bodies = await self._bodies(_mark_name(gateway), item)
            await self._in_thread(partial(part.write, item, bodies, cipher))
            count += 1
            if part.size_bytes >= _PART_BYTES:
                await put()
                part = _Part()
        if part.size_bytes:
            await put()
        await self._remove_stale(gateway, folder, window, names)
        return count

    async def _calls(self, gateway: Document, window: _Window) -> AsyncIterator[StoredCall]:
        """Yield the calls that ended in a window; those that began long before are few."""
        begin_s, end_s = float(window.begin_s), float(window.end_s)
        bands = (
            (begin_s - MAX_CALL_S, begin_s - _SHORT_CALL_S, _SHORT_CALL_S * 1000),
            (begin_s - _SHORT_CALL_S, end_s, None),
        )
        for since_s, until_s, min_duration_ms in bands:
            query = LogQuery(
                account_id=gateway.account_id,
                gateway_id=gateway.id,
                since_s=since_s,
                until_s=until_s,
                min_duration_ms=min_duration_ms,
            )
            async for batch in self._logs.scan(query, batch=_BATCH):
                for item in batch:
                    if window.holds(item):
                        yield item

    async def _bodies(self, mark: str, item: StoredCall) -> CallBodies | None:
        if item.bodies is None:
            return None
        call = item.call
        place = (call.account_id, call.gateway_id, call.id)
        try:
            return await self._logs.get_bodies(*place)
        except StorageError:
            if await self._logs.get(*place) is None:
                return None  # deleted in this moment
            if self._failures.get(mark, 0) < _MOST_FAILURES:
                raise
            log.error("logpush.body_lost", extra={"gateway": call.gateway_id, "log": call.id})
            return None

    async def _remove_stale(
        self, gateway: Document, folder: str, window: _Window, names: Sequence[str]
    ) -> None:
        """Delete objects that an interrupted push of this window left and this one did not replace.

        Only the first window after a start can have been interrupted.
        """
        name = _mark_name(gateway)
        if name in self._checked:
            return
        self._checked.add(name)
        stale = [
            found
            async for found in self._destination.list(folder)
            if window.name in found and found not in names
        ]
        for found in stale:
            await self._destination.delete(found)

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


class _Part:
    """Lines on their way into one object."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._gzip = zlib.compressobj(wbits=_GZIP)
        self._pieces: list[bytes] = []

    def write(self, item: StoredCall, bodies: CallBodies | None, cipher: LogCipher | None) -> None:
        line = _line(item, bodies, cipher)
        self._pieces.append(self._gzip.compress(line))
        self.size_bytes += len(line)

    def finish(self) -> bytes:
        """Return the object."""
        return b"".join((*self._pieces, self._gzip.flush()))


def _line(item: StoredCall, bodies: CallBodies | None, cipher: LogCipher | None) -> bytes:
    """Write a log as Cloudflare pushes it, and beside that what is kept here."""
    call, row = item.call, log_row(item)
    request = b"" if bodies is None else bodies.request
    response = b"" if bodies is None else bodies.response
    line: JsonObject = {
        "Cached": call.cached,
        "Endpoint": row["path"],
        "Gateway": call.gateway_id,
        "Model": call.model,
        "Provider": call.provider,
        "RateLimited": call.error_code == "rate_limit_exceeded",
        "ID": call.id,
        "Timestamp": row["created_at"],
        "Success": row["success"],
        "StatusCode": call.status,
        "ErrorCode": call.error_code,
        "DurationMs": call.duration_ms,
        "FirstTokenMs": call.first_token_ms,
        "TokensIn": call.usage.prompt_tokens,
        "TokensOut": call.usage.completion_tokens,
        "CostUSD": call.cost_usd,
        "EventID": call.event_id,
        "KeyID": call.key_id,
        "Step": call.step,
    }
    if cipher is not None:
        metadata = orjson.dumps(dict(call.metadata))
        line |= cipher.seal(
            {"Metadata": metadata, "RequestBody": request, "ResponseBody": response}
        )
    else:
        line |= {
            "Metadata": dict(call.metadata),
            "RequestBody": request.decode("utf-8", "replace"),
            "ResponseBody": response.decode("utf-8", "replace"),
        }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _cipher(gateway: Document) -> LogCipher | None:
    """Return what seals a gateway's logs; with a key that is none, nothing is pushed at all."""
    key = gateway.body.get("logpush_public_key")
    return LogCipher(key) if isinstance(key, str) and key.strip() else None


def _mark_name(gateway: Document) -> str:
    return f"logpush/{gateway.account_id}/{gateway.id}.json"


def _stamp(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y%m%dT%H%M%SZ")
