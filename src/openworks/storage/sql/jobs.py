"""Jobs in SQL, and what the stores of their objects do with them in their own transactions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, case, delete, insert, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from openworks.core.errors import LeaseLostError
from openworks.core.ids import AccountId
from openworks.ports.jobs import Claim, JobKind, Lease, NewJob, Rest
from openworks.storage.sql.database import Database
from openworks.storage.sql.tables import jobs

_COLUMNS = jobs.c
_LONG_AGO_S = 0.0


class SqlJobStore:
    """Jobs in the table of that name."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim_due(
        self, kinds: Collection[JobKind], lease: Lease, *, now_s: float, limit: int
    ) -> Sequence[Claim]:
        due = (
            select(_COLUMNS.kind, _COLUMNS.subject_id)
            .where(_COLUMNS.kind.in_(list(kinds)), _COLUMNS.due_at_s <= now_s, _is_nobodys(now_s))
            .order_by(_COLUMNS.due_at_s)
            .limit(limit)
        )
        async with self._database.read() as connection:  # most looks find nothing, and lock nothing
            if (await connection.execute(due)).first() is None:
                return []
        async with self._database.write() as connection:
            found = (await connection.execute(due.with_for_update(skip_locked=True))).all()
            if not found:
                return []
            key = tuple_(_COLUMNS.subject_id, _COLUMNS.kind)
            these = and_(
                _COLUMNS.subject_id.in_([row.subject_id for row in found]),
                key.in_([(row.subject_id, row.kind) for row in found]),
            )
            rows = (await connection.execute(_taken(these, lease))).all()
        return [_claim(row) for row in rows]

    async def claim_one(
        self, kind: JobKind, subject_id: str, lease: Lease, *, now_s: float
    ) -> Claim | None:
        this = and_(_of(kind, subject_id), _is_nobodys(now_s))
        async with self._database.write() as connection:
            row = (await connection.execute(_taken(this, lease))).first()
        return None if row is None else _claim(row)

    async def renew(self, claims: Sequence[Claim], lease: Lease) -> Sequence[Claim]:
        async with self._database.write() as connection:
            held = await find_held(connection, claims)
            statement = update(jobs).where(_any_of(held)).values(leased_until_s=lease.until_s)
            if held:
                await connection.execute(statement)
        return held

    async def release(self, claim: Claim, *, due_at_s: float, counts: bool = True) -> None:
        attempt = _COLUMNS.attempt if counts else _COLUMNS.attempt - 1
        statement = update(jobs).where(_held(claim)).values(**_released(due_at_s), attempt=attempt)
        async with self._database.write() as connection:
            await connection.execute(statement)

    async def request_cancel(self, kind: JobKind, subject_id: str) -> bool:
        wish = {"is_cancelled": True, "due_at_s": _LONG_AGO_S}
        statement = update(jobs).where(_of(kind, subject_id)).values(**wish)
        async with self._database.write() as connection:
            return (await connection.execute(statement)).rowcount > 0


async def insert_job(connection: AsyncConnection, job: NewJob) -> None:
    """Insert a job in the transaction that inserts its object."""
    lease = job.lease
    row = {
        "kind": job.kind,
        "subject_id": job.subject_id,
        "account_id": job.account_id,
        "due_at_s": job.due_at_s,
        "worker": None if lease is None else lease.worker,
        "leased_until_s": _LONG_AGO_S if lease is None else lease.until_s,
        "token": 0 if lease is None else job.claim.token,
        "attempt": 0 if lease is None else job.claim.attempt,
        "is_cancelled": False,
    }
    await connection.execute(insert(jobs).values(row))


async def find_held(connection: AsyncConnection, claims: Collection[Claim]) -> Sequence[Claim]:
    """Return the claims that stand, as they are now, and go on to until the transaction ends."""
    # Locked in one order everywhere, so that no two transactions wait for each other.
    query = (
        select(jobs)
        .where(_any_of(claims))
        .order_by(_COLUMNS.subject_id, _COLUMNS.kind)
        .with_for_update()
    )
    return [_claim(row) for row in (await connection.execute(query)).all()]


async def hold(connection: AsyncConnection, claim: Claim, *, is_progress: bool = False) -> None:
    """Return if a claim still stands, which it then does until the transaction ends.

    Args:
        connection: In a transaction.
        claim: Of this process, it thinks.
        is_progress: Whether what is written will not be done again; attempts then count anew.

    Raises:
        LeaseLostError: Somebody else has claimed the job, or it is gone.
    """
    if not await find_held(connection, [claim]):
        raise LeaseLostError(f"The work on {claim.subject_id!r} was taken over by another server.")
    if is_progress:
        await connection.execute(update(jobs).where(_held(claim)).values(attempt=1))


async def put_to_rest(connection: AsyncConnection, claim: Claim, rest: Rest) -> None:
    """End a claim that `hold` has found to stand."""
    if rest.due_at_s is None:
        await connection.execute(delete(jobs).where(_held(claim)))
    else:
        # Whoever was asked for its end a moment ago has not heard of it yet.
        due_at_s = case((_COLUMNS.is_cancelled, _LONG_AGO_S), else_=rest.due_at_s)
        values = _released(due_at_s)
        await connection.execute(update(jobs).where(_held(claim)).values(**values, attempt=0))


async def make_due(
    connection: AsyncConnection, kind: JobKind, subject_id: str, *, now_s: float
) -> None:
    """Let a job that waits for its caller be claimed from now on: it has got what it needs."""
    await connection.execute(update(jobs).where(_of(kind, subject_id)).values(due_at_s=now_s))


async def delete_job(connection: AsyncConnection, kind: JobKind, subject_id: str) -> None:
    """Delete the job of an object that is no more, whoever works on it."""
    await connection.execute(delete(jobs).where(_of(kind, subject_id)))


def _taken(these: ColumnElement[bool], lease: Lease) -> Any:
    return (
        update(jobs)
        .where(these)
        .values(
            worker=lease.worker,
            leased_until_s=lease.until_s,
            token=_COLUMNS.token + 1,
            attempt=_COLUMNS.attempt + 1,
        )
        .returning(*_COLUMNS)
    )


def _released(due_at_s: float | ColumnElement[float]) -> dict[str, object]:
    return {"worker": None, "leased_until_s": _LONG_AGO_S, "due_at_s": due_at_s}


def _of(kind: JobKind, subject_id: str) -> ColumnElement[bool]:
    return and_(_COLUMNS.kind == kind, _COLUMNS.subject_id == subject_id)


def _held(claim: Claim) -> ColumnElement[bool]:
    return and_(_of(claim.kind, claim.subject_id), _COLUMNS.token == claim.token)


def _any_of(claims: Collection[Claim]) -> ColumnElement[bool]:
    key = tuple_(_COLUMNS.kind, _COLUMNS.subject_id, _COLUMNS.token)
    return and_(
        # SQLite finds single values in an index, and tuples only by reading the whole table.
        _COLUMNS.subject_id.in_([claim.subject_id for claim in claims]),
        key.in_([claim.key for claim in claims]),
    )


def _is_nobodys(now_s: float) -> ColumnElement[bool]:
    return or_(_COLUMNS.worker.is_(None), _COLUMNS.leased_until_s <= now_s)


def _claim(row: Row[Any]) -> Claim:
    return Claim(
        kind=row.kind,
        subject_id=row.subject_id,
        account_id=AccountId(row.account_id),
        token=row.token,
        attempt=row.attempt,
        is_cancelled=row.is_cancelled,
    )
