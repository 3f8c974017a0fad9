"""The limiter of one process: everything in memory, decided at once."""

from __future__ import annotations

from collections.abc import Iterable

from openworks.core.clock import Clock
from openworks.core.ids import AccountId
from openworks.gateway.limits.base import BaseLimiter, GatewayState, LimitsConfig
from openworks.gateway.limits.rules import Budget, Rate
from openworks.gateway.limits.windows import Bucket, FixedWindow, LogWindow, SlicedWindow
from openworks.ports.gateways import Gateway, RateLimit, SpendRule
from openworks.ports.limits import Claim, Refusal, Spent


class LocalLimiter(BaseLimiter):
    """Exact counts in this process.

    Rates run on the monotonic clock, set to the wall clock once: when an operator or NTP moves the
    wall clock, no window opens twice or stays shut. Budgets run on the wall clock, because the
    ledger does; when it goes back, what was spent moves along.
    """

    def __init__(self, *, clock: Clock, config: LimitsConfig) -> None:
        anchor_s = clock.now_s() - clock.monotonic_s()
        monotonic_s = clock.monotonic_s
        super().__init__(
            config,
            rate_now_s=lambda: monotonic_s() + anchor_s,
            budget_now_s=clock.now_s,
        )
        self._num_logged = 0

    def restore(self, account_id: AccountId, gateway: Gateway, rows: Iterable[Spent]) -> None:
        """Count what the ledger says was spent before this process began.

        To be called before the gateway's first call, once; rows may be sums, as long as they do
        not reach over the edge of a window. Rows outside the present windows are skipped.
        """
        state = self._compile(account_id, gateway)
        if state is None:
            return
        now_s = self._budget_now_s()
        for row in rows:
            for budget in state.budgets:
                since_s = window_start_s(budget.rule, now_s)
                bucket = budget.bucket(row, now_s) if row.at_s >= since_s else None
                if bucket is not None:
                    _add_past(bucket, row.at_s, now_s, budget.amount(row))

    def _rate_bucket(self, rule: RateLimit, key: str) -> Bucket:
        if rule.technique == "fixed":
            return FixedWindow(rule.interval_s)
        # Room is set aside for a full log, so that the bound holds whatever callers do.
        is_logged = rule.limit <= self._config.log_limit
        if is_logged and self._num_logged + rule.limit <= self._config.max_logged:
            self._num_logged += rule.limit
            return LogWindow(rule.interval_s, capacity=rule.limit)
        return SlicedWindow(rule.interval_s)

    def _forget_bucket(self, bucket: Bucket) -> None:
        if isinstance(bucket, LogWindow):
            self._num_logged -= bucket.capacity

    def _budget_bucket(self, rule: SpendRule, key: str) -> Bucket:
        is_fixed = rule.technique == "fixed"
        return FixedWindow(rule.window_s) if is_fixed else SlicedWindow(rule.window_s)

    def _refuse_rate(self, rate: Rate, bucket: Bucket, now_s: float) -> Refusal:
        return Refusal(
            kind="rate",
            bucket=rate.label,
            limit=rate.limit,
            used=bucket.used(now_s),
            retry_after_s=bucket.retry_after_s(now_s, 1, rate.limit),
        )

    def _refuse_budget(self, budget: Budget, bucket: Bucket, amount: int, now_s: float) -> Refusal:
        return Refusal(
            kind="spend",
            bucket=budget.id,
            limit=budget.in_unit(budget.limit),
            used=budget.in_unit(bucket.used(now_s)),
            retry_after_s=bucket.retry_after_s(now_s, max(amount, 1), budget.limit),
        )

    async def _fetch(self, claim: Claim, state: GatewayState) -> None:
        raise AssertionError("A local limiter is never short.")


def window_start_s(rule: SpendRule, now_s: float) -> float:
    """Return since when calls count for a rule: what the ledger must be asked for on a restart."""
    if rule.technique == "fixed":
        return now_s // rule.window_s * rule.window_s
    return now_s - rule.window_s


def _add_past(bucket: Bucket, at_s: float, now_s: float, amount: int) -> None:
    bucket.room(now_s, 0)
    if isinstance(bucket, SlicedWindow):
        bucket.add_past(min(at_s, now_s), amount)
    elif isinstance(bucket, FixedWindow):
        bucket.taken += amount
