"""Files in SQL."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, delete, func, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from openworks.core.errors import PayloadTooLargeError
from openworks.core.ids import AccountId
from openworks.core.pages import Page, PageRequest
from openworks.ports.files import File
from openworks.storage.sql.database import Database
from openworks.storage.sql.pages import fetch_page
from openworks.storage.sql.tables import files, upload_parts

_COLUMNS = files.c


class SqlFileStore:
    """Files in the table `files`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, file: File, *, max_total_bytes: int) -> None:
        async with self._database.write(conflict=conflict_of(file)) as connection:
            await insert_file(connection, file, max_total_bytes=max_total_bytes)

    async def get(self, account_id: AccountId, file_id: str) -> File | None:
        query = select(files).where(_is(account_id, file_id))
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else _file(row)

    async def list(
        self,
        account_id: AccountId,
        page: PageRequest,
        *,
        now_s: float,
        purpose: str | None = None,
    ) -> Page[File]:
        scope = _COLUMNS.account_id == account_id
        is_alive = or_(_COLUMNS.expires_at_s.is_(None), _COLUMNS.expires_at_s > now_s)
        query = select(files).where(scope, is_alive)
        if purpose is not None:
            query = query.where(_COLUMNS.purpose == purpose)
        async with self._database.read() as connection:
            rows, has_more = await fetch_page(connection, query, page, table=files, scope=scope)
        return Page(items=[_file(row) for row in rows], has_more=has_more)

    async def delete(self, account_id: AccountId, file_id: str) -> bool:
        async with self._database.write() as connection:
            done = await connection.execute(delete(files).where(_is(account_id, file_id)))
        return done.rowcount > 0

    async def delete_expired(self, *, now_s: float, limit: int) -> Sequence[str]:
        due = select(_COLUMNS.id).where(_COLUMNS.expires_at_s <= now_s).limit(limit)
        async with self._database.write() as connection:
            ids = list((await connection.execute(due)).scalars())
            await connection.execute(delete(files).where(_COLUMNS.id.in_(ids)))
        return ids

    async def known(self, file_ids: Collection[str]) -> frozenset[str]:
        query = select(_COLUMNS.id).where(_COLUMNS.id.in_(list(file_ids)))
        async with self._database.read() as connection:
            return frozenset((await connection.execute(query)).scalars())


async def insert_file(connection: AsyncConnection, file: File, *, max_total_bytes: int) -> None:
    """Insert a file within a transaction, as `FileStore.insert`."""
    await check_room(
        connection, file.account_id, size_bytes=file.size_bytes, max_total_bytes=max_total_bytes
    )
    await connection.execute(insert(files).values(asdict(file)))


async def check_room(
    connection: AsyncConnection, account_id: AccountId, *, size_bytes: int, max_total_bytes: int
) -> None:
    """Return if an account may keep so many bytes more, until the transaction ends.

    Raises:
        PayloadTooLargeError: It may not.
    """
    if connection.dialect.name == "postgresql":  # SQLite has one writer anyway
        turn = func.pg_advisory_xact_lock(func.hashtextextended(f"files {account_id}", 0))
        await connection.execute(turn.select())
    kept_bytes = 0
    for table in (files, upload_parts):
        total = select(func.coalesce(func.sum(table.c.size_bytes), 0))
        found = await connection.execute(total.where(table.c.account_id == account_id))
        kept_bytes += int(found.scalar_one())
    if kept_bytes + size_bytes > max_total_bytes:
        raise PayloadTooLargeError(
            f"The account keeps {kept_bytes} bytes in files and uploads; {size_bytes} more would "
            f"be over its limit of {max_total_bytes}. Delete files that are not needed.",
            code="storage_limit_exceeded",
        )


def conflict_of(file: File) -> str:
    """Say that a file's id is taken."""
    return f"A file with id '{file.id}' exists already."


def _is(account_id: AccountId, file_id: str) -> ColumnElement[bool]:
    return and_(_COLUMNS.account_id == account_id, _COLUMNS.id == file_id)


def _file(row: Row[Any]) -> File:
    return File(**row._mapping)
