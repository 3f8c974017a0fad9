"""Budgets that survive a restart: the ledger says what was spent, before a gateway's first call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from openworks.core.clock import Clock
from openworks.core.ids import AccountId, KeyId
from openworks.gateway.limits.local import window_start_s
from openworks.ports.gateways import Gateway, GatewayId
from openworks.ports.limits import Admission, Claim, Limiter, Refusal, Spent
from openworks.ports.logs import Analytics, AnalyticsQuery, Dimension, Figures

_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_MAX_STEPS: Final = 1500
_METADATA: Final = "metadata."
_MAX_GATEWAYS: Final = 100_000
_DIMENSIONS: Final[dict[str, Dimension]] = {"model": "model", "provider": "provider", "key": "key"}


class RestoringLimiter:
    """A limiter that asks the ledger once for each gateway with budgets.

    A rule that is added while the server runs counts from then on. Sums are by the minute, or by
    the hour over days, and rounded such that a budget counts a little too much, never too little.
    """

    def __init__(
        self,
        inner: Limiter,
        restore: Callable[[AccountId, Gateway, Sequence[Spent]], Awaitable[None] | None],
        analytics: Analytics,
        clock: Clock,
    ) -> None:
        self._inner = inner
        self._restore = restore
        self._analytics = analytics
        self._clock = clock
        self._restored: set[tuple[AccountId, GatewayId]] = set()
        self._restoring: dict[tuple[AccountId, GatewayId], asyncio.Lock] = {}

    def admit(self, claim: Claim) -> Admission | Refusal | Awaitable[Admission | Refusal]:
        place = (claim.account_id, claim.gateway.id)
        is_known = not claim.gateway.spend_rules or place in self._restored
        # A route's own count belongs to the gateway before the slash, and begins anew. Beyond the
        # bound budgets begin anew too: to restore one twice would count everything twice.
        if is_known or "/" in claim.gateway.id or len(self._restored) >= _MAX_GATEWAYS:
            return self._inner.admit(claim)
        return self._admit_later(claim, place)

    async def _admit_later(
        self, claim: Claim, place: tuple[AccountId, GatewayId]
    ) -> Admission | Refusal:
        lock = self._restoring.setdefault(place, asyncio.Lock())
        async with lock:
            if place not in self._restored:
                rows = await self._spent(claim.account_id, claim.gateway)
                waiting = self._restore(claim.account_id, claim.gateway, rows)
                if waiting is not None:
                    await waiting
                self._restored.add(place)
        self._restoring.pop(place, None)
        decided = self._inner.admit(claim)
        return await decided if isinstance(decided, Awaitable) else decided

    async def _spent(self, account_id: AccountId, gateway: Gateway) -> list[Spent]:
        now_s = self._clock.now_s()
        since_s = min(window_start_s(rule, now_s) for rule in gateway.spend_rules)
        keys = sorted({key for rule in gateway.spend_rules for key in rule.by})
        if any(key.startswith(_METADATA) for key in keys):
            return await self._by_metadata(account_id, gateway, keys, since_s, now_s)
        step_s = _MINUTE_S if (now_s - since_s) / _MINUTE_S <= _MAX_STEPS else _HOUR_S
        figures = await self._analytics.query(
            AnalyticsQuery(
                account_id=account_id,
                gateway_id=gateway.id,
                since_s=since_s,
                until_s=now_s + _MINUTE_S,
                step_s=step_s,
                group_by=tuple(_DIMENSIONS[key] for key in keys if key in _DIMENSIONS),
                metrics=frozenset(),
                limit=1_000_000,
            )
        )
        return [_row(each, step_s, now_s) for each in figures]

    async def _by_metadata(
        self,
        account_id: AccountId,
        gateway: Gateway,
        keys: list[str],
        since_s: float,
        now_s: float,
    ) -> list[Spent]:
        rows = await self._analytics.spent(account_id, gateway.id, since_s=since_s, by=tuple(keys))
        found = []
        for row in rows:
            by = dict(zip(keys, row.values, strict=True))
            found.append(
                Spent(
                    at_s=now_s,
                    key_id=KeyId(by["key"]) if by.get("key") else None,
                    provider=by.get("provider", ""),
                    model=by.get("model", ""),
                    metadata={
                        key.removeprefix(_METADATA): value
                        for key, value in by.items()
                        if key.startswith(_METADATA) and value
                    },
                    tokens=row.tokens,
                    cost_usd=row.cost_usd,
                )
            )
        return found


def _row(figures: Figures, step_s: int, now_s: float) -> Spent:
    group = figures.group
    key = str(group.get("key", ""))
    return Spent(
        # At the end of its bucket, so that one which the window cuts counts whole.
        at_s=min((figures.bucket_s or 0) + step_s - 1, now_s),
        key_id=KeyId(key) if key else None,
        provider=str(group.get("provider", "")),
        model=str(group.get("model", "")),
        tokens=figures.usage.prompt_tokens + figures.usage.completion_tokens,
        cost_usd=figures.cost_usd,
    )
