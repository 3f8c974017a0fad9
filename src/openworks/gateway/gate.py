"""The limits and budgets of a call to this server's own models, whatever route it came by."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace

from openworks.core.errors import (
    AppError,
    RateLimitError,
    ServerOverloadedError,
    SpendLimitError,
)
from openworks.ports.calls import LOCAL_PROVIDER, Call
from openworks.ports.limits import Admission, Claim, Limiter, Refusal
from openworks.ports.snapshots import Snapshots


class Gate:
    """Lets calls pass as the caller's gateway says."""

    def __init__(self, snapshots: Snapshots, limiter: Limiter) -> None:
        self._snapshots = snapshots
        self._limiter = limiter

    async def admit(
        self, call: Call, *, model: str, tokens: int, cost_usd: float
    ) -> Admission | None:
        """Let a call pass, or refuse it; the admission must be settled when the call ends.

        Args:
            call: Names the account and the gateway.
            model: The catalogue id.
            tokens: The most that it may take, about.
            cost_usd: The same in money.

        Raises:
            RateLimitError: A limit is reached.
            SpendLimitError: A budget is used up.
            StorageError: The gateways cannot be read.
        """
        account, gateway_id = call.principal.account_id, call.gateway_id
        snapshot = self._snapshots.snapshot_nowait(account, gateway_id)
        if snapshot is None:
            snapshot = await self._snapshots.snapshot(account, gateway_id)
        if snapshot is None:
            return None
        gateway = snapshot.gateway
        if call.is_background:  # it waits for idle time, and must not keep others waiting with it
            gateway = replace(gateway, concurrency=None)
        if not (gateway.rate_limits or gateway.spend_rules or gateway.concurrency):
            return None
        claim = Claim(
            gateway=gateway,
            account_id=account,
            key_id=call.principal.key_id,
            provider=LOCAL_PROVIDER,
            model=model,
            metadata=call.metadata,
            tokens=tokens,
            cost_usd=cost_usd,
        )
        decided = self._limiter.admit(claim)
        return passed(await decided if isinstance(decided, Awaitable) else decided)


def passed(decided: Admission | Refusal) -> Admission:
    """Return the admission.

    Raises:
        RateLimitError: It is a refusal; or a `SpendLimitError`, or a `ServerOverloadedError`.
    """
    if isinstance(decided, Refusal):
        raise refused(decided)
    return decided


def refused(refusal: Refusal) -> AppError:
    """Return what a caller is told of a limit: which, how much is used, and when it opens."""
    bucket, used, limit = refusal.bucket, refusal.used, refusal.limit
    if refusal.kind == "spend":
        return SpendLimitError(
            f"Spending limit exceeded: {bucket} has {used:.10g} of {limit:.10g} spent or set "
            "aside, which leaves less than this call may take.",
            retry_after_s=refusal.retry_after_s,
        )
    if refusal.kind == "unavailable":
        return ServerOverloadedError(
            f"The gateway cannot count this call now: {bucket}.",
            retry_after_s=refusal.retry_after_s,
        )
    kind = "rate_limit_exceeded" if refusal.kind == "rate" else "concurrency_limit_exceeded"
    return RateLimitError(
        f"Rate limited: {bucket} has reached {used:.10g} of {limit:.10g}.",
        code=kind,
        retry_after_s=refusal.retry_after_s,
    )
