"""Where the events of a response go that nobody keeps: to its one listener, or nowhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Final

import orjson

from openworks.core.json import JsonObject
from openworks.ports.events import NewEvents, StreamEvent
from openworks.ports.jobs import Claim
from openworks.services.responses.stream import NUMBER_FIELD, Event

MAX_UNHEARD: Final = 1024
"""Events that wait for a slow listener before its response waits for it, too."""


class LiveWriter:
    """Hands events to the one listener of a response, who hears them while it is made."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._num_events = 0
        self._queue: asyncio.Queue[StreamEvent | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(MAX_UNHEARD)

    async def put(self, name: str, body: JsonObject) -> None:
        """Hand an event over; waits while the listener is too far behind."""
        await self._room.acquire()
        self._queue.put_nowait(*self._numbered([(name, body)]))

    async def number(self, events: Sequence[Event], *, ends: bool = False) -> NewEvents:
        return NewEvents(claim=self._claim, events=self._numbered(events))

    def show(self, new: NewEvents) -> None:
        for event in new.events:
            self._queue.put_nowait(event)

    def close(self) -> None:
        """Let the listener go after what was put."""
        self._queue.put_nowait(None)

    async def events(self) -> AsyncGenerator[StreamEvent, None]:
        """Yield the events until the stream is closed."""
        while (event := await self._queue.get()) is not None:
            yield event
            self._room.release()

    def _numbered(self, events: Sequence[Event]) -> list[StreamEvent]:
        told = numbered(events, first=self._num_events)
        self._num_events += len(told)
        return told


class SilentWriter:
    """Lets events fall, for a response to which nobody listens."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim

    async def put(self, name: str, body: JsonObject) -> None:
        """Do nothing."""

    async def number(self, events: Sequence[Event], *, ends: bool = False) -> NewEvents:
        return NewEvents(claim=self._claim, events=())

    def show(self, new: NewEvents) -> None:
        """Do nothing."""


def numbered(events: Sequence[Event], *, first: int) -> list[StreamEvent]:
    """Return events with their numbers, which their bodies hold as well."""
    return [
        StreamEvent(number=number, name=name, data=orjson.dumps({**body, NUMBER_FIELD: number}))
        for number, (name, body) in enumerate(events, first)
    ]
