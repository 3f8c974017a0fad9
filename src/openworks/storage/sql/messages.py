"""Messages of threads in SQL, in the order in which they came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, delete, exists, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from openworks.core.errors import InvalidRequestError
from openworks.core.ids import AccountId
from openworks.core.pages import Page, PageRequest
from openworks.ports.threads import Message
from openworks.storage.sql.database import Database
from openworks.storage.sql.pages import fetch_page
from openworks.storage.sql.tables import ACTIVE_RUN, messages, runs, threads

_COLUMNS = messages.c


class SqlMessageStore:
    """Messages in the table of that name; their thread says whose they are."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, account_id: AccountId, message: Message, *, most: int) -> bool:
        conflict = f"A message with id '{message.id}' is there already."
        thread_id = message.thread_id
        async with self._database.write(conflict=conflict) as connection:
            if not await append_messages(connection, account_id, thread_id, [message], most=most):
                return False
            await refuse_active_run(
                connection,
                thread_id,
                "Messages cannot be added to thread '{thread}' while run '{run}' is active on it.",
            )
        return True

    async def get(self, account_id: AccountId, thread_id: str, message_id: str) -> Message | None:
        query = select(messages).where(_is(account_id, thread_id, message_id))
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else _message(row)

    async def list(
        self,
        account_id: AccountId,
        thread_id: str,
        page: PageRequest,
        *,
        run_id: str | None = None,
    ) -> Page[Message] | None:
        scope = _COLUMNS.thread_id == thread_id
        query = select(messages).where(scope)
        if run_id is not None:
            query = query.where(_COLUMNS.run_id == run_id)
        thread = select(threads.c.id).where(_owned(account_id, thread_id))
        async with self._database.read() as connection:
            if (await connection.execute(thread)).first() is None:
                return None
            rows, has_more = await fetch_page(
                connection,
                query,
                page,
                table=messages,
                scope=scope,
                order=(_COLUMNS.thread_id, _COLUMNS.position),
            )
        return Page(items=[_message(row) for row in rows], has_more=has_more)

    async def set_metadata(
        self,
        account_id: AccountId,
        thread_id: str,
        message_id: str,
        metadata: Mapping[str, str],
    ) -> Message | None:
        this = _is(account_id, thread_id, message_id)
        statement = update(messages).where(this).values(metadata=dict(metadata))
        async with self._database.write() as connection:
            row = (await connection.execute(statement.returning(*_COLUMNS))).first()
        return None if row is None else _message(row)

    async def delete(self, account_id: AccountId, thread_id: str, message_id: str) -> bool:
        # The thread first, as whoever deletes a whole thread: in another order, two could wait for
        # each other.
        thread = select(threads.c.id).where(_owned(account_id, thread_id)).with_for_update()
        one_less = (
            update(threads)
            .where(threads.c.id == thread_id)
            .values(num_messages=threads.c.num_messages - 1)
        )
        async with self._database.write() as connection:
            await connection.execute(thread)
            removal = delete(messages).where(_is(account_id, thread_id, message_id))
            if (await connection.execute(removal)).rowcount == 0:
                return False
            await connection.execute(one_less)
        return True


async def append_messages(
    connection: AsyncConnection,
    account_id: AccountId,
    thread_id: str,
    messages_: Sequence[Message],
    *,
    most: int,
) -> bool:
    """Put messages at the end of a thread, whose row stays locked; False when there is none.

    Raises:
        InvalidRequestError: The thread would hold more than `most`.
    """
    claim = (
        update(threads)
        .where(_owned(account_id, thread_id))
        .values(
            next_position=threads.c.next_position + len(messages_),
            num_messages=threads.c.num_messages + len(messages_),
        )
        .returning(threads.c.next_position, threads.c.num_messages)
    )
    thread = (await connection.execute(claim)).first()
    if thread is None:
        return False
    if messages_ and thread.num_messages > most:
        raise InvalidRequestError(
            f"Thread '{thread_id}' holds {most} messages at most, as every thread.",
            code="thread_full",
        )
    begin = thread.next_position - len(messages_)
    rows = [message_values(each, position) for position, each in enumerate(messages_, begin)]
    if rows:
        await connection.execute(insert(messages), rows)
    return True


async def refuse_active_run(connection: AsyncConnection, thread_id: str, message: str) -> None:
    """Return if no run is active on a thread, whose row is locked.

    Args:
        connection: In a transaction.
        thread_id: The thread.
        message: What the caller is told, with `{thread}` and `{run}`.

    Raises:
        InvalidRequestError: One is.
    """
    query = select(runs.c.id).where(runs.c.thread_id == thread_id, text(ACTIVE_RUN))
    run_id = (await connection.execute(query)).scalar_one_or_none()
    if run_id is not None:
        raise InvalidRequestError(message.format(thread=thread_id, run=run_id), code="run_active")


async def update_message(connection: AsyncConnection, message: Message) -> None:
    """Keep what has become of a message; one that was deleted stays so."""
    values = {
        "content": list(message.content),
        "status": message.status,
        "ended_at_s": message.ended_at_s,
        "incomplete_reason": message.incomplete_reason,
    }
    await connection.execute(update(messages).where(_COLUMNS.id == message.id).values(values))


def message_values(message: Message, position: int) -> dict[str, Any]:
    """Return the row of a message at its place in the thread."""
    return {
        "id": message.id,
        "thread_id": message.thread_id,
        "position": position,
        "created_at_s": message.created_at_s,
        "role": message.role,
        "content": list(message.content),
        "attachments": list(message.attachments),
        "metadata": dict(message.metadata),
        "run_id": message.run_id,
        "assistant_id": message.assistant_id,
        "status": message.status,
        "ended_at_s": message.ended_at_s,
        "incomplete_reason": message.incomplete_reason,
    }


def _owned(account_id: AccountId, thread_id: str) -> ColumnElement[bool]:
    return and_(threads.c.account_id == account_id, threads.c.id == thread_id)


def _is(account_id: AccountId, thread_id: str, message_id: str) -> ColumnElement[bool]:
    return and_(
        _COLUMNS.id == message_id,
        _COLUMNS.thread_id == thread_id,
        exists().where(_owned(account_id, thread_id)),
    )


def _message(row: Row[Any]) -> Message:
    return Message(
        id=row.id,
        thread_id=row.thread_id,
        created_at_s=row.created_at_s,
        role=row.role,
        content=tuple(row.content),
        attachments=tuple(row.attachments),
        metadata=row.metadata,
        run_id=row.run_id,
        assistant_id=row.assistant_id,
        status=row.status,
        ended_at_s=row.ended_at_s,
        incomplete_reason=row.incomplete_reason,
    )
