"""Fakes of the ports of durable work: jobs and the events that they tell, in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from openworks.core.errors import AppError, ConflictError, LeaseLostError
from openworks.core.ids import AccountId
from openworks.ports.events import NewEvents, StreamEvent
from openworks.ports.jobs import Claim, JobKind, Lease, NewJob, Rest


@dataclass(slots=True)
class MemoryJob:
    """A row of the table."""

    kind: JobKind
    subject_id: str
    account_id: AccountId
    due_at_s: float
    worker: str | None = None
    leased_until_s: float = 0.0
    token: int = 0
    attempt: int = 0
    is_cancelled: bool = False

    def is_nobodys(self, now_s: float) -> bool:
        return self.worker is None or self.leased_until_s <= now_s

    def take(self, lease: Lease) -> Claim:
        self.worker, self.leased_until_s = lease.worker, lease.until_s
        self.token += 1
        self.attempt += 1
        return self.claim

    def give_back(self, *, due_at_s: float) -> None:
        self.worker, self.leased_until_s, self.due_at_s = None, 0.0, due_at_s

    @property
    def claim(self) -> Claim:
        return Claim(
            kind=self.kind,
            subject_id=self.subject_id,
            account_id=self.account_id,
            token=self.token,
            attempt=self.attempt,
            is_cancelled=self.is_cancelled,
        )


class MemoryJobStore:
    """Jobs in a dict, with what SQL's stores do in transactions as methods."""

    def __init__(self) -> None:
        self.jobs: dict[tuple[JobKind, str], MemoryJob] = {}
        self.error: AppError | None = None
        """What every call raises while the database is away."""

    async def insert(self, job: NewJob) -> None:
        await self._ask()
        row = MemoryJob(job.kind, job.subject_id, job.account_id, job.due_at_s)
        if job.lease is not None:
            row.take(job.lease)
        self.jobs[job.kind, job.subject_id] = row

    async def hold(self, claim: Claim, *, is_progress: bool = False) -> None:
        await self._ask()
        job = self.held(claim)
        if job is None:
            raise LeaseLostError(f"The work on {claim.subject_id!r} was taken over.")
        if is_progress:
            job.attempt = 1

    async def rest(self, claim: Claim, rest: Rest) -> None:
        await self.hold(claim)
        if rest.due_at_s is None:
            del self.jobs[claim.kind, claim.subject_id]
        else:
            job = self.jobs[claim.kind, claim.subject_id]
            job.give_back(due_at_s=0.0 if job.is_cancelled else rest.due_at_s)
            job.attempt = 0

    async def make_due(self, kind: JobKind, subject_id: str, *, now_s: float) -> None:
        await self._ask()
        self.jobs[kind, subject_id].due_at_s = now_s

    async def delete(self, kind: JobKind, subject_id: str) -> None:
        await self._ask()
        self.jobs.pop((kind, subject_id), None)

    async def claim_due(
        self, kinds: Collection[JobKind], lease: Lease, *, now_s: float, limit: int
    ) -> Sequence[Claim]:
        await self._ask()
        due = [
            job
            for job in self.jobs.values()
            if job.kind in kinds and job.due_at_s <= now_s and job.is_nobodys(now_s)
        ]
        due.sort(key=lambda job: job.due_at_s)
        return [job.take(lease) for job in due[:limit]]

    async def claim_one(
        self, kind: JobKind, subject_id: str, lease: Lease, *, now_s: float
    ) -> Claim | None:
        await self._ask()
        job = self.jobs.get((kind, subject_id))
        return job.take(lease) if job is not None and job.is_nobodys(now_s) else None

    async def renew(self, claims: Sequence[Claim], lease: Lease) -> Sequence[Claim]:
        await self._ask()
        held = [job for claim in claims if (job := self.held(claim)) is not None]
        for job in held:
            job.leased_until_s = lease.until_s
        return [job.claim for job in held]

    async def release(self, claim: Claim, *, due_at_s: float, counts: bool = True) -> None:
        await self._ask()
        job = self.held(claim)
        if job is not None:
            job.give_back(due_at_s=due_at_s)
            job.attempt -= not counts

    async def request_cancel(self, kind: JobKind, subject_id: str) -> bool:
        await self._ask()
        job = self.jobs.get((kind, subject_id))
        if job is not None:
            job.is_cancelled, job.due_at_s = True, 0.0
        return job is not None

    def held(self, claim: Claim) -> MemoryJob | None:
        """Return the job of a claim that stands."""
        job = self.jobs.get((claim.kind, claim.subject_id))
        return job if job is not None and job.token == claim.token else None

    async def _ask(self) -> None:
        await asyncio.sleep(0)  # others take their turn, as they do while a database answers
        if self.error is not None:
            raise self.error


@dataclass(frozen=True, slots=True)
class _Kept:
    event: StreamEvent
    kept_at_s: float


class MemoryEventStore:
    """Events in lists, for the claims of a store of jobs."""

    def __init__(self, jobs: MemoryJobStore) -> None:
        self._jobs = jobs
        self._streams: dict[str, list[_Kept]] = {}
        self.error: Exception | None = None
        """What every call raises while the database is away."""
        self.num_reads = 0

    async def append(self, batch: Sequence[NewEvents], *, now_s: float) -> Collection[Claim]:
        await self._ask()
        lost = [new.claim for new in batch if self._jobs.held(new.claim) is None]
        for new in batch:
            if new.claim not in lost:
                await self.insert(new, now_s=now_s)
        return lost

    async def insert(self, new: NewEvents, *, now_s: float) -> None:
        await self._ask()
        stream = self._streams.setdefault(new.claim.subject_id, [])
        numbers = {kept.event.number for kept in stream}
        for event in new.events:
            if event.number in numbers:
                raise ConflictError("It exists already.")
            stream.append(_Kept(event, now_s))
        stream.sort(key=lambda kept: kept.event.number)

    async def forget(self, stream_id: str) -> None:
        """Delete a stream, as the stores of deleted objects do."""
        self._streams.pop(stream_id, None)

    async def read(self, stream_id: str, *, after: int, limit: int) -> Sequence[StreamEvent]:
        await self._ask()
        self.num_reads += 1
        stream = self._streams.get(stream_id, [])
        return [kept.event for kept in stream if kept.event.number > after][:limit]

    async def last_number(self, stream_id: str) -> int:
        await self._ask()
        stream = self._streams.get(stream_id)
        return stream[-1].event.number if stream else -1

    async def which_exist(self, places: Collection[tuple[str, int]]) -> Collection[tuple[str, int]]:
        await self._ask()
        return {
            (stream_id, kept.event.number)
            for stream_id, stream in self._streams.items()
            for kept in stream
        } & set(places)

    async def delete_old(self, *, before_s: float, limit: int) -> int:
        await self._ask()
        worked_on = {subject_id for _, subject_id in self._jobs.jobs}
        num_deleted = 0
        for stream_id, stream in list(self._streams.items()):
            if stream_id not in worked_on and stream[-1].kept_at_s < before_s:
                going = min(limit - num_deleted, len(stream))
                num_deleted += going
                del stream[:going]
                if not stream:
                    del self._streams[stream_id]
        return num_deleted

    async def _ask(self) -> None:
        await asyncio.sleep(0)  # others take their turn, as they do while a database answers
        if self.error is not None:
            raise self.error
