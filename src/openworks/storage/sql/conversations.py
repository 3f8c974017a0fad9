"""Conversations in SQL, their items in the order in which they came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, delete, exists, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from openworks.core.errors import ConflictError
from openworks.core.ids import AccountId
from openworks.core.json import JsonObject
from openworks.core.pages import Page, PageRequest
from openworks.ports.conversations import Conversation, Snapshot
from openworks.storage.sql.database import Database
from openworks.storage.sql.pages import fetch_page
from openworks.storage.sql.tables import conversation_items, conversations

_COLUMNS = conversations.c
_ITEMS = conversation_items.c


class SqlConversationStore:
    """Conversations in the table of that name; the database removes their items with them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, conversation: Conversation, items: Sequence[JsonObject] = ()) -> None:
        conflict = f"A conversation with id '{conversation.id}' is there already."
        statement = insert(conversations).values(
            id=conversation.id,
            account_id=conversation.account_id,
            created_at_s=conversation.created_at_s,
            metadata=dict(conversation.metadata),
            next_position=0,
        )
        async with self._database.write(conflict=conflict) as connection:
            await connection.execute(statement)
            await add_items(connection, conversation.account_id, conversation.id, items)

    async def get(self, account_id: AccountId, conversation_id: str) -> Conversation | None:
        query = select(conversations).where(_is(account_id, conversation_id))
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else _conversation(row)

    async def list(self, account_id: AccountId, page: PageRequest) -> Page[Conversation]:
        scope = _COLUMNS.account_id == account_id
        query = select(conversations).where(scope)
        async with self._database.read() as connection:
            rows, has_more = await fetch_page(
                connection, query, page, table=conversations, scope=scope
            )
        return Page(items=[_conversation(row) for row in rows], has_more=has_more)

    async def set_metadata(
        self, account_id: AccountId, conversation_id: str, metadata: Mapping[str, str]
    ) -> Conversation | None:
        this = _is(account_id, conversation_id)
        statement = update(conversations).where(this).values(metadata=dict(metadata))
        async with self._database.write() as connection:
            row = (await connection.execute(statement.returning(*_COLUMNS))).first()
        return None if row is None else _conversation(row)

    async def delete(self, account_id: AccountId, conversation_id: str) -> bool:
        statement = delete(conversations).where(_is(account_id, conversation_id))
        async with self._database.write() as connection:
            return (await connection.execute(statement)).rowcount > 0

    async def snapshot(self, account_id: AccountId, conversation_id: str) -> Snapshot | None:
        async with self._database.read() as connection:
            return await read_items(connection, account_id, conversation_id)

    async def append(
        self, account_id: AccountId, conversation_id: str, items: Sequence[JsonObject]
    ) -> bool:
        ids = [str(item["id"]) for item in items]
        taken = select(_ITEMS.id).where(
            _ITEMS.conversation_id == conversation_id, _ITEMS.id.in_(ids)
        )
        async with self._database.write() as connection:
            if not await add_items(connection, account_id, conversation_id, ()):
                return False
            if (found := (await connection.execute(taken)).first()) is not None:
                raise ConflictError(
                    f"The conversation '{conversation_id}' has an item with id '{found.id}' "
                    "already."
                )
            return await add_items(connection, account_id, conversation_id, items)

    async def list_items(
        self, account_id: AccountId, conversation_id: str, page: PageRequest
    ) -> Page[JsonObject] | None:
        scope = _ITEMS.conversation_id == conversation_id
        this = select(_COLUMNS.id).where(_is(account_id, conversation_id))
        async with self._database.read() as connection:
            if (await connection.execute(this)).first() is None:
                return None
            rows, has_more = await fetch_page(
                connection,
                select(conversation_items).where(scope),
                page,
                table=conversation_items,
                scope=scope,
                order=(_ITEMS.conversation_id, _ITEMS.position),
            )
        return Page(items=[row.body for row in rows], has_more=has_more)

    async def get_item(
        self, account_id: AccountId, conversation_id: str, item_id: str
    ) -> JsonObject | None:
        query = select(_ITEMS.body).where(_is_item(account_id, conversation_id, item_id))
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else row.body

    async def delete_item(self, account_id: AccountId, conversation_id: str, item_id: str) -> bool:
        this = _is_item(account_id, conversation_id, item_id)
        async with self._database.write() as connection:
            return (await connection.execute(delete(conversation_items).where(this))).rowcount > 0


async def add_items(
    connection: AsyncConnection,
    account_id: AccountId,
    conversation_id: str,
    items: Sequence[JsonObject],
) -> bool:
    """Put items at the end of a conversation, in a transaction; False when there is none.

    Nobody else adds to it, or deletes it, until the transaction ends.
    """
    claim = (
        update(conversations)
        .where(_is(account_id, conversation_id))
        .values(next_position=_COLUMNS.next_position + len(items))
        .returning(_COLUMNS.next_position)
    )
    row = (await connection.execute(claim)).first()
    if row is None:
        return False
    first = row.next_position - len(items)
    if items:
        rows = [
            {
                "conversation_id": conversation_id,
                "position": first + place,
                "id": item["id"],
                "body": item,
            }
            for place, item in enumerate(items)
        ]
        await connection.execute(insert(conversation_items), rows)
    return True


async def read_items(
    connection: AsyncConnection,
    account_id: AccountId,
    conversation_id: str,
    *,
    before: int | None = None,
) -> Snapshot | None:
    """Return a conversation's items, all or those before a place; None when there is none."""
    this = select(_COLUMNS.next_position).where(_is(account_id, conversation_id))
    row = (await connection.execute(this)).first()
    if row is None:
        return None
    position = row.next_position if before is None else before
    query = (
        select(_ITEMS.body)
        .where(_ITEMS.conversation_id == conversation_id, _ITEMS.position < position)
        .order_by(_ITEMS.position)
    )
    found = (await connection.execute(query)).all()
    return Snapshot(items=tuple(each.body for each in found), position=position)


def _is(account_id: AccountId, conversation_id: str) -> ColumnElement[bool]:
    return and_(_COLUMNS.account_id == account_id, _COLUMNS.id == conversation_id)


def _is_item(account_id: AccountId, conversation_id: str, item_id: str) -> ColumnElement[bool]:
    return and_(
        _ITEMS.conversation_id == conversation_id,
        _ITEMS.id == item_id,
        exists().where(_is(account_id, conversation_id)),
    )


def _conversation(row: Row[Any]) -> Conversation:
    return Conversation(
        id=row.id,
        account_id=row.account_id,
        created_at_s=row.created_at_s,
        metadata=row.metadata,
    )
