"""Batches in SQL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, Row, and_, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from openworks.core.errors import LeaseLostError
from openworks.core.ids import AccountId
from openworks.core.pages import Page, PageRequest
from openworks.ports.batches import CANCELLABLE, Batch, BatchStatus, KeptLine, LineResult
from openworks.ports.calls import Usage
from openworks.ports.files import File
from openworks.ports.jobs import Claim, NewJob, Rest
from openworks.storage.sql.database import Database
from openworks.storage.sql.files import insert_file
from openworks.storage.sql.jobs import hold, insert_job, put_to_rest
from openworks.storage.sql.pages import fetch_page
from openworks.storage.sql.tables import batch_results, batches

_BATCHES = batches.c
_RESULTS = batch_results.c
_NO_LIMIT: Final = 1 << 62
"""What was answered is kept, however much the account keeps already."""


class SqlBatchStore:
    """Batches in the table of that name, their results beside it until they are in files."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, batch: Batch, job: NewJob) -> None:
        conflict = f"A batch with id '{batch.id}' is there already."
        async with self._database.write(conflict=conflict) as connection:
            await connection.execute(insert(batches).values(_values(batch)))
            await insert_job(connection, job)

    async def get(self, account_id: AccountId, batch_id: str) -> Batch | None:
        async with self._database.read() as connection:
            return await _find(connection, account_id, batch_id)

    async def list(self, account_id: AccountId, page: PageRequest) -> Page[Batch]:
        scope = _BATCHES.account_id == account_id
        query = select(batches).where(scope)
        async with self._database.read() as connection:
            rows, has_more = await fetch_page(connection, query, page, table=batches, scope=scope)
        return Page(items=[_batch(row) for row in rows], has_more=has_more)

    async def begin_cancel(
        self, account_id: AccountId, batch_id: str, *, at_s: float
    ) -> Batch | None:
        async with self._database.write() as connection:
            batch = await _find(connection, account_id, batch_id, for_update=True)
            if batch is not None and batch.status in CANCELLABLE:
                await _reach(connection, batch, "cancelling", at_s)
                batch = await _find(connection, account_id, batch_id)
        return batch

    async def advance(
        self,
        claim: Claim,
        status: Literal["in_progress", "finalizing"],
        *,
        at_s: float,
        num_lines: int | None = None,
        model: str | None = None,
    ) -> Batch:
        known = {"num_lines": num_lines, "model": model}
        async with self._database.write() as connection:
            # However often the server is killed before a line is answered: expiry ends the batch.
            await hold(connection, claim, is_progress=True)
            batch = await _claimed(connection, claim)
            if batch.status not in {"cancelling", status}:
                values = {name: value for name, value in known.items() if value is not None}
                await _reach(connection, batch, status, at_s, **values)
                batch = await _claimed(connection, claim)
        return batch

    async def add_results(self, claim: Claim, results: Sequence[LineResult]) -> None:
        usage = sum((each.usage for each in results), Usage())
        failed = Counter(each.is_error for each in results)
        added = {
            "num_completed": failed[False],
            "num_failed": failed[True],
            **asdict(usage),
        }
        statement = (
            update(batches)
            .where(_BATCHES.id == claim.subject_id)
            .values({name: _BATCHES[name] + number for name, number in added.items()})
        )
        rows = [
            {
                "batch_id": claim.subject_id,
                "number": each.number,
                "is_error": each.is_error,
                "size_bytes": len(each.data),
                "data": each.data,
            }
            for each in results
        ]
        async with self._database.write() as connection:
            await hold(connection, claim, is_progress=True)
            await connection.execute(insert(batch_results), rows)
            await connection.execute(statement)

    async def list_results(self, batch_id: str) -> Sequence[KeptLine]:
        query = (
            select(_RESULTS.number, _RESULTS.is_error, _RESULTS.size_bytes)
            .where(_RESULTS.batch_id == batch_id)
            .order_by(_RESULTS.number)
        )
        async with self._database.read() as connection:
            return [KeptLine(**row._mapping) for row in await connection.execute(query)]

    async def read_results(
        self, batch_id: str, *, is_error: bool, first: int, last: int
    ) -> Sequence[bytes]:
        query = (
            select(_RESULTS.data)
            .where(
                _RESULTS.batch_id == batch_id,
                _RESULTS.is_error == is_error,
                _RESULTS.number.between(first, last),
            )
            .order_by(_RESULTS.number)
        )
        async with self._database.read() as connection:
            return list((await connection.execute(query)).scalars())

    async def postpone(self, claim: Claim, *, due_at_s: float) -> None:
        async with self._database.write() as connection:
            await hold(connection, claim)
            await put_to_rest(connection, claim, Rest(due_at_s=due_at_s))

    async def finish(self, claim: Claim, batch: Batch, files: Sequence[File]) -> None:
        this = _BATCHES.id == claim.subject_id
        async with self._database.write() as connection:
            await hold(connection, claim)
            for file in files:
                await insert_file(connection, file, max_total_bytes=_NO_LIMIT)
            await connection.execute(update(batches).where(this).values(_values(batch)))
            results = _RESULTS.batch_id == claim.subject_id
            await connection.execute(delete(batch_results).where(results))
            await put_to_rest(connection, claim, Rest())


async def _find(
    connection: AsyncConnection, account_id: AccountId, batch_id: str, *, for_update: bool = False
) -> Batch | None:
    query = select(batches).where(_is(account_id, batch_id))
    if for_update:
        query = query.with_for_update()
    row = (await connection.execute(query)).first()
    return None if row is None else _batch(row)


async def _claimed(connection: AsyncConnection, claim: Claim) -> Batch:
    batch = await _find(connection, claim.account_id, claim.subject_id, for_update=True)
    if batch is None:
        raise LeaseLostError(f"The batch {claim.subject_id!r} is gone.")
    return batch


async def _reach(
    connection: AsyncConnection, batch: Batch, status: BatchStatus, at_s: float, **values: object
) -> None:
    """Bring a batch, whose row is locked, to a status."""
    changed = {"status": status, "reached_at_s": {**batch.reached_at_s, status: at_s}, **values}
    this = _BATCHES.id == batch.id
    await connection.execute(update(batches).where(this).values(changed))


def _is(account_id: AccountId, batch_id: str) -> ColumnElement[bool]:
    return and_(_BATCHES.account_id == account_id, _BATCHES.id == batch_id)


def _values(batch: Batch) -> dict[str, Any]:
    values = asdict(batch)
    allowed = batch.allowed_models
    return {
        **{name: value for name, value in values.items() if name != "usage"},
        **asdict(batch.usage),
        "allowed_models": None if allowed is None else sorted(allowed),
        "errors": list(batch.errors),
    }


def _batch(row: Row[Any]) -> Batch:
    values = dict(row._mapping)
    usage = Usage(**{name: values.pop(name) for name in Usage.__slots__})
    allowed = values["allowed_models"]
    return Batch(
        **{
            **values,
            "allowed_models": None if allowed is None else frozenset(allowed),
            "errors": tuple(values["errors"]),
            "usage": usage,
        }
    )
