"""What all limiters share: every rule of a gateway is looked at, then all are taken or none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import islice
from typing import Final

from openworks.core.ids import AccountId
from openworks.gateway.limits.admission import FREE, Held
from openworks.gateway.limits.rules import (
    Buckets,
    Budget,
    Rate,
    Space,
    budget_identity,
    rate_identity,
)
from openworks.gateway.limits.turns import Turns
from openworks.gateway.limits.windows import Bucket
from openworks.ports.gateways import Gateway, GatewayId, RateLimit, SpendRule
from openworks.ports.limits import Admission, BudgetState, Claim, Refusal

_PROBES = 8
_MAX_ROUNDS = 20
"""How often to ask elsewhere for one claim, as others may take what was fetched."""
_NO_ROOM = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """The bounds of what limits remember."""

    max_gateways: int = 10_000
    """Gateways with limits; while so many are busy, calls of further ones are refused."""
    max_values_per_rule: int = 10_000
    """Keys, models or metadata values with a count of their own; further ones share one."""
    max_buckets: int = 200_000
    """The same over all rules of all gateways."""
    log_limit: int = 10_000
    """Sliding rate limits up to it remember each request; higher ones count in sixtieths."""
    max_logged: int = 2_000_000
    """Requests to remember in all (32 bytes each); beyond, new windows count in sixtieths."""


class GatewayState:
    """The limits of one gateway, and its counts, which survive edits of the gateway."""

    __slots__ = ("budgets", "by_identity", "gateway", "rates", "turns")

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.rates: tuple[Rate, ...] = ()
        self.budgets: tuple[Budget, ...] = ()
        self.turns: Turns | None = None
        self.by_identity: dict[tuple[object, ...], Buckets] = {}


class Shortage:
    """Not enough is in this process; there may be more elsewhere."""


SHORTAGE: Final = Shortage()


class BaseLimiter(ABC):
    """Everything but where the counts are."""

    def __init__(
        self,
        config: LimitsConfig,
        *,
        rate_now_s: Callable[[], float],
        budget_now_s: Callable[[], float],
    ) -> None:
        self._config = config
        self._rate_now_s = rate_now_s
        self._budget_now_s = budget_now_s
        self._states: dict[tuple[AccountId, GatewayId], GatewayState] = {}
        self._space = Space(config.max_buckets, make_place=self._sweep, on_drop=self._forget_bucket)

    @abstractmethod
    def _forget_bucket(self, bucket: Bucket) -> None: ...

    @abstractmethod
    def _rate_bucket(self, rule: RateLimit, key: str) -> Bucket: ...

    @abstractmethod
    def _budget_bucket(self, rule: SpendRule, key: str) -> Bucket: ...

    @abstractmethod
    def _refuse_rate(self, rate: Rate, bucket: Bucket, now_s: float) -> Refusal | Shortage: ...

    @abstractmethod
    def _refuse_budget(
        self, budget: Budget, bucket: Bucket, amount: int, now_s: float
    ) -> Refusal | Shortage: ...

    @abstractmethod
    async def _fetch(self, claim: Claim, state: GatewayState) -> None:
        """Get more from elsewhere for a claim that came up short, if there is any."""

    def admit(self, claim: Claim) -> Admission | Refusal | Awaitable[Admission | Refusal]:
        gateway = claim.gateway
        state = self._states.get((claim.account_id, gateway.id))
        if state is None or state.gateway is not gateway:
            if not (gateway.rate_limits or gateway.spend_rules or gateway.concurrency):
                return FREE
            state = self._compile(claim.account_id, gateway)
            if state is None:
                return _too_many_gateways(self._config.max_gateways)
        turns = state.turns
        if turns is None:
            decision = self._take(claim, state)
            return decision if type(decision) is not Shortage else self._admit_later(claim, state)  # type: ignore[return-value]  # mypy does not narrow by `is not`
        key = claim.key_id or ""
        if not turns.try_enter(key):
            return self._admit_later(claim, state)
        decision = self._take(claim, state)
        if type(decision) is Held:
            return decision
        turns.leave(key)
        return decision if type(decision) is Refusal else self._admit_later(claim, state)

    def budgets(self, account_id: AccountId, gateway: Gateway) -> list[BudgetState]:
        """Return what the gateway's budgets have counted in their present windows."""
        state = self._states.get((account_id, gateway.id))
        now_s = self._budget_now_s()
        return [
            BudgetState(
                rule_id=budget.id,
                values=budget.values(value),
                spent=budget.in_unit(bucket.used(now_s) - bucket.held()),
                reserved=budget.in_unit(bucket.held()),
                limit=budget.in_unit(budget.limit),
            )
            for budget in (state.budgets if state is not None else ())
            for value, bucket in budget.buckets
        ]

    def _take(self, claim: Claim, state: GatewayState) -> Held | Refusal | Shortage:
        """Look at everything, then take everything; no await in between, so nothing can change."""
        now_s = self._rate_now_s()
        call = Held(state.turns, claim.key_id or "")
        taken = []
        least = _NO_ROOM
        for rate in state.rates:
            bucket = rate.bucket(claim, now_s)
            room = bucket.room(now_s, rate.limit)
            if room < 1:
                return self._refuse_rate(rate, bucket, now_s)
            taken.append(bucket)
            if room < least:
                least = room
                call.rate = tightest_rate = rate
                tightest = bucket
        refused = self._reserve(claim, state.budgets, call) if state.budgets else None
        if refused is not None:
            return refused
        for bucket in taken:
            bucket.take(now_s, 1)
        if taken:
            call.rate_left = tightest.left(tightest_rate.limit, least) - 1
            call.rate_reset_s = tightest.reset_s(now_s)
        return call

    def _reserve(
        self, claim: Claim, budgets: tuple[Budget, ...], call: Held
    ) -> Refusal | Shortage | None:
        now_s = self._budget_now_s()
        wanted = []
        least = 2.0
        for budget in budgets:
            bucket = budget.bucket(claim, now_s)
            if bucket is None:
                continue
            amount = budget.amount(claim)
            room = bucket.room(now_s, budget.limit)
            if room < amount or room <= 0:
                return self._refuse_budget(budget, bucket, amount, now_s)
            wanted.append((budget, bucket, amount))
            if (room - amount) / budget.limit < least:
                least = (room - amount) / budget.limit
                call.budget = budget
                call.budget_left = bucket.left(budget.limit, room) - amount
        call.held = [
            (budget, bucket, bucket.take(now_s, amount), amount)
            for budget, bucket, amount in wanted
        ]
        return None

    async def _admit_later(self, claim: Claim, state: GatewayState) -> Held | Refusal:
        turns = state.turns
        if turns is None:
            return await self._take_later(claim, state)
        refused = self._peek(claim, state)
        if refused is not None:
            return refused
        key = claim.key_id or ""
        refused = await turns.enter(key)
        if refused is not None:
            return refused
        decision: Held | Refusal | None = None
        try:
            decision = await self._take_later(claim, state)
        finally:
            if not isinstance(decision, Held):
                turns.leave(key)
        return decision

    async def _take_later(self, claim: Claim, state: GatewayState) -> Held | Refusal:
        for _ in range(_MAX_ROUNDS):
            decision = self._take(claim, state)
            if not isinstance(decision, Shortage):
                return decision
            await self._fetch(claim, state)
        return Refusal(kind="unavailable", bucket="counts", limit=0, used=0, retry_after_s=1.0)

    def _peek(self, claim: Claim, state: GatewayState) -> Refusal | None:
        """Return the refusal that is certain now, so that nobody waits for a turn in vain."""
        now_s = self._rate_now_s()
        for rate in state.rates:
            bucket = rate.bucket(claim, now_s)
            if bucket.room(now_s, rate.limit) < 1:
                refused = self._refuse_rate(rate, bucket, now_s)
                return refused if isinstance(refused, Refusal) else None
        return None

    def _compile(self, account_id: AccountId, gateway: Gateway) -> GatewayState | None:
        """Return the state of a gateway that is new or edited; None where there is no place."""
        place = (account_id, gateway.id)
        state = self._states.get(place)
        if state is None:
            if len(self._states) >= self._config.max_gateways and not self._make_place():
                return None
            state = self._states[place] = GatewayState(gateway)
        state.gateway = gateway
        state.by_identity, known = {}, state.by_identity
        prefix = f"{account_id}/{gateway.id}"
        state.rates = tuple(
            Rate(rule, self._rate_buckets(rule, known, state, prefix))
            for rule in gateway.rate_limits
        )
        state.budgets = tuple(
            Budget(rule, self._budget_buckets(rule, known, state, prefix))
            for rule in gateway.spend_rules
        )
        for identity, buckets in known.items():
            if identity not in state.by_identity:
                buckets.clear()
        if gateway.concurrency is None:
            state.turns = None
        elif state.turns is None:
            state.turns = Turns(gateway.concurrency)
        else:
            state.turns.set_policy(gateway.concurrency)
        return state

    def _rate_buckets(
        self,
        rule: RateLimit,
        known: dict[tuple[object, ...], Buckets],
        state: GatewayState,
        prefix: str,
    ) -> Buckets:
        identity = (*rate_identity(rule), rule.limit <= self._config.log_limit)
        name = f"{prefix}/rate/{rule.per}/{rule.interval_s}/{rule.technique}"
        buckets = known.get(identity) or Buckets(
            lambda value: self._rate_bucket(rule, f"{name}/{value}"),
            max_values=self._config.max_values_per_rule,
            space=self._space,
        )
        state.by_identity[identity] = buckets
        return buckets

    def _budget_buckets(
        self,
        rule: SpendRule,
        known: dict[tuple[object, ...], Buckets],
        state: GatewayState,
        prefix: str,
    ) -> Buckets:
        identity = budget_identity(rule)
        name = f"{prefix}/spend/{rule.id}/{rule.unit}/{rule.window_s}/{rule.technique}"
        buckets = known.get(identity) or Buckets(
            lambda value: self._budget_bucket(rule, f"{name}/{value}"),
            max_values=self._config.max_values_per_rule,
            space=self._space,
        )
        state.by_identity[identity] = buckets
        return buckets

    def _make_place(self) -> bool:
        """Drop idle gateways among those looked at longest ago; return whether one went."""
        idle = self._sweep()
        for place in idle:
            del self._states[place]
        return bool(idle)

    def _sweep(self) -> list[tuple[AccountId, GatewayId]]:
        """Drop idle buckets of some gateways; return which gateways have nothing left."""
        now_s, wall_s = self._rate_now_s(), self._budget_now_s()
        idle = []
        for place in list(islice(self._states, _PROBES)):
            state = self._states[place] = self._states.pop(place)  # to the end
            empty = [rate.buckets.forget_idle(now_s) for rate in state.rates]
            empty += [budget.buckets.forget_idle(wall_s) for budget in state.budgets]
            if all(empty) and (state.turns is None or state.turns.is_idle()):
                idle.append(place)
        return idle


def _too_many_gateways(bound: int) -> Refusal:
    return Refusal(
        kind="unavailable", bucket="gateways", limit=bound, used=bound, retry_after_s=1.0
    )
