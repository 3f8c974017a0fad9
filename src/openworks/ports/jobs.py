"""Durable work: what must come to rest whatever happens to the process that does it.

A job stands for the unfinished work on one object (a run, a response, a batch). It holds no state
of its own: the object's rows do. Who works on it holds a lease; every write made for the job
carries the lease's token, so that a process that was taken for dead cannot write any more.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from openworks.core.ids import AccountId

JobKind = Literal["run", "response", "batch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to work on a job, until somebody else claims it."""

    kind: JobKind
    subject_id: str
    """The object that the work is on; it has one job at most."""
    account_id: AccountId
    token: int
    """Grows with every claim; writes with an older one are refused."""
    attempt: int
    """1 for the first claim since it last made progress."""
    is_cancelled: bool = False
    """Whether somebody has asked for its end."""

    @property
    def key(self) -> tuple[JobKind, str, int]:
        """What makes it this claim, however its job's attempts and wishes change."""
        return self.kind, self.subject_id, self.token


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """For whom and until when a job is claimed."""

    worker: str
    until_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to be kept in the transaction that keeps its object."""

    kind: JobKind
    subject_id: str
    account_id: AccountId
    due_at_s: float
    """When it is to be worked on; a job that waits for its caller is due when its time is over."""
    lease: Lease | None = None
    """Given when the process that makes it begins at once."""

    @property
    def claim(self) -> Claim:
        """The claim that comes with `lease`."""
        return Claim(
            kind=self.kind,
            subject_id=self.subject_id,
            account_id=self.account_id,
            token=1,
            attempt=1,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """What becomes of a job after a write: it is done and gone, or due again later."""

    due_at_s: float | None = None
    """None: there is nothing left to do."""


class JobStore(Protocol):
    """Where jobs are kept. They come and go in the transactions of the stores of their objects."""

    async def claim_due(
        self, kinds: Collection[JobKind], lease: Lease, *, now_s: float, limit: int
    ) -> Sequence[Claim]:
        """Take jobs that are due and leased to nobody any more, the longest due first.

        Workers that ask together get different jobs.
        """
        ...

    async def claim_one(
        self, kind: JobKind, subject_id: str, lease: Lease, *, now_s: float
    ) -> Claim | None:
        """Take one job, due or not; None when there is none, or somebody works on it."""
        ...

    async def renew(self, claims: Sequence[Claim], lease: Lease) -> Sequence[Claim]:
        """Keep claims; return those that still stand, with their jobs' attempts and wishes of now.

        The job of one that is missing belongs to somebody else, or is gone.
        """
        ...

    async def release(self, claim: Claim, *, due_at_s: float, counts: bool = True) -> None:
        """Give a job back, to be claimed by anybody from then on; nothing if it was lost.

        Args:
            claim: Is worth nothing from then on.
            due_at_s: When it may be claimed.
            counts: Whether this was an attempt; not when only its worker had to stop.
        """
        ...

    async def request_cancel(self, kind: JobKind, subject_id: str) -> bool:
        """Ask for a job's end, whoever works on it; False when there is no such job.

        If nobody does, or once nobody does any more, it is due at once.
        """
        ...
