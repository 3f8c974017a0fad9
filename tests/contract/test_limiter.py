from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from openworks.core.clock import SystemClock
from openworks.core.ids import new_id
from openworks.gateway.limits.base import LimitsConfig
from openworks.gateway.limits.local import LocalLimiter
from openworks.gateway.limits.shared import SharedLimiter, SharedLimitsConfig
from openworks.gateway.limits.shares import WhenDown
from openworks.ports.gateways import Concurrency, RateLimit, SpendRule
from openworks.ports.limits import Admission, Claim, Limiter, Refusal, Spent
from openworks.storage.redis.client import make_client
from openworks.storage.redis.limits import RedisCounts
from tests.redis_server import RedisServer
from tests.unit.gateway.limits.claims import ACCOUNT, claim, gateway

HOUR_S = 3600
DAY_S = 86_400


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    yield server
    server.kill()


@asynccontextmanager
async def shared_limiter(
    url: str, *, when_down: WhenDown = "local", processes: int = 1, grace_s: float = 3.0
) -> AsyncIterator[SharedLimiter]:
    client = make_client(url)
    limiter = SharedLimiter(
        RedisCounts(client, grace_s=grace_s),
        clock=SystemClock(),
        new_id=new_id,
        config=LimitsConfig(),
        shared=SharedLimitsConfig(when_down=when_down, processes=processes),
    )
    await limiter.open()
    try:
        yield limiter
    finally:
        await limiter.close()
        await client.aclose()


@pytest.fixture(params=["local", "redis"])
async def limiter(request: pytest.FixtureRequest) -> AsyncIterator[Limiter]:
    if request.param == "local":
        yield LocalLimiter(clock=SystemClock(), config=LimitsConfig())
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    async with shared_limiter(server.url) as opened:
        yield opened


async def admit(limiter: Limiter, asked: Claim) -> Admission | Refusal:
    decision = limiter.admit(asked)
    if asyncio.iscoroutine(decision):
        return await cast("Awaitable[Admission | Refusal]", decision)
    return cast("Admission | Refusal", decision)


async def count_admitted(limiter: Limiter, asked: Claim, tries: int) -> int:
    decisions = await asyncio.gather(*(admit(limiter, asked) for _ in range(tries)))
    return sum(not isinstance(decision, Refusal) for decision in decisions)


