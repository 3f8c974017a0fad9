"""Streams of events that outlive their listeners: each is stored before anybody sees it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from openworks.ports.jobs import Claim


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEvent:
    """One event of the stream of a run or a response."""

    number: int
    """0 for the first of its stream; without gaps."""
    name: str
    data: bytes
    """What follows `data: ` on the wire: JSON, or `[DONE]`."""
    is_last: bool = False
    """Whether a listener's connection ends here; the stream itself may go on later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvents:
    """Events to be put at the end of the stream of the object that a job is about."""

    claim: Claim
    events: Sequence[StreamEvent]


class EventStore(Protocol):
    """Where events are kept until their streams are old."""

    async def append(self, batch: Sequence[NewEvents], *, now_s: float) -> Collection[Claim]:
        """Keep events of many streams in one transaction; return the claims that are lost.

        Of a lost claim, nothing is kept.
        """
        ...

    async def read(self, stream_id: str, *, after: int, limit: int) -> Sequence[StreamEvent]:
        """Return the events behind a number, in order; -1 begins at the first."""
        ...

    async def last_number(self, stream_id: str) -> int:
        """Return the number of the last event kept; -1 when there is none."""
        ...

    async def which_exist(self, places: Collection[tuple[str, int]]) -> Collection[tuple[str, int]]:
        """Return those places, each a stream and a number, at which there is an event."""
        ...

    async def delete_old(self, *, before_s: float, limit: int) -> int:
        """Delete events of streams that have no job and got none since a moment.

        Returns:
            How many; `limit` if there may be more.
        """
        ...
