"""Uploads and their parts in SQL."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from openworks.core.errors import PayloadTooLargeError
from openworks.core.ids import AccountId
from openworks.ports.files import File
from openworks.ports.uploads import Part, Upload
from openworks.storage.sql.database import Database
from openworks.storage.sql.files import check_room, conflict_of, insert_file
from openworks.storage.sql.tables import upload_parts, uploads

_UPLOADS = uploads.c
_PARTS = upload_parts.c


class SqlUploadStore:
    """Uploads in the tables `uploads` and `upload_parts`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, upload: Upload) -> None:
        async with self._database.write() as connection:
            await connection.execute(insert(uploads).values(_values(upload)))

    async def get(self, account_id: AccountId, upload_id: str) -> Upload | None:
        query = select(uploads).where(_is(account_id, upload_id))
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else _upload(row)

    async def list_parts(self, upload_id: str) -> Sequence[Part]:
        query = select(upload_parts).where(_PARTS.upload_id == upload_id)
        async with self._database.read() as connection:
            return [_part(row) for row in await connection.execute(query)]

    async def add_part(
        self, part: Part, *, max_parts: int, max_upload_bytes: int, max_total_bytes: int
    ) -> bool:
        count_and_size = select(func.count(), func.coalesce(func.sum(_PARTS.size_bytes), 0)).where(
            _PARTS.upload_id == part.upload_id
        )
        async with self._database.write() as connection:
            if not await _is_pending(connection, part.account_id, part.upload_id):
                return False
            count, size_bytes = (await connection.execute(count_and_size)).one()
            if count >= max_parts or size_bytes + part.size_bytes > max_upload_bytes:
                raise PayloadTooLargeError(
                    f"The upload {part.upload_id!r} has {count} parts of {size_bytes} bytes; one "
                    f"of {part.size_bytes} more would be over the limit of {max_parts} parts and "
                    f"{max_upload_bytes} bytes."
                )
            await check_room(
                connection,
                part.account_id,
                size_bytes=part.size_bytes,
                max_total_bytes=max_total_bytes,
            )
            await connection.execute(insert(upload_parts).values(asdict(part)))
        return True

    async def complete(
        self, upload: Upload, file: File, *, max_total_bytes: int
    ) -> Sequence[str] | None:
        async with self._database.write(conflict=conflict_of(file)) as connection:
            if not await _is_pending(connection, upload.account_id, upload.id):
                return None
            part_ids = await _forget_parts(connection, [upload.id])
            await insert_file(connection, file, max_total_bytes=max_total_bytes)
            this = _UPLOADS.id == upload.id
            await connection.execute(update(uploads).where(this).values(_values(upload)))
        return part_ids

    async def cancel(self, account_id: AccountId, upload_id: str) -> Sequence[str] | None:
        async with self._database.write() as connection:
            if not await _is_pending(connection, account_id, upload_id):
                return None
            this = _UPLOADS.id == upload_id
            await connection.execute(update(uploads).where(this).values(status="cancelled"))
            return await _forget_parts(connection, [upload_id])

    async def expire(self, *, now_s: float, limit: int) -> tuple[int, Sequence[str]]:
        is_due = and_(_UPLOADS.status == "pending", _UPLOADS.expires_at_s <= now_s)
        due = select(_UPLOADS.id).where(is_due).limit(limit).with_for_update(skip_locked=True)
        async with self._database.write() as connection:
            ids = list((await connection.execute(due)).scalars())
            these = _UPLOADS.id.in_(ids)
            await connection.execute(update(uploads).where(these).values(status="expired"))
            return len(ids), await _forget_parts(connection, ids)

    async def delete_ended(self, *, before_s: float) -> None:
        has_ended = and_(_UPLOADS.status != "pending", _UPLOADS.expires_at_s < before_s)
        async with self._database.write() as connection:
            await connection.execute(delete(uploads).where(has_ended))

    async def known_parts(self, part_ids: Collection[str]) -> frozenset[str]:
        query = select(_PARTS.id).where(_PARTS.id.in_(list(part_ids)))
        async with self._database.read() as connection:
            return frozenset((await connection.execute(query)).scalars())


async def _is_pending(connection: AsyncConnection, account_id: AccountId, upload_id: str) -> bool:
    """Whether an upload takes parts, which no other transaction can change until this one ends."""
    query = select(_UPLOADS.status).where(_is(account_id, upload_id)).with_for_update()
    return (await connection.execute(query)).scalar() == "pending"


async def _forget_parts(connection: AsyncConnection, upload_ids: Collection[str]) -> Sequence[str]:
    theirs = _PARTS.upload_id.in_(upload_ids)
    ids = list((await connection.execute(select(_PARTS.id).where(theirs))).scalars())
    await connection.execute(delete(upload_parts).where(theirs))
    return ids


def _is(account_id: AccountId, upload_id: str) -> ColumnElement[bool]:
    return and_(_UPLOADS.account_id == account_id, _UPLOADS.id == upload_id)


def _values(upload: Upload) -> dict[str, Any]:
    return {**asdict(upload), "part_ids": list(upload.part_ids)}


def _upload(row: Row[Any]) -> Upload:
    return Upload(**{**row._mapping, "part_ids": tuple(row.part_ids)})


def _part(row: Row[Any]) -> Part:
    return Part(**row._mapping)
