from __future__ import annotations

import asyncio
from typing import Any

import pytest

from openworks.core.errors import RateLimitError, ServerOverloadedError, SpendLimitError
from openworks.core.ids import RequestId
from openworks.gateway.gate import Gate
from openworks.ports.calls import Call
from openworks.ports.gateways import Concurrency, RateLimit, SpendRule
from openworks.ports.limits import Admission, Refusal
from tests.fakes import FakeLimiter, MemorySnapshots
from tests.unit.gateway.exchange_world import principal, snapshot

RATES: dict[str, Any] = {"rate_limits": (RateLimit(limit=1, interval_s=60),)}


def gate_of(limiter: FakeLimiter, **fields: Any) -> tuple[Gate, MemorySnapshots]:
    snapshots = MemorySnapshots(snapshot(gateway_id="default", **fields))
    return Gate(snapshots, limiter), snapshots


async def admit(gate: Gate, **call: Any) -> Admission | None:
    made = Call(
        request_id=RequestId("req_1"), principal=principal(), route="/v1/x", model="alias", **call
    )
    return await gate.admit(made, model="model", tokens=10, cost_usd=0.5)


@pytest.mark.parametrize(
    "fields",
    [
        RATES,
        {"spend_rules": (SpendRule(id="r", limit=1, window_s=60),)},
        {"concurrency": Concurrency(limit=1)},
    ],
)
async def test_call_claims_what_it_may_take(fields: dict[str, Any]) -> None:
    limiter = FakeLimiter()
    gate, _ = gate_of(limiter, **fields)
    assert await admit(gate, metadata={"team": "red"}) is not None
    claim = limiter.admissions[0].claim
    assert (claim.account_id, claim.key_id, claim.provider) == ("acme", "key_1", "workers-ai")
    assert (claim.model, claim.tokens, claim.cost_usd) == ("model", 10, 0.5)
    assert claim.metadata == {"team": "red"}


async def test_call_that_nobody_waits_for_takes_nobodys_turn() -> None:
    limiter = FakeLimiter()
    gate, _ = gate_of(limiter, **RATES, concurrency=Concurrency(limit=1))
    assert await admit(gate, is_background=True) is not None
    assert limiter.admissions[0].claim.gateway.concurrency is None
    assert limiter.admissions[0].claim.gateway.rate_limits


async def test_gateway_without_limits_asks_nobody() -> None:
    limiter = FakeLimiter()
    gate, _ = gate_of(limiter)
    assert await admit(gate) is None
    assert not limiter.admissions


async def test_call_of_a_gateway_that_does_not_exist_passes() -> None:
    limiter = FakeLimiter()
    gate, snapshots = gate_of(limiter, **RATES)
    assert await admit(gate, gateway_id="nobody") is None
    assert snapshots.asked == [("acme", "nobody")]


async def test_gateway_that_is_not_in_memory_is_asked_for() -> None:
    limiter = FakeLimiter()
    gate, snapshots = gate_of(limiter, **RATES)
    snapshots.is_fresh = False
    assert await admit(gate) is not None


@pytest.mark.parametrize(
    ("kind", "error", "code"),
    [
        ("rate", RateLimitError, "rate_limit_exceeded"),
        ("concurrency", RateLimitError, "concurrency_limit_exceeded"),
        ("spend", SpendLimitError, "spend_limit_exceeded"),
        ("unavailable", ServerOverloadedError, "server_overloaded"),
    ],
)
async def test_refusal_names_the_bucket_and_when_it_opens(
    kind: Any, error: type[RateLimitError], code: str
) -> None:
    limiter = FakeLimiter()
    gate, _ = gate_of(limiter, **RATES)
    limiter.refusal = Refusal(kind=kind, bucket="team-red", limit=10, used=9.5, retry_after_s=7.0)
    with pytest.raises(error, match="team-red") as caught:
        await admit(gate)
    assert caught.value.code == code
    assert caught.value.retry_after_s == 7.0


async def test_caller_that_leaves_while_it_waits_gives_its_place_back() -> None:
    limiter = FakeLimiter()
    limiter.turn = asyncio.Event()
    gate, _ = gate_of(limiter, **RATES)
    task = asyncio.create_task(admit(gate))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert limiter.left_the_queue == 1
