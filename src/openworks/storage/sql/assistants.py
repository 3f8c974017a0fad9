"""Assistants in SQL."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, and_, delete, insert, select, update

from openworks.core.ids import AccountId
from openworks.core.json import JsonObject
from openworks.core.pages import Page, PageRequest
from openworks.ports.assistants import Assistant, AssistantSettings
from openworks.storage.sql.database import Database
from openworks.storage.sql.pages import fetch_page
from openworks.storage.sql.tables import assistants

_COLUMNS = assistants.c


class SqlAssistantStore:
    """Assistants in the table of that name; their settings are one JSON document."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, assistant: Assistant) -> None:
        conflict = f"An assistant with id '{assistant.id}' is there already."
        statement = insert(assistants).values(
            id=assistant.id,
            account_id=assistant.account_id,
            created_at_s=assistant.created_at_s,
            settings=msgspec.to_builtins(assistant.settings),
        )
        async with self._database.write(conflict=conflict) as connection:
            await connection.execute(statement)

    async def get(self, account_id: AccountId, assistant_id: str) -> Assistant | None:
        query = select(assistants).where(_is(account_id, assistant_id))
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else _assistant(row)

    async def list(self, account_id: AccountId, page: PageRequest) -> Page[Assistant]:
        scope = _COLUMNS.account_id == account_id
        query = select(assistants).where(scope)
        async with self._database.read() as connection:
            rows, has_more = await fetch_page(
                connection, query, page, table=assistants, scope=scope
            )
        return Page(items=[_assistant(row) for row in rows], has_more=has_more)

    async def update(
        self, account_id: AccountId, assistant_id: str, changes: JsonObject
    ) -> Assistant | None:
        this = _is(account_id, assistant_id)
        async with self._database.write() as connection:
            # Locked while it is read, so that no other update is overwritten.
            query = select(_COLUMNS.settings).where(this).with_for_update()
            settings = (await connection.execute(query)).scalar_one_or_none()
            if settings is None:
                return None
            statement = update(assistants).where(this).values(settings={**settings, **changes})
            row = (await connection.execute(statement.returning(*_COLUMNS))).one()
        return _assistant(row)

    async def delete(self, account_id: AccountId, assistant_id: str) -> bool:
        statement = delete(assistants).where(_is(account_id, assistant_id))
        async with self._database.write() as connection:
            return (await connection.execute(statement)).rowcount > 0


def _is(account_id: AccountId, assistant_id: str) -> ColumnElement[bool]:
    return and_(_COLUMNS.account_id == account_id, _COLUMNS.id == assistant_id)


def _assistant(row: Row[Any]) -> Assistant:
    return Assistant(
        id=row.id,
        account_id=row.account_id,
        created_at_s=row.created_at_s,
        settings=msgspec.convert(row.settings, AssistantSettings),
    )
