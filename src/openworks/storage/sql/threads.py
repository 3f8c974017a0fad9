"""Threads in SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, delete, insert, select, update

from openworks.core.ids import AccountId
from openworks.core.json import JsonObject
from openworks.ports.threads import Message, Thread
from openworks.storage.sql.database import Database
from openworks.storage.sql.messages import message_values
from openworks.storage.sql.tables import messages as message_table
from openworks.storage.sql.tables import threads

_COLUMNS = threads.c


class SqlThreadStore:
    """Threads in the table of that name; the database removes their messages with them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, thread: Thread, messages: Sequence[Message] = ()) -> None:
        conflict = f"A thread with id '{thread.id}', or one of its messages, is there already."
        statement = insert(threads).values(
            id=thread.id,
            account_id=thread.account_id,
            created_at_s=thread.created_at_s,
            metadata=dict(thread.metadata),
            tool_resources=thread.tool_resources,
            next_position=len(messages),
            num_messages=len(messages),
        )
        rows = [message_values(each, position) for position, each in enumerate(messages)]
        async with self._database.write(conflict=conflict) as connection:
            await connection.execute(statement)
            if rows:
                await connection.execute(insert(message_table), rows)

    async def get(self, account_id: AccountId, thread_id: str) -> Thread | None:
        query = select(threads).where(_is(account_id, thread_id))
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else _thread(row)

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

    async def delete(self, account_id: AccountId, thread_id: str) -> bool:
        statement = delete(threads).where(_is(account_id, thread_id))
        async with self._database.write() as connection:
            return (await connection.execute(statement)).rowcount > 0


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
