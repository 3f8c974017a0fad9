"""One process of several that take from the same limits as fast as they can.

python -m tests.contract.limiter_process redis://127.0.0.1:6379/0 2000
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable

from openworks.core.clock import SystemClock
from openworks.core.ids import new_id
from openworks.gateway.limits.base import LimitsConfig
from openworks.gateway.limits.shared import SharedLimiter, SharedLimitsConfig
from openworks.ports.gateways import RateLimit, SpendRule
from openworks.ports.limits import Claim, Refusal
from openworks.storage.redis.client import make_client
from openworks.storage.redis.limits import RedisCounts
from tests.unit.gateway.limits.claims import claim, gateway

_REFUSALS = 40
"""A second without a single call passing, and everything that others held has come back."""


async def take_all(limiter: SharedLimiter, asked: Claim) -> int:
    """Take until nothing more is to be had."""
    passed = refused = 0
    while refused < _REFUSALS:
        asking = limiter.admit(asked)
        decision = await asking if isinstance(asking, Awaitable) else asking
        if isinstance(decision, Refusal):
            refused += 1
            await asyncio.sleep(0.025)
        else:
            refused = 0
            passed += 1
            decision.settle(tokens=1, cost_usd=0.0)
            if passed % 50 == 0:
                await asyncio.sleep(0.001)
    return passed


async def main(url: str, limit: int) -> None:
    client = make_client(url)
    limiter = SharedLimiter(
        RedisCounts(client),
        clock=SystemClock(),
        new_id=new_id,
        config=LimitsConfig(),
        shared=SharedLimitsConfig(processes=3),
    )
    await limiter.open()
    rate = gateway(RateLimit(limit=limit, interval_s=86_400, technique="sliding"), name="rate")
    budget = gateway(
        SpendRule(id="cap", limit=limit, unit="tokens", window_s=86_400), name="budget"
    )
    rates, tokens = await asyncio.gather(
        take_all(limiter, claim(rate)), take_all(limiter, claim(budget, tokens=1))
    )
    await limiter.close()
    await client.aclose()
    print(json.dumps({"rate": rates, "tokens": tokens}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
