"""The one place where durable jobs are worked on: claimed, kept, cancelled, given up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from openworks.core.clock import Clock
from openworks.core.errors import (
    AppError,
    EngineOverloadedError,
    InternalError,
    LeaseLostError,
)
from openworks.core.ids import AccountId, NewId
from openworks.ports.jobs import Claim, JobKind, JobStore, Lease, NewJob
from openworks.services.background import Rounds

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersConfig:
    """How work is shared out and how long it is waited for."""

    max_jobs: Annotated[int, Field(ge=1)] = 256
    """How many jobs this process works on at once; the others wait for a place."""
    lease_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0
    """Seconds without a sign of life after which another server takes over a job."""
    look_every_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.5
    """Seconds between looks for jobs that other servers have left, or that are due again."""
    max_attempts: Annotated[int, Field(ge=1)] = 4
    """How often a job is begun anew without any progress before it is given up."""
    retry_after_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Seconds before the second attempt; they double with each one after it."""


class JobHandler(Protocol):
    """Knows what one kind of job is about.

    Each method ends with a write that puts the job to rest; a method that returns without one
    leaves it to be claimed again.
    """

    async def work(self, claim: Claim) -> None:
        """Do the work, from wherever an earlier attempt has left it.

        Raises:
            EngineOverloadedError: The job is retried for as long as that takes.
            AppError: It may go better another time: the job is retried, and given up in the end.
        """
        ...

    async def cancel(self, claim: Claim) -> None:
        """Put it to rest as cancelled; `work` is not under way any more."""
        ...

    async def give_up(self, claim: Claim, error: AppError) -> None:
        """Put it to rest as failed."""
        ...


