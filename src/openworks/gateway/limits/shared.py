"""The limiter of several processes: each leases from counts that all share, then decides alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from openworks.core.clock import Clock
from openworks.core.errors import StorageError
from openworks.core.ids import AccountId, NewId
from openworks.gateway.limits.base import (
    SHORTAGE,
    BaseLimiter,
    GatewayState,
    LimitsConfig,
    Shortage,
)
from openworks.gateway.limits.local import window_start_s
from openworks.gateway.limits.rules import Budget, Rate
from openworks.gateway.limits.shares import Link, Share, WhenDown
from openworks.gateway.limits.windows import Bucket
from openworks.ports.gateways import Gateway, RateLimit, SpendRule
from openworks.ports.limits import Claim, Refusal, SharedCounts, Spent

log = logging.getLogger(__name__)

_MAX_ASKS = 500
_REPORT_S = 0.25
_HELLO_S = 10.0
_WAKING_TURNS = 3
"""Turns of the loop until those who waited have taken what came; asking on gives it back."""
_FIRST_RETRY_S = 0.05
_MAX_RETRY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedLimitsConfig:
    """What to do about the store."""

    when_down: WhenDown = "local"
    """Without the store: `local`, each process uses its part of what is left; or `refuse`."""
    processes: int = 1
    """How many there are at least, for its part before a process has seen the others."""


class SharedLimiter(BaseLimiter):
    """Exact limits over processes, with one journey to the store for many calls.

    A process leases an amount, near the limit only what callers wait for, and uses it up or gives
    it back within a quarter of a second. Time is the store's: leases are measured from the moment
    of the question on the monotonic clock, so the wall clock of this machine does not matter.
    Turns are given out within each process.
    """

    def __init__(
        self,
        counts: SharedCounts,
        *,
        clock: Clock,
        new_id: NewId,
        config: LimitsConfig,
        shared: SharedLimitsConfig,
    ) -> None:
        super().__init__(config, rate_now_s=clock.monotonic_s, budget_now_s=clock.monotonic_s)
        self._counts = counts
        self._clock = clock
        self._owner = new_id("p")
        self._listed: list[Share] = []
        self._wanted: dict[Share, None] = {}
        self._has_work = asyncio.Event()
        self._round: asyncio.Future[None] | None = None
        self._link = Link(
            offset_ms=(clock.now_s() - clock.monotonic_s()) * 1000,
            when_down=shared.when_down,
            owners=shared.processes,
            on_listed=self._listed.append,
        )
        self._min_owners = shared.processes
        self._reported_s = self._contact_s = clock.monotonic_s()
        self._worker: asyncio.Task[None] | None = None

    @property
    def is_down(self) -> bool:
        """Whether the store could not be reached the last time; for health checks."""
        return self._link.is_down

    async def open(self) -> None:
        """Begin; a store that is not there yet is waited for in the background."""
        await self._exchange([])
        self._worker = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Report what was used, give back what was not, and stop."""
        assert self._worker is not None
        self._worker.cancel()
        with suppress(asyncio.CancelledError):
            await self._worker
        self._end_round()
        shares = list(self._shares())
        for share in shares:
            share.give_back()
        while shares and not self._link.is_down:
            await self._exchange(shares[:_MAX_ASKS])
            del shares[:_MAX_ASKS]

    async def restore(self, account_id: AccountId, gateway: Gateway, rows: Iterable[Spent]) -> None:
        """Count what the ledger says was spent before, unless the store knows the budget already.

        To be called before the gateway's first call, by any process, with rows of every process;
        they may be sums, as long as they do not reach over the edge of a window.

        Raises:
            StorageError: The store is gone.
        """
        state = self._compile(account_id, gateway)
        if state is None:
            return
        now_s, wall_s = self._clock.monotonic_s(), self._clock.now_s()
        sums: dict[Share, dict[int, int]] = {}
        for row in rows:
            for budget in state.budgets:
                since_s = window_start_s(budget.rule, wall_s)
                bucket = budget.bucket(row, now_s) if row.at_s >= since_s else None
                if isinstance(bucket, Share):
                    slices = sums.setdefault(bucket, {})
                    number = int(row.at_s * 1000 // bucket.width_ms)
                    slices[number] = slices.get(number, 0) + budget.amount(row)
        for share, slices in sums.items():
            await self._counts.seed(share.key, slices, width_ms=share.width_ms, depth=share.depth)

    def _rate_bucket(self, rule: RateLimit, key: str) -> Bucket:
        return Share(key, rule.interval_s, rule.technique, True, self._link)

    def _budget_bucket(self, rule: SpendRule, key: str) -> Bucket:
        return Share(key, rule.window_s, rule.technique, False, self._link)

    def _forget_bucket(self, bucket: Bucket) -> None:
        """Nothing: a share that is idle has nothing to report."""

    def _refuse_rate(self, rate: Rate, bucket: Bucket, now_s: float) -> Refusal | Shortage:
        assert isinstance(bucket, Share)
        refused = self._refuse(bucket, 1, now_s)
        if refused is not None:
            return refused
        return Refusal(
            kind="rate",
            bucket=rate.label,
            limit=rate.limit,
            used=max(bucket.used(now_s), 0),
            retry_after_s=bucket.retry_after_s(now_s, 1, rate.limit),
        )

    def _refuse_budget(
        self, budget: Budget, bucket: Bucket, amount: int, now_s: float
    ) -> Refusal | Shortage:
        assert isinstance(bucket, Share)
        if amount <= budget.limit:
            refused = self._refuse(bucket, amount, now_s)
            if refused is not None:
                return refused
        return Refusal(
            kind="spend",
            bucket=budget.id,
            limit=budget.in_unit(budget.limit),
            used=budget.in_unit(max(bucket.used(now_s), 0)),
            retry_after_s=bucket.retry_after_s(now_s, amount, budget.limit),
        )

    def _refuse(self, share: Share, amount: int, now_s: float) -> Refusal | Shortage | None:
        """Return None where the limit itself is what refuses."""
        if self._link.is_alone(now_s):
            return _unavailable() if self._link.when_down == "refuse" else None
        return None if share.is_refused(now_s, amount) else SHORTAGE

    async def _fetch(self, claim: Claim, state: GatewayState) -> None:
        now_s = self._clock.monotonic_s()
        for rate in state.rates:
            bucket = rate.bucket(claim, now_s)
            if bucket.room(now_s, rate.limit) < 1:
                self._want(bucket, 1)
        for budget in state.budgets:
            found = budget.bucket(claim, now_s)
            amount = max(budget.amount(claim), 1)
            if found is not None and found.room(now_s, budget.limit) < amount:
                self._want(found, amount)
        if self._round is None:
            self._round = asyncio.get_running_loop().create_future()
        self._has_work.set()
        # One future for all who wait: a caller that leaves must not end it for the others.
        await asyncio.shield(self._round)

    def _want(self, bucket: Bucket, amount: int) -> None:
        assert isinstance(bucket, Share)
        bucket.want(amount)
        self._wanted[bucket] = None

    async def _run(self) -> None:
        retry_s = _FIRST_RETRY_S
        while True:
            if self._link.is_down:
                await self._clock.sleep(retry_s)
                retry_s = min(2 * retry_s, _MAX_RETRY_S)
            else:
                retry_s = _FIRST_RETRY_S
                with suppress(TimeoutError):
                    async with asyncio.timeout(_REPORT_S):
                        await self._has_work.wait()
            await self._journey()

    async def _journey(self) -> None:
        """Ask for what callers wait for; report what changed, when it is time."""
        self._has_work.clear()
        ending, self._round = self._round, None
        shares = list(self._wanted)[:_MAX_ASKS]
        for share in shares:
            del self._wanted[share]
        if self._wanted:
            self._has_work.set()
        now_s = self._clock.monotonic_s()
        if self._link.is_down or now_s - self._reported_s >= _REPORT_S:
            self._reported_s = now_s
            shares = list(dict.fromkeys(shares + self._reports(now_s)))
        try:
            if shares or self._link.is_down or now_s - self._contact_s >= _HELLO_S:
                await self._exchange(shares)
        finally:
            if ending is not None and not ending.done():
                ending.set_result(None)
                for _ in range(_WAKING_TURNS):
                    await asyncio.sleep(0)

    def _reports(self, now_s: float) -> list[Share]:
        """Take shares off the list, and return those that have something to report."""
        shares = self._listed[:_MAX_ASKS]
        del self._listed[:_MAX_ASKS]
        due = []
        for share in shares:
            share.is_listed = False
            if share.is_due(now_s):
                due.append(share)
            else:
                share.report_later()
        return due

    async def _exchange(self, shares: list[Share]) -> None:
        sent_s = self._clock.monotonic_s()
        asks = [share.ask(sent_s) for share in shares]
        try:
            grants = await self._counts.exchange(self._owner, asks)
        except StorageError as error:
            self._go_down(error)
            for share in shares:
                share.report_again()
            return
        self._contact_s = sent_s
        link = self._link
        if link.is_down:
            self._come_back()
        if grants:
            link.offset_ms = grants[0].now_ms - sent_s * 1000
            link.owners = max(self._min_owners, grants[0].owners)
            link.grace_until_s = sent_s + max(grant.grace_ms for grant in grants) / 1000
        for share, ask, grant in zip(shares, asks, grants, strict=True):
            share.apply(ask, grant, sent_s)

    def _go_down(self, error: StorageError) -> None:
        if not self._link.is_down:
            log.warning("limits.store_down", extra={"error": error.message})
        self._link.is_down = True

    def _come_back(self) -> None:
        """Report everything again: the store may have lost its memory."""
        log.warning("limits.store_back")
        self._link.is_down = False
        for share in self._shares():
            share.report_again()

    def _shares(self) -> Iterable[Share]:
        for state in self._states.values():
            for buckets in state.by_identity.values():
                for _, bucket in buckets:
                    assert isinstance(bucket, Share)
                    yield bucket

    def _end_round(self) -> None:
        if self._round is not None and not self._round.done():
            self._round.set_result(None)


def _unavailable() -> Refusal:
    return Refusal(kind="unavailable", bucket="counts", limit=0, used=0, retry_after_s=1.0)
