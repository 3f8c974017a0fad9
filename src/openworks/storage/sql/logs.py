"""The logs of gateways in SQL; what was said is in packs in the blob store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Select, and_, bindparam, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from openworks.core.errors import StorageError
from openworks.core.ids import AccountId, RequestId
from openworks.ports.blobs import Blobs
from openworks.ports.calls import CallBodies
from openworks.ports.logs import BodyInfo, LogChange, LogPage, LogQuery, StoredCall
from openworks.storage.logbook.packs import unpack
from openworks.storage.sql.database import Database
from openworks.storage.sql.log_conditions import conditions, order_columns
from openworks.storage.sql.records import record_of
from openworks.storage.sql.tables import call_records, log_counts, log_packs

_COLUMNS = call_records.c
_MAX_COUNTED: Final = 10_000
_DELETE_SLICE: Final = 500


class SqlLogStore:
    """Logs in the table `call_records`, which the log writer fills."""

    def __init__(self, database: Database, blobs: Blobs) -> None:
        self._database = database
        self._blobs = blobs

    async def list(self, query: LogQuery, *, page: int = 1, per_page: int = 20) -> LogPage:
        async with self._database.read() as connection:
            wanted = _where(connection, query)
            rows = await connection.execute(
                select(call_records)
                .where(*wanted)
                .order_by(*order_columns(query))
                .limit(per_page)
                .offset((page - 1) * per_page)
            )
            items = [_stored(row) for row in rows]
            total = await _count(connection, query, wanted)
        return LogPage(items=items, total=max(total, (page - 1) * per_page + len(items)))

    async def scan(
        self, query: LogQuery, *, batch: int = 500
    ) -> AsyncIterator[Sequence[StoredCall]]:
        last: StoredCall | None = None
        while True:
            async with self._database.read() as connection:
                found: Select[Any] = select(call_records).where(*_where(connection, query))
                if last is not None:
                    found = found.where(_is_after(last))
                found = found.order_by(_COLUMNS.created_at_s, _COLUMNS.id).limit(batch)
                items = [_stored(row) for row in await connection.execute(found)]
            if items:
                yield items
                last = items[-1]
            if len(items) < batch:
                return

    async def get(
        self, account_id: AccountId, gateway_id: str, log_id: RequestId
    ) -> StoredCall | None:
        async with self._database.read() as connection:
            return await _get(connection, _is(account_id, gateway_id, log_id))

    async def get_bodies(
        self, account_id: AccountId, gateway_id: str, log_id: RequestId
    ) -> CallBodies | None:
        query = select(call_records).where(_is(account_id, gateway_id, log_id))
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        if row is None or row.pack_id is None:
            return None
        block = await self._blobs.get_range(
            row.pack_id, start=row.block_offset, length=row.block_bytes
        )
        if block is None:
            raise StorageError(f"The bodies of log '{log_id}' are gone from the blob store.")
        both = unpack(block, offset=row.body_offset, length=row.request_bytes + row.response_bytes)
        return CallBodies(
            request=both[: row.request_bytes],
            response=both[row.request_bytes :],
            request_type=row.request_type,
            response_type=row.response_type,
            is_partial=row.is_partial,
        )

    async def change(
        self, account_id: AccountId, gateway_id: str, log_id: RequestId, change: LogChange
    ) -> StoredCall | None:
        this = _is(account_id, gateway_id, log_id)
        values: dict[str, Any] = {
            name: value
            for name in ("feedback", "score", "metadata")
            if (value := getattr(change, name)) is not None
        }
        if isinstance(said := values.get("metadata"), Mapping):
            values["metadata"] = dict(said) or None
        async with self._database.write() as connection:
            if values:
                await connection.execute(update(call_records).where(this).values(values))
            return await _get(connection, this)

    async def delete(self, query: LogQuery, *, limit: int | None = None) -> int:
        deleted = 0
        while True:
            left = _DELETE_SLICE if limit is None else min(limit - deleted, _DELETE_SLICE)
            if left <= 0:
                return deleted
            async with self._database.write() as connection:
                num_rows = await _delete_slice(connection, query, left)
            deleted += num_rows
            if num_rows < left:
                return deleted


async def _get(connection: AsyncConnection, this: ColumnElement[bool]) -> StoredCall | None:
    row = (await connection.execute(select(call_records).where(this))).first()
    return None if row is None else _stored(row)


async def _count(
    connection: AsyncConnection, query: LogQuery, wanted: Sequence[ColumnElement[bool]]
) -> int:
    if len(wanted) == len(_scope(query)):  # nothing is filtered, and the writer counts
        kept = select(log_counts.c.num_rows).where(
            log_counts.c.account_id == query.account_id,
            log_counts.c.gateway_id == query.gateway_id,
        )
        return (await connection.execute(kept)).scalar() or 0
    some = select(_COLUMNS.id).where(*wanted).limit(_MAX_COUNTED).subquery()
    return (await connection.execute(select(func.count()).select_from(some))).scalar_one()


async def _delete_slice(connection: AsyncConnection, query: LogQuery, limit: int) -> int:
    found = (
        select(_COLUMNS.id, _COLUMNS.pack_id)
        .where(*_where(connection, query))
        .order_by(*order_columns(query))
        .limit(limit)
    )
    rows = (await connection.execute(found)).all()
    if not rows:
        return 0
    ids = [row.id for row in rows]
    await connection.execute(delete(call_records).where(_COLUMNS.id.in_(ids)))
    await connection.execute(
        update(log_counts)
        .where(
            log_counts.c.account_id == query.account_id,
            log_counts.c.gateway_id == query.gateway_id,
        )
        .values(num_rows=log_counts.c.num_rows - len(rows))
    )
    packs: dict[str, int] = {}
    for row in rows:
        if row.pack_id is not None:
            packs[row.pack_id] = packs.get(row.pack_id, 0) + 1
    if packs:  # the writer deletes the blobs that no row needs
        await connection.execute(
            update(log_packs)
            .where(log_packs.c.id == bindparam("pack"))
            .values(num_rows=log_packs.c.num_rows - bindparam("gone")),
            [{"pack": pack, "gone": gone} for pack, gone in packs.items()],
        )
    return len(rows)


def _is(account_id: AccountId, gateway_id: str, log_id: RequestId) -> ColumnElement[bool]:
    return and_(
        _COLUMNS.id == log_id,
        _COLUMNS.account_id == account_id,
        _COLUMNS.gateway_id == gateway_id,
    )


def _is_after(last: StoredCall) -> ColumnElement[bool]:
    """Behind `last` in time, written so that the index on the time is used."""
    at_s = last.call.created_at_s
    return and_(
        _COLUMNS.created_at_s >= at_s,
        (_COLUMNS.created_at_s > at_s) | (_COLUMNS.id > last.call.id),
    )


def _scope(query: LogQuery) -> list[ColumnElement[bool]]:
    return [
        _COLUMNS.account_id == query.account_id,
        _COLUMNS.gateway_id == query.gateway_id,
    ]


def _where(connection: AsyncConnection, query: LogQuery) -> list[ColumnElement[bool]]:
    return [*_scope(query), *conditions(connection, query)]


def _stored(row: Row[Any]) -> StoredCall:
    bodies = None
    if row.pack_id is not None:
        bodies = BodyInfo(
            request_bytes=row.request_bytes,
            response_bytes=row.response_bytes,
            request_type=row.request_type,
            response_type=row.response_type,
            is_partial=row.is_partial,
        )
    return StoredCall(call=record_of(row), feedback=row.feedback, score=row.score, bodies=bodies)