class Workers:
    """Runs the jobs of this process, each in a task of its own."""

    def __init__(
        self,
        store: JobStore,
        handlers: Mapping[JobKind, JobHandler],
        config: WorkersConfig,
        *,
        clock: Clock,
        new_id: NewId,
    ) -> None:
        self._store = store
        self._handlers = handlers
        self._config = config
        self._clock = clock
        self._name = new_id("worker_")
        self._working: dict[Claim, asyncio.Task[Any]] = {}
        self._stopped: dict[Claim, Literal["cancelled", "lost"]] = {}
        self._is_closing = False
        self._looks = Rounds("jobs.look", self._look, every_s=config.look_every_s)
        self._renewals = Rounds("jobs.renew", self._renew, every_s=config.lease_s / 5)

    def open(self) -> None:
        """Begin to take what is due."""
        self._looks.open()
        self._renewals.open()

    async def close(self) -> None:
        """Stop working; what is not at rest is given back, for another server or the next start."""
        self._is_closing = True
        await self._looks.close()
        await self._renewals.close()
        tasks = list(self._working.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def new_job(
        self,
        kind: JobKind,
        subject_id: str,
        account_id: AccountId,
        *,
        due_at_s: float | None = None,
        is_lent: bool = False,
    ) -> NewJob:
        """Describe a job, claimed by this process if it has a place; keep it, then `begin` it.

        Args:
            kind: What it is about.
            subject_id: Its object.
            account_id: Whose it is.
            due_at_s: Later than now for a job that nobody begins yet.
            is_lent: Whether the caller works on it, whose request has a place already; keep it,
                then `lend` it.
        """
        now_s = self._clock.now_s()
        begins = is_lent or (due_at_s is None and self._has_room())
        return NewJob(
            kind=kind,
            subject_id=subject_id,
            account_id=account_id,
            due_at_s=now_s if due_at_s is None else due_at_s,
            lease=self._lease() if begins else None,
        )

    def begin(self, job: NewJob) -> None:
        """Work on a job that has been kept; one without a lease waits for its turn."""
        if job.lease is not None:
            self._start(job.claim)

    @asynccontextmanager
    async def lend(self, job: NewJob) -> AsyncIterator[None]:
        """Keep a claim for as long as the caller's own task works on its job.

        Raises:
            LeaseLostError: The claim was lost, or the job's end was asked for.
        """
        task = asyncio.current_task()
        assert task is not None
        claim = job.claim
        self._working[claim] = task
        try:
            yield
        except asyncio.CancelledError:
            if claim not in self._stopped:
                raise
            task.uncancel()
            raise LeaseLostError(f"The work on {claim.subject_id!r} was stopped.") from None
        finally:
            self._ended(claim)

    async def resume(self, kind: JobKind, subject_id: str) -> None:
        """Work now on a job that was waiting, unless somebody does already."""
        if self._has_room():
            now_s = self._clock.now_s()
            claim = await self._store.claim_one(kind, subject_id, self._lease(), now_s=now_s)
            if claim is not None:
                self._start(claim)

    async def cancel(self, kind: JobKind, subject_id: str) -> bool:
        """Ask for a job's end, here or on whichever server works on it; False without a job.

        The job's handler then puts it to rest; this does not wait for it.
        """
        if not await self._store.request_cancel(kind, subject_id):
            return False
        here = [claim for claim in self._working if claim.key[:2] == (kind, subject_id)]
        for claim in here:
            self._stop(claim, "cancelled")
        if not here:
            await self.resume(kind, subject_id)
        return True

    def _has_room(self) -> bool:
        return not self._is_closing and len(self._working) < self._config.max_jobs

    def _lease(self) -> Lease:
        until_s = self._clock.now_s() + self._config.lease_s
        return Lease(worker=self._name, until_s=until_s)

    async def _look(self) -> None:
        room = self._config.max_jobs - len(self._working)
        if room > 0:
            for claim in await self._store.claim_due(
                list(self._handlers), self._lease(), now_s=self._clock.now_s(), limit=room
            ):
                self._start(claim)

    async def _renew(self) -> None:
        claims = list(self._working)
        if not claims:
            return
        held = {claim.key: claim for claim in await self._store.renew(claims, self._lease())}
        for claim in claims:
            now = held.get(claim.key)
            if now is None:
                self._stop(claim, "lost")
            elif now.is_cancelled:
                self._stop(claim, "cancelled")

    def _stop(self, claim: Claim, why: Literal["cancelled", "lost"]) -> None:
        task = self._working.get(claim)
        is_known = claim in self._stopped or (why == "cancelled" and claim.is_cancelled)
        if task is not None and not is_known:
            self._stopped[claim] = why
            task.cancel()

    def _start(self, claim: Claim) -> None:
        if self._is_closing:  # its lease runs out by itself
            return
        task = asyncio.create_task(self._run(claim))
        self._working[claim] = task
        task.add_done_callback(lambda _: self._ended(claim))

    def _ended(self, claim: Claim) -> None:
        del self._working[claim]
        self._stopped.pop(claim, None)
        if len(self._working) == self._config.max_jobs - 1:
            self._looks.wake()

    async def _run(self, claim: Claim) -> None:
        """Bring a job to rest, or leave it to be claimed again; never raises an error."""
        fields = {"kind": claim.kind, "subject": claim.subject_id, "attempt": claim.attempt}
        try:
            await self._bring_to_rest(claim)
        except asyncio.CancelledError:
            if self._stopped.get(claim) != "lost":  # the server stops, for which no job can help
                await self._give_back(claim, after_s=0.0, counts=False)
            raise
        except LeaseLostError:
            log.warning("job.lost", extra=fields)
        except EngineOverloadedError:  # not its fault: it waits for its turn
            await self._give_back(claim, counts=False)
        except AppError as error:
            log.warning("job.failed", extra={**fields, "error": error.message})
            await self._give_back(claim)
        except Exception:
            # The boundary of one job: the others go on, and the log has the details.
            log.exception("job.failed", extra=fields)
            await self._give_back(claim)

    async def _bring_to_rest(self, claim: Claim) -> None:
        handler = self._handlers[claim.kind]
        if claim.is_cancelled:
            await handler.cancel(claim)
            return
        if claim.attempt > self._config.max_attempts:
            error = InternalError(f"The work was begun {self._config.max_attempts} times in vain.")
            await handler.give_up(claim, error)
            return
        try:
            await handler.work(claim)
        except asyncio.CancelledError:
            if self._stopped.get(claim) != "cancelled":
                raise
            self._working[claim].uncancel()
            await handler.cancel(claim)
        except (LeaseLostError, EngineOverloadedError):
            raise
        except AppError as error:
            if await self._may_try_again(claim):
                raise
            await handler.give_up(claim, error)

    async def _may_try_again(self, claim: Claim) -> bool:
        """Ask the store: what was done in this attempt may have let them count anew."""
        held = await self._store.renew([claim], self._lease())
        return not held or held[0].attempt < self._config.max_attempts

    async def _give_back(
        self, claim: Claim, *, after_s: float | None = None, counts: bool = True
    ) -> None:
        if after_s is None:
            doublings = min(claim.attempt, self._config.max_attempts) - 1
            after_s = self._config.retry_after_s * 2**doublings
        due_at_s = self._clock.now_s() + after_s
        with suppress(AppError):  # the lease then runs out by itself
            await self._store.release(claim, due_at_s=due_at_s, counts=counts)
