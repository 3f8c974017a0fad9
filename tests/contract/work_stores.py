"""The stores of durable work for contract suites, and what other stores do with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from openworks.core.ids import AccountId
from openworks.ports.events import EventStore
from openworks.ports.jobs import Claim, JobKind, JobStore, Lease, NewJob, Rest
from openworks.storage.sql.database import Database
from openworks.storage.sql.jobs import delete_job, hold, insert_job, make_due, put_to_rest

MINE = AccountId("acct-mine")
NOW_S = 1_790_000_000.25
LEASE_S = 10.0


class Transactions(Protocol):
    """What the stores of runs, responses and batches do in transactions of their own."""

    async def insert(self, job: NewJob) -> None: ...

    async def hold(self, claim: Claim, *, is_progress: bool = False) -> None: ...

    async def rest(self, claim: Claim, rest: Rest) -> None: ...

    async def make_due(self, kind: JobKind, subject_id: str, *, now_s: float) -> None: ...

    async def delete(self, kind: JobKind, subject_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class SqlTransactions:
    """Each in a transaction of a database."""

    database: Database

    async def insert(self, job: NewJob) -> None:
        async with self.database.write() as connection:
            await insert_job(connection, job)

    async def hold(self, claim: Claim, *, is_progress: bool = False) -> None:
        async with self.database.write() as connection:
            await hold(connection, claim, is_progress=is_progress)

    async def rest(self, claim: Claim, rest: Rest) -> None:
        async with self.database.write() as connection:
            await hold(connection, claim)
            await put_to_rest(connection, claim, rest)

    async def make_due(self, kind: JobKind, subject_id: str, *, now_s: float) -> None:
        async with self.database.write() as connection:
            await make_due(connection, kind, subject_id, now_s=now_s)

    async def delete(self, kind: JobKind, subject_id: str) -> None:
        async with self.database.write() as connection:
            await delete_job(connection, kind, subject_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkStores:
    """All of them, over one database."""

    jobs: JobStore
    events: EventStore
    transactions: Transactions

    async def add(
        self,
        subject_id: str,
        *,
        kind: JobKind = "run",
        due_at_s: float = NOW_S,
        worker: str | None = None,
    ) -> Claim:
        """Keep a job; return the claim of the worker that made it, if one did."""
        job = NewJob(
            kind=kind,
            subject_id=subject_id,
            account_id=MINE,
            due_at_s=due_at_s,
            lease=None if worker is None else lease(worker),
        )
        await self.transactions.insert(job)
        return job.claim

    async def claim(
        self, worker: str = "w-1", *, now_s: float = NOW_S, limit: int = 100
    ) -> dict[str, Claim]:
        """Let a worker take what is due, by subject."""
        claims = await self.jobs.claim_due(
            ["run", "response"], lease(worker, now_s), now_s=now_s, limit=limit
        )
        return {claim.subject_id: claim for claim in claims}


def lease(worker: str, now_s: float = NOW_S) -> Lease:
    """Give a worker the usual time."""
    return Lease(worker=worker, until_s=now_s + LEASE_S)
