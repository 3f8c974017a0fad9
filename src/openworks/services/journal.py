"""Streams of events: written by who holds a job's claim, followed by any number of listeners."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Annotated

import orjson
from pydantic import Field

from openworks.core.clock import Clock
from openworks.core.errors import AppError, InternalError, LeaseLostError, StorageError
from openworks.core.json import JsonObject
from openworks.ports.events import EventStore, NewEvents, StreamEvent
from openworks.ports.jobs import Claim
from openworks.services.background import Rounds

log = logging.getLogger(__name__)

_PAGE = 256
_SWEPT = 1000
_MAX_PENDING = 1024
"""Events of one stream that wait to be stored; its writer waits when there are more."""
_MAX_TAIL = 512
"""Events of one stream kept in memory for listeners; who is further behind reads the store."""
_AWAY_S = 1.0
"""Between looks while the database is away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalConfig:
    """How long events are kept, and how often others' streams are looked at."""

    keep_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3600.0
    """Seconds for which the events of a stream are kept once nobody works on it."""
    poll_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    """Seconds between looks at a stream that another server writes."""
    sweep_every_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 300.0
    """Seconds between sweeps of old events."""


@dataclass(slots=True)
class _Stream:
    """A stream that this process writes now."""

    claim: Claim
    last_number: int
    """Of the events that have a number."""
    last_stored: int
    pending: list[StreamEvent] = field(default_factory=list)
    tail: list[StreamEvent] = field(default_factory=list)
    """The newest of the events that this process has stored, in order."""
    error: AppError | None = None
    """Why nothing more can be written."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced, whenever events were stored, or the stream was left or failed."""

    def show(self, events: Sequence[StreamEvent]) -> None:
        """Let listeners see events that are stored."""
        self.tail.extend(events)
        if len(self.tail) > _MAX_TAIL:
            del self.tail[: -_MAX_TAIL // 2]
        if events:
            self.last_stored = events[-1].number
        self.wake()

    def fail(self, error: AppError) -> None:
        """Refuse all that follows: behind what was not stored, it would leave a gap."""
        self.error = error
        self.pending = []
        self.wake()

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


@dataclass(slots=True, eq=False)
class _Wait:
    """A listener of a stream that nobody writes here."""

    stream_id: str
    after: int
    is_over: asyncio.Event = field(default_factory=asyncio.Event)


class Journal:
    """Stores the events of all streams of this process together, then shows them."""

    def __init__(self, store: EventStore, config: JournalConfig, *, clock: Clock) -> None:
        self._store = store
        self._config = config
        self._clock = clock
        self._streams: dict[str, _Stream] = {}
        self._is_wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._in_store: frozenset[str] = frozenset()
        """The streams of which events are being stored at this moment."""
        self._stored = asyncio.Event()
        """Set, and replaced, when that is over."""
        self._waits: set[_Wait] = set()
        self._looks = Rounds("events.look", self._look, every_s=config.poll_s)
        self._sweeps = Rounds("events.sweep", self._sweep, every_s=config.sweep_every_s)

    def open(self) -> None:
        """Begin to store what writers put."""
        self._task = asyncio.create_task(self._store_all())
        self._looks.open()
        self._sweeps.open()

    async def close(self) -> None:
        """Stop; writers have ended before."""
        await self._sweeps.close()
        await self._looks.close()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def write(self, claim: Claim, *, number_field: str | None = None) -> StreamWriter:
        """Go on with the stream of a job's object, behind what is stored of it.

        A writer of the same stream that is still there can write no more.

        Args:
            claim: Gives the right to write.
            number_field: The field of an event's body that holds its number, if one does.

        Raises:
            LeaseLostError: This process has a newer claim already.
        """
        stream_id = claim.subject_id
        self._retire(claim)
        while stream_id in self._in_store:  # what a former writer has put, under this claim too
            await self._stored.wait()
        last = await self._store.last_number(stream_id)
        self._retire(claim)  # another one may have come meanwhile
        stream = _Stream(claim=claim, last_number=last, last_stored=last)
        self._streams[stream_id] = stream
        for wait in self._waits:
            if wait.stream_id == stream_id:
                wait.is_over.set()
        return StreamWriter(stream, self._is_wanted, self._leave, number_field)

    def _retire(self, claim: Claim) -> None:
        """End the writer that a stream has, with what it has not stored, for that of a claim."""
        if (former := self._streams.get(claim.subject_id)) is not None:
            if former.claim.token > claim.token:
                raise _lost(former)
            self._leave(former)

    async def follow(self, stream_id: str, *, after: int = -1) -> AsyncGenerator[StreamEvent, None]:
        """Yield the events behind a number, stored ones first, until one that is the last.

        Goes on for as long as none is the last, also while the database is away: the caller decides
        how long to listen to a stream that may be nobody's.
        """
        while True:
            stream = self._streams.get(stream_id)
            changed = None if stream is None else stream.changed
            try:
                found = await self._behind(stream_id, stream, after)
            except StorageError:
                await self._clock.sleep(_AWAY_S)
                continue
            for event in found:
                yield event
                after = event.number
                if event.is_last:
                    return
            if found:
                continue
            if changed is None:
                await self._news(stream_id, after)
            else:
                await changed.wait()

    async def _behind(
        self, stream_id: str, stream: _Stream | None, after: int
    ) -> Sequence[StreamEvent]:
        if stream is not None:
            if after >= stream.last_stored:
                return ()
            if stream.tail and stream.tail[0].number <= after + 1:
                return stream.tail[after + 1 - stream.tail[0].number :]
        return await self._store.read(stream_id, after=after, limit=_PAGE)

    async def _news(self, stream_id: str, after: int) -> None:
        """Return when there may be events of a stream that nobody wrote here a moment ago."""
        if stream_id in self._streams:
            return
        wait = _Wait(stream_id, after)
        self._waits.add(wait)
        try:
            await wait.is_over.wait()
        finally:
            self._waits.discard(wait)

    async def _look(self) -> None:
        """Ask once for all listeners, however many there are."""
        waits = list(self._waits)
        if not waits:
            return
        try:
            found = await self._store.which_exist({(w.stream_id, w.after + 1) for w in waits})
        except StorageError:
            await self._clock.sleep(_AWAY_S)  # each round has its line in the log
            raise
        places = set(found)
        for wait in waits:
            if (wait.stream_id, wait.after + 1) in places:
                wait.is_over.set()

    async def _store_all(self) -> None:
        """Store all that is pending in one transaction, again and again."""
        while True:
            await self._is_wanted.wait()
            self._is_wanted.clear()
            taken = [(each, each.pending) for each in self._streams.values() if each.pending]
            if taken:
                for stream, _ in taken:
                    stream.pending = []
                self._in_store = frozenset(stream.claim.subject_id for stream, _ in taken)
                await self._store_these(taken)
                self._in_store = frozenset()
                self._stored.set()
                self._stored = asyncio.Event()

    async def _store_these(self, taken: Sequence[tuple[_Stream, Sequence[StreamEvent]]]) -> None:
        """Store events and show them, or tell their writers, whose jobs then begin again."""
        batch = [NewEvents(claim=stream.claim, events=events) for stream, events in taken]
        try:
            lost = await self._store.append(batch, now_s=self._clock.now_s())
        except AppError as error:
            log.warning("events.failed", extra={"streams": len(batch), "error": error.message})
            for stream, _ in taken:
                stream.fail(StorageError(f"{_unstored(stream)}: {error.message}"))
        except Exception:
            # The boundary of one batch: the next may go well, and the log has the details.
            log.exception("events.failed", extra={"streams": len(batch)})
            for stream, _ in taken:
                stream.fail(InternalError(f"{_unstored(stream)}."))
        else:
            for stream, events in taken:
                if stream.claim in lost:
                    stream.fail(_lost(stream))
                else:
                    stream.show(events)

    def _leave(self, stream: _Stream) -> None:
        if self._streams.get(stream.claim.subject_id) is stream:
            del self._streams[stream.claim.subject_id]
        stream.fail(_lost(stream))

    async def _sweep(self) -> None:
        before_s = self._clock.now_s() - self._config.keep_s
        while await self._store.delete_old(before_s=before_s, limit=_SWEPT) == _SWEPT:
            pass


class StreamWriter:
    """Numbers the events of one stream; close it in any case.

    After any error, nothing more can be written: the job begins again from what is stored.
    """

    def __init__(
        self,
        stream: _Stream,
        is_wanted: asyncio.Event,
        leave: Callable[[_Stream], None],
        number_field: str | None,
    ) -> None:
        self._stream = stream
        self._is_wanted = is_wanted
        self._leave = leave
        self._number_field = number_field

    async def put(self, name: str, body: JsonObject) -> None:
        """Have an event stored soon, together with those of other streams, and shown then.

        Raises:
            LeaseLostError: Somebody else works on the job now.
            StorageError: What was put before could not be stored.
        """
        self._check()
        stream = self._stream
        stream.pending.append(self._numbered(name, body, stream.last_number + 1))
        stream.last_number += 1
        self._is_wanted.set()
        while len(stream.pending) > _MAX_PENDING:
            await stream.changed.wait()
        self._check()

    async def flush(self) -> None:
        """Return when all that was put is stored.

        Raises:
            LeaseLostError: Somebody else works on the job now.
            StorageError: It could not be.
        """
        stream = self._stream
        while stream.last_stored < stream.last_number and stream.error is None:
            await stream.changed.wait()
        self._check()

    async def number(
        self, events: Sequence[tuple[str, JsonObject | bytes]], *, ends: bool = False
    ) -> NewEvents:
        """Give numbers to events that a store will keep in a transaction of its own.

        What was put before is stored first. After the transaction, `show` them, before any other is
        put; after one that failed, the numbers are given anew.

        Args:
            events: Names and bodies; bytes stand as they are.
            ends: Whether listeners' connections end with the last of them.

        Raises:
            LeaseLostError: Somebody else works on the job now.
            StorageError: What was put before could not be stored.
        """
        await self.flush()
        first = self._stream.last_number + 1
        numbered = [self._numbered(*event, number) for number, event in enumerate(events, first)]
        if ends:
            numbered[-1] = replace(numbered[-1], is_last=True)
        return NewEvents(claim=self._stream.claim, events=numbered)

    def show(self, new: NewEvents) -> None:
        """Let listeners see what a store has kept."""
        if new.events:
            assert new.events[0].number == self._stream.last_number + 1
            self._stream.last_number = new.events[-1].number
        self._stream.show(new.events)

    def close(self) -> None:
        """Leave the stream; what is pending is dropped."""
        self._leave(self._stream)

    def _numbered(self, name: str, body: JsonObject | bytes, number: int) -> StreamEvent:
        if not isinstance(body, bytes):
            if self._number_field is not None:
                body = {**body, self._number_field: number}
            body = orjson.dumps(body)
        return StreamEvent(number=number, name=name, data=body)

    def _check(self) -> None:
        if self._stream.error is not None:
            raise self._stream.error


def _unstored(stream: _Stream) -> str:
    return f"The events of {stream.claim.subject_id!r} could not be stored"


def _lost(stream: _Stream) -> LeaseLostError:
    return LeaseLostError(f"The stream of {stream.claim.subject_id!r} has another writer now.")
