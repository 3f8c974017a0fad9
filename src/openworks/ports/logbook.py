"""Batches of finished calls on their way to where they are kept, and the answer to each."""

from __future__ import annotations

from typing import Protocol

import msgspec

from openworks.ports.calls import CallBodies, CallRecord


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One call of a batch. A batch is a MessagePack array of these."""

    record: CallRecord
    bodies: CallBodies | None = None
    collect: bool = True
    """Whether it leaves a row; the sums count it in any case."""
    limit: int | None = None
    """The most rows that its gateway may have."""
    stops_at_limit: bool = False
    """At the limit, whether this row is left out, or else the oldest deleted."""


class Report(msgspec.Struct, frozen=True, array_like=True):
    """What became of a batch: it is in the database, or safe on disk on its way there."""

    number: int = 0
    """Of the batch; 0 for news without one."""
    lost_rows: int = 0
    """Calls that no database takes, such as counts beyond 64 bits."""
    lost_bodies: int = 0
    """Calls whose bodies were left out, as the spool file is filling up."""
    spooled_bytes: int = 0
    """What waits in the spool file for the database to come back."""
    error: str | None = None
    """Why the database does not take batches now."""


class LogSink(Protocol):
    """Keeps batches, in the order in which they come, each exactly once."""

    @property
    def last(self) -> Report:
        """The latest news."""
        ...

    @property
    def lost_rows(self) -> int:
        """Calls that no database takes, in all."""
        ...

    @property
    def lost_bodies(self) -> int:
        """Calls whose bodies were left out by the sink, in all."""
        ...

    async def write(self, batch: bytes | bytearray) -> Report:
        """Return when the batch is safe from the end of this process; waits as long as it takes.

        One call at a time.
        """
        ...

    async def replayed(self) -> None:
        """Return when everything written so far can be queried."""
        ...