async def wait_for(condition: Callable[[], bool], *, what: str, timeout_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"Waited in vain for {what}."
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("technique", ["fixed", "sliding"])
async def test_limit_is_admitted_exactly(limiter: Limiter, technique: Any) -> None:
    asked = claim(gateway(RateLimit(limit=37, interval_s=DAY_S, technique=technique)))
    assert await count_admitted(limiter, asked, 100) == 37
    refused = await admit(limiter, asked)
    assert isinstance(refused, Refusal)
    assert (refused.kind, refused.bucket) == ("rate", "gateway")
    assert (refused.limit, refused.used) == (37, 37)
    assert 0 < refused.retry_after_s <= DAY_S * 62 / 60


async def test_all_limits_admit_or_none_counts(limiter: Limiter) -> None:
    of = gateway(
        RateLimit(limit=20, interval_s=DAY_S),
        RateLimit(limit=3, interval_s=DAY_S, per="key"),
        SpendRule(id="cap", limit=100, unit="tokens", window_s=DAY_S),
    )
    assert await count_admitted(limiter, claim(of, key="a", tokens=1), 30) == 3
    assert await count_admitted(limiter, claim(of, key="b", tokens=98), 30) == 0
    for key in "cdefgh":
        assert await count_admitted(limiter, claim(of, key=key), 30) == (2 if key == "h" else 3)


@pytest.mark.parametrize("technique", ["fixed", "sliding"])
async def test_budget_is_reserved_and_settled(limiter: Limiter, technique: Any) -> None:
    of = gateway(SpendRule(id="cap", limit=1.0, window_s=DAY_S, technique=technique))
    asked = claim(of, cost_usd=0.3)
    calls = [await admit(limiter, asked) for _ in range(4)]
    refused = calls.pop()
    assert isinstance(refused, Refusal)
    assert (refused.kind, refused.bucket, refused.limit) == ("spend", "cap", 1.0)
    for call in calls:
        assert not isinstance(call, Refusal)
        assert float(dict(call.remaining)[b"cf-aig-budget-limit"]) == 1.0
        call.settle(tokens=0, cost_usd=0.1)
        call.settle(tokens=0, cost_usd=0.1)
    await asyncio.sleep(0.06)  # the refusal is believed for so long
    assert await count_admitted(limiter, claim(of, cost_usd=0.7), 2) == 1


async def test_headers_count_down(limiter: Limiter) -> None:
    of = gateway(RateLimit(limit=3, interval_s=DAY_S))
    left = []
    for _ in range(3):
        call = await admit(limiter, claim(of))
        assert not isinstance(call, Refusal)
        left.append(dict(call.remaining)[b"x-ratelimit-remaining-requests"].decode())
    assert left == ["2", "1", "0"]


async def test_turns_bound_what_runs_at_once(limiter: Limiter) -> None:
    of = gateway(
        RateLimit(limit=1000, interval_s=DAY_S), concurrency=Concurrency(limit=2, queue=100)
    )
    running = most = 0

    async def call() -> None:
        nonlocal running, most
        admitted = await admit(limiter, claim(of, key="a"))
        assert not isinstance(admitted, Refusal)
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        admitted.settle(tokens=0, cost_usd=0.0)

    await asyncio.gather(*(call() for _ in range(50)))
    assert most == 2


async def test_cancelled_claims_leave_nothing_behind(limiter: Limiter) -> None:
    of = gateway(RateLimit(limit=10, interval_s=DAY_S), concurrency=Concurrency(limit=1, queue=100))
    first = await admit(limiter, claim(of))
    assert not isinstance(first, Refusal)
    waiting = [asyncio.create_task(admit(limiter, claim(of))) for _ in range(20)]
    await asyncio.sleep(0.01)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    first.settle(tokens=0, cost_usd=0.0)
    for _ in range(9):
        call = await admit(limiter, claim(of))
        assert not isinstance(call, Refusal)
        call.settle(tokens=0, cost_usd=0.0)


async def test_several_limiters_share_one_limit_and_one_budget(redis_server: RedisServer) -> None:
    async with AsyncExitStack() as stack:
        limiters = [
            await stack.enter_async_context(shared_limiter(redis_server.url)) for _ in range(3)
        ]
        rate = gateway(RateLimit(limit=500, interval_s=DAY_S, technique="sliding"), name="rate")
        counts = await asyncio.gather(
            *(count_admitted(each, claim(rate), 400) for each in limiters)
        )
        assert sum(counts) == 500

        spend = gateway(SpendRule(id="cap", limit=100, unit="tokens", window_s=DAY_S), name="spend")
        spent = 0
        for number in range(300):
            call = await admit(limiters[number % 3], claim(spend, tokens=10))
            if isinstance(call, Refusal):
                continue
            call.settle(tokens=1, cost_usd=0.0)
            spent += 1
        assert 90 < spent <= 100


async def test_unused_lease_comes_back_to_the_others(redis_server: RedisServer) -> None:
    async with (
        shared_limiter(redis_server.url) as one,
        shared_limiter(redis_server.url) as two,
    ):
        of = gateway(RateLimit(limit=1000, interval_s=DAY_S))
        used = await count_admitted(one, claim(of), 200)  # it leases more than it needs
        used += await count_admitted(one, claim(of), 200)
        for _ in range(200):
            used += await count_admitted(two, claim(of), 50)
            if used == 1000:
                break
            await asyncio.sleep(0.02)
        assert used == 1000
        assert await count_admitted(one, claim(of), 10) == 0


async def test_reservations_of_a_process_that_vanished_expire(redis_server: RedisServer) -> None:
    client = make_client(redis_server.url)
    gone = SharedLimiter(
        RedisCounts(client, owner_ttl_s=0.2),
        clock=SystemClock(),
        new_id=new_id,
        config=LimitsConfig(),
        shared=SharedLimitsConfig(),
    )
    await gone.open()
    of = gateway(SpendRule(id="cap", limit=10, unit="tokens", window_s=DAY_S))
    assert await count_admitted(gone, claim(of, tokens=10), 1) == 1
    await gone.close()  # without settling
    await client.aclose()
    async with shared_limiter(redis_server.url) as other:
        assert await count_admitted(other, claim(of, tokens=10), 1) == 0
        await asyncio.sleep(0.3)
        assert await count_admitted(other, claim(of, tokens=10), 1) == 1


async def test_ledger_is_restored_once_over_processes(redis_server: RedisServer) -> None:
    of = gateway(SpendRule(id="cap", limit=100, unit="tokens", window_s=DAY_S))
    row = Spent(at_s=time.time(), key_id=None, provider="p", model="m", tokens=60)
    async with shared_limiter(redis_server.url) as one, shared_limiter(redis_server.url) as two:
        await one.restore(ACCOUNT, of, [row])
        await two.restore(ACCOUNT, of, [row])
        assert await count_admitted(two, claim(of, tokens=41), 1) == 0
        await asyncio.sleep(0.06)
        assert await count_admitted(two, claim(of, tokens=40), 1) == 1


async def test_store_that_is_gone_refuses_where_the_settings_say_so(
    redis_server: RedisServer,
) -> None:
    of = gateway(RateLimit(limit=1000, interval_s=DAY_S))
    async with shared_limiter(redis_server.url, when_down="refuse", grace_s=0.1) as limiter:
        assert await count_admitted(limiter, claim(of), 1) == 1
        redis_server.kill()
        await wait_for(lambda: limiter.is_down, what="the outage to be seen")
        await asyncio.sleep(0.3)  # the lease ends
        refused = await admit(limiter, claim(of))
        assert isinstance(refused, Refusal)
        assert refused.kind == "unavailable"
        redis_server.start()
        await wait_for(lambda: not limiter.is_down, what="the store to be back")
        await asyncio.sleep(0.5)
        assert await count_admitted(limiter, claim(of), 2000) == 999


async def test_process_that_starts_without_a_store_uses_its_part(redis_server: RedisServer) -> None:
    redis_server.kill()
    of = gateway(RateLimit(limit=100, interval_s=DAY_S))
    async with shared_limiter(redis_server.url, processes=4) as limiter:
        assert await count_admitted(limiter, claim(of), 100) == 25
        redis_server.start()
        await wait_for(lambda: not limiter.is_down, what="the store to be there")
        await asyncio.sleep(0.5)
        assert await count_admitted(limiter, claim(of), 100) == 75


@pytest.mark.parametrize("is_budget", [False, True])
async def test_limit_holds_while_the_store_dies_and_returns_under_load(
    redis_server: RedisServer, is_budget: bool
) -> None:
    rule = (
        SpendRule(id="cap", limit=3000, unit="tokens", window_s=DAY_S)
        if is_budget
        else RateLimit(limit=3000, interval_s=DAY_S)
    )
    asked = claim(gateway(rule), tokens=1)
    admitted = 0
    stopping = False

    async def hammer(limiter: Limiter) -> None:
        nonlocal admitted
        while not stopping:
            call = await admit(limiter, asked)
            if not isinstance(call, Refusal):
                admitted += 1
                await asyncio.sleep(0.005)
                call.settle(tokens=1, cost_usd=0.0)
            else:
                await asyncio.sleep(0.005)

    async with AsyncExitStack() as stack:
        limiters = [
            await stack.enter_async_context(shared_limiter(redis_server.url, processes=3))
            for _ in range(3)
        ]
        load = [asyncio.create_task(hammer(each)) for each in limiters for _ in range(2)]
        await wait_for(lambda: admitted > 200, what="calls")
        redis_server.kill()
        await wait_for(lambda: all(each.is_down for each in limiters), what="the outage")
        at_outage = admitted
        await wait_for(lambda: admitted > at_outage + 100, what="calls without the store")
        redis_server.start()
        await wait_for(lambda: not any(each.is_down for each in limiters), what="the store")
        await wait_for(lambda: admitted >= 2990, what="all that is left", timeout_s=60.0)
        await asyncio.sleep(0.5)
        stopping = True
        await asyncio.gather(*load)
    assert 2990 <= admitted <= 3030  # what they took in the moment before the outage is estimated


def test_three_processes_admit_exactly_the_limit(redis_server: RedisServer) -> None:
    limit = 2000
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.contract.limiter_process", redis_server.url, str(limit)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        for _ in range(3)
    ]
    results = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sum(result["rate"] for result in results) == limit
    assert sum(result["tokens"] for result in results) == limit
