"""A call that passed: what it holds, and the headers that tell how much is left."""

from __future__ import annotations

from openworks.gateway.limits.rules import NANO, Budget, Rate, quantity
from openworks.gateway.limits.turns import Turns
from openworks.gateway.limits.windows import Bucket, Slot
from openworks.ports.upstream import Headers


class Held:
    """What one call holds of its budgets, and its turn, until it is settled."""

    __slots__ = (
        "_key",
        "_turns",
        "budget",
        "budget_left",
        "held",
        "rate",
        "rate_left",
        "rate_reset_s",
    )

    def __init__(self, turns: Turns | None, key: str) -> None:
        self.held: list[tuple[Budget, Bucket, Slot, int]] | None = []
        self._turns = turns
        self._key = key
        self.rate: Rate | None = None
        self.rate_left = 0
        self.rate_reset_s = 0.0
        self.budget: Budget | None = None
        self.budget_left = 0

    @property
    def remaining(self) -> Headers:
        """Of the tightest rate limit and the tightest budget, as they were on admission."""
        headers: Headers = []
        if self.rate is not None:
            headers = [
                self.rate.limit_header,
                (b"x-ratelimit-remaining-requests", b"%d" % self.rate_left),
                (b"x-ratelimit-reset-requests", duration(self.rate_reset_s).encode()),
            ]
        budget = self.budget
        if budget is not None:
            headers += (
                budget.limit_header,
                (b"cf-aig-budget-remaining", quantity(budget.is_cost, self.budget_left)),
            )
        return headers

    def settle(self, *, tokens: int, cost_usd: float) -> None:
        held = self.held
        if held is None:
            return
        self.held = None
        for budget, bucket, slot, reserved in held:
            used = int(cost_usd * NANO + 0.5) if budget.is_cost else tokens
            bucket.settle(slot, reserved, used)
        if self._turns is not None:
            self._turns.leave(self._key)


class _Free:
    """A call of a gateway without limits."""

    __slots__ = ()

    @property
    def remaining(self) -> Headers:
        return []

    def settle(self, *, tokens: int, cost_usd: float) -> None:
        """Nothing: nothing was held."""


FREE = _Free()


def duration(seconds: float) -> str:
    """Write a time as OpenAI's headers do: `120ms`, `1s`, `6m0s`, `1h0m0s`."""
    if 0.0 < seconds < 1.0:
        return f"{max(int(seconds * 1000), 1)}ms"
    whole = -int(-seconds // 1)
    minutes, rest = divmod(whole, 60)
    if not minutes:
        return f"{rest}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"
