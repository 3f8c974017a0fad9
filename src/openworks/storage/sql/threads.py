"""Threads in SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, delete, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from openworks.core.ids import AccountId
from openworks.core.json import JsonObject
from openworks.core.pages import Page, PageRequest
from openworks.ports.threads import Message, Thread
from openworks.storage.sql.database import Database
from openworks.storage.sql.events import end_stream
from openworks.storage.sql.jobs import delete_job
from openworks.storage.sql.messages import message_values
from openworks.storage.sql.pages import fetch_page
from openworks.storage.sql.tables import ACTIVE_RUN, events, runs, threads
from openworks.storage.sql.tables import messages as message_table

_COLUMNS = threads.c


class SqlThreadStore:
    """Threads in the table of that name; the database removes their messages with them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, thread: Thread, messages: Sequence[Message] = ()) -> None:
        conflict = f"A thread with id '{thread.id}', or one of its messages, is there already."
        async with self._database.write(conflict=conflict) as connection:
            await insert_thread(connection, thread, messages)

    async def get(self, account_id: AccountId, thread_id: str) -> Thread | None:
        query = select(threads).where(_is(account_id, thread_id))
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else _thread(row)

    async def list(self, account_id: AccountId, page: PageRequest) -> Page[Thread]:
        scope = _COLUMNS.account_id == account_id
        query = select(threads).where(scope)
        async with self._database.read() as connection:
            rows, has_more = await fetch_page(connection, query, page, table=threads, scope=scope)
        return Page(items=[_thread(row) for row in rows], has_more=has_more)

    async def update(
        self,
        account_id: AccountId,
        thread_id: str,
        *,
        metadata: Mapping[str, str] | None = None,
        tool_resources: JsonObject | None = None,
    ) -> Thread | None:
        changes: dict[str, Any] = {}
        if metadata is not None:
            changes["metadata"] = dict(metadata)
        if tool_resources is not None:
            changes["tool_resources"] = tool_resources
        if not changes:
            return await self.get(account_id, thread_id)
        statement = update(threads).where(_is(account_id, thread_id)).values(changes)
        async with self._database.write() as connection:
            row = (await connection.execute(statement.returning(*_COLUMNS))).first()
        return None if row is None else _thread(row)

    async def delete(
        self,
        account_id: AccountId,
        thread_id: str,
        *,
        farewell: Sequence[tuple[str, bytes]] = (),
        now_s: float = 0.0,
    ) -> bool:
        this = _is(account_id, thread_id)
        of_thread = select(runs.c.id).where(runs.c.thread_id == thread_id)
        async with self._database.write() as connection:
            # The thread first, as whoever begins a run on it.
            locked = select(threads.c.id).where(this).with_for_update()
            if (await connection.execute(locked)).first() is None:
                return False
            active = of_thread.where(text(ACTIVE_RUN))
            run_id = (await connection.execute(active)).scalar_one_or_none()
            if run_id is not None:
                await delete_job(connection, "run", run_id)
                await end_stream(connection, run_id, farewell, now_s=now_s)
                of_thread = of_thread.where(runs.c.id != run_id)
            await connection.execute(delete(events).where(events.c.stream_id.in_(of_thread)))
            await connection.execute(delete(threads).where(this))
        return True


async def insert_thread(
    connection: AsyncConnection, thread: Thread, messages: Sequence[Message] = ()
) -> None:
    """Insert a thread with its first messages."""
    statement = insert(threads).values(
        id=thread.id,
        account_id=thread.account_id,
        created_at_s=thread.created_at_s,
        metadata=dict(thread.metadata),
        tool_resources=thread.tool_resources,
        next_position=len(messages),
        num_messages=len(messages),
    )
    await connection.execute(statement)
    rows = [message_values(each, position) for position, each in enumerate(messages)]
    if rows:
        await connection.execute(insert(message_table), rows)


def _is(account_id: AccountId, thread_id: str) -> ColumnElement[bool]:
    return and_(_COLUMNS.account_id == account_id, _COLUMNS.id == thread_id)


def _thread(row: Row[Any]) -> Thread:
    return Thread(
        id=row.id,
        account_id=row.account_id,
        created_at_s=row.created_at_s,
        metadata=row.metadata,
        tool_resources=row.tool_resources,
    )
