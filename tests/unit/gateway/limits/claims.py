"""Gateways and claims for the tests of limits."""

from __future__ import annotations

from openworks.core.ids import AccountId, KeyId
from openworks.ports.gateways import (
    Concurrency,
    Gateway,
    GatewayId,
    Metadata,
    RateLimit,
    SpendRule,
)
from openworks.ports.limits import Claim

ACCOUNT = AccountId("acme")


def gateway(
    *rules: RateLimit | SpendRule, concurrency: Concurrency | None = None, name: str = "main"
) -> Gateway:
    return Gateway(
        account_id=ACCOUNT,
        id=GatewayId(name),
        rate_limits=tuple(rule for rule in rules if isinstance(rule, RateLimit)),
        spend_rules=tuple(rule for rule in rules if isinstance(rule, SpendRule)),
        concurrency=concurrency,
    )


def claim(
    of: Gateway,
    *,
    key: str | None = None,
    model: str = "tiny",
    provider: str = "openai",
    metadata: Metadata | None = None,
    tokens: int = 0,
    cost_usd: float = 0.0,
    account: AccountId = ACCOUNT,
) -> Claim:
    return Claim(
        gateway=of,
        account_id=account,
        key_id=KeyId(key) if key is not None else None,
        provider=provider,
        model=model,
        metadata=metadata or {},
        tokens=tokens,
        cost_usd=cost_usd,
    )
