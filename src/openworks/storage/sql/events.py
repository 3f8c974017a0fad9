"""Events of streams in SQL, each under its stream and number."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import (
    Integer,
    String,
    and_,
    column,
    delete,
    exists,
    func,
    insert,
    select,
    tuple_,
    values,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from openworks.ports.events import NewEvents, StreamEvent
from openworks.ports.jobs import Claim
from openworks.storage.sql.database import Database
from openworks.storage.sql.jobs import find_held
from openworks.storage.sql.tables import events, jobs

_COLUMNS = events.c


class SqlEventStore:
    """Events in the table of that name."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, batch: Sequence[NewEvents], *, now_s: float) -> Collection[Claim]:
        async with self._database.write() as connection:
            held = await find_held(connection, [new.claim for new in batch])
            standing = {claim.key for claim in held}
            lost: list[Claim] = []
            rows: list[dict[str, object]] = []
            for new in batch:
                if new.claim.key in standing:
                    rows += _rows(new, now_s)
                else:
                    lost.append(new.claim)
            if rows:
                await connection.execute(insert(events), rows)
        return lost

    async def read(self, stream_id: str, *, after: int, limit: int) -> Sequence[StreamEvent]:
        query = (
            select(events)
            .where(_COLUMNS.stream_id == stream_id, _COLUMNS.number > after)
            .order_by(_COLUMNS.number)
            .limit(limit)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [
            StreamEvent(
                number=row.number, name=row.name, data=row.data.encode(), is_last=row.is_last
            )
            for row in rows
        ]

    async def last_number(self, stream_id: str) -> int:
        query = select(func.max(_COLUMNS.number)).where(_COLUMNS.stream_id == stream_id)
        async with self._database.read() as connection:
            last = (await connection.execute(query)).scalar_one()
        return -1 if last is None else int(last)

    async def which_exist(self, places: Collection[tuple[str, int]]) -> Collection[tuple[str, int]]:
        if not places:
            return []
        asked = (
            values(column("stream_id", String), column("number", Integer), name="asked")
            .data(list(places))
            .cte()
        )
        is_there = and_(_COLUMNS.stream_id == asked.c.stream_id, _COLUMNS.number == asked.c.number)
        query = select(_COLUMNS.stream_id, _COLUMNS.number).join_from(asked, events, is_there)
        async with self._database.read() as connection:
            return [(row.stream_id, row.number) for row in (await connection.execute(query)).all()]

    async def delete_old(self, *, before_s: float, limit: int) -> int:
        has_job = exists().where(jobs.c.subject_id == _COLUMNS.stream_id)
        other = events.alias()
        last_kept_at_s = (
            select(other.c.kept_at_s)
            .where(other.c.stream_id == _COLUMNS.stream_id)
            .order_by(other.c.number.desc())
            .limit(1)
            .scalar_subquery()
        )
        old = (
            select(_COLUMNS.stream_id, _COLUMNS.number)
            .where(_COLUMNS.kept_at_s < before_s, ~has_job, last_kept_at_s < before_s)
            .order_by(_COLUMNS.kept_at_s)
            .limit(limit)
        )
        async with self._database.write() as connection:
            rows = (await connection.execute(old)).all()
            if rows:
                key = tuple_(_COLUMNS.stream_id, _COLUMNS.number)
                these = and_(
                    _COLUMNS.stream_id.in_({row.stream_id for row in rows}),  # uses the index
                    key.in_([tuple(row) for row in rows]),
                )
                await connection.execute(delete(events).where(these))
        return len(rows)


async def insert_events(connection: AsyncConnection, new: NewEvents, *, now_s: float) -> None:
    """Insert events in a transaction that holds their claim."""
    if rows := _rows(new, now_s):
        await connection.execute(insert(events), rows)


async def end_stream(
    connection: AsyncConnection,
    stream_id: str,
    farewell: Sequence[tuple[str, bytes]],
    *,
    now_s: float,
) -> None:
    """Delete the events of an object that is no more, but for what ends its listeners' waiting.

    Args:
        connection: In a transaction that has deleted the object's job.
        stream_id: The object.
        farewell: Names and data of the events to be left, behind all others.
        now_s: The present time.
    """
    this = _COLUMNS.stream_id == stream_id
    last = (await connection.execute(select(func.max(_COLUMNS.number)).where(this))).scalar_one()
    await connection.execute(delete(events).where(this))
    begin = 0 if last is None else last + 1
    rows = [
        {
            "stream_id": stream_id,
            "number": number,
            "name": name,
            "data": data.decode(),
            "is_last": number == begin + len(farewell) - 1,
            "kept_at_s": now_s,
        }
        for number, (name, data) in enumerate(farewell, begin)
    ]
    if rows:
        await connection.execute(insert(events), rows)


def _rows(new: NewEvents, now_s: float) -> list[dict[str, object]]:
    return [
        {
            "stream_id": new.claim.subject_id,
            "number": event.number,
            "name": event.name,
            "data": event.data.decode(),
            "is_last": event.is_last,
            "kept_at_s": now_s,
        }
        for event in new.events
    ]
