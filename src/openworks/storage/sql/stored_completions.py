"""Stored chat completions in SQL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, delete, exists, insert, select, update

from openworks.core.ids import AccountId
from openworks.core.pages import Page, PageRequest
from openworks.ports.stored_completions import StoredCompletion
from openworks.storage.sql.database import Database, json_pairs
from openworks.storage.sql.pages import fetch_page
from openworks.storage.sql.tables import chat_completions

_COLUMNS = chat_completions.c


class SqlStoredCompletionStore:
    """Stored completions in the table `chat_completions`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, item: StoredCompletion) -> None:
        conflict = f"A completion with id '{item.id}' is stored already."
        async with self._database.write(conflict=conflict) as connection:
            await connection.execute(insert(chat_completions).values(_values(item)))

    async def get(self, account_id: AccountId, completion_id: str) -> StoredCompletion | None:
        query = select(chat_completions).where(_is(account_id, completion_id))
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else _item(row)

    async def list(
        self,
        account_id: AccountId,
        page: PageRequest,
        *,
        model: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Page[StoredCompletion]:
        scope = _COLUMNS.account_id == account_id
        query = select(chat_completions).where(scope)
        if model is not None:
            query = query.where(_COLUMNS.model == model)
        async with self._database.read() as connection:
            for key, value in (metadata or {}).items():
                pairs = json_pairs(connection, _COLUMNS.metadata)
                query = query.where(
                    exists().where(pairs.c.key == key, pairs.c.value == value).select_from(pairs)
                )
            rows, has_more = await fetch_page(
                connection, query, page, table=chat_completions, scope=scope
            )
        return Page(items=[_item(row) for row in rows], has_more=has_more)

    async def set_metadata(
        self, account_id: AccountId, completion_id: str, metadata: Mapping[str, str]
    ) -> StoredCompletion | None:
        this = _is(account_id, completion_id)
        async with self._database.write() as connection:
            await connection.execute(
                update(chat_completions).where(this).values(metadata=dict(metadata))
            )
            row = (await connection.execute(select(chat_completions).where(this))).first()
        return None if row is None else _item(row)

    async def delete(self, account_id: AccountId, completion_id: str) -> bool:
        statement = delete(chat_completions).where(_is(account_id, completion_id))
        async with self._database.write() as connection:
            return (await connection.execute(statement)).rowcount > 0


def _is(account_id: AccountId, completion_id: str) -> ColumnElement[bool]:
    return and_(_COLUMNS.account_id == account_id, _COLUMNS.id == completion_id)


def _values(item: StoredCompletion) -> dict[str, Any]:
    return {
        "id": item.id,
        "account_id": item.account_id,
        "created_at_s": item.created_at_s,
        "model": item.model,
        "metadata": dict(item.metadata),
        "messages": list(item.messages),
        "completion": item.completion,
    }


def _item(row: Row[Any]) -> StoredCompletion:
    return StoredCompletion(
        id=row.id,
        account_id=row.account_id,
        created_at_s=row.created_at_s,
        model=row.model,
        metadata=row.metadata,
        messages=tuple(row.messages),
        completion=row.completion,
    )
