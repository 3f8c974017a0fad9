"""Two servers that share one Redis: what either of them counts and keeps holds for both."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from itertools import count
from typing import Any

import httpx2
import pytest

from tests.gateway.gateway_server import GatewayServer, Place, chat_body
from tests.gateway.stand_in import StandIn, answer_as_provider
from tests.redis_server import RedisServer
from tests.server import SETTLE_S, wait_until

MOST_TOKENS = 64 + 40
"""More than one call of the tests of budgets sets aside: `max_tokens`, and its body by four."""
_numbers = count(1)


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def servers(
    provider: StandIn, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[GatewayServer]]:
    """Two servers with a database of their own each: they have only Redis in common."""
    flags = {"gateway.redis_url": redis_server.url, "gateway.redis_processes": 2}
    with ExitStack() as stack:
        started = []
        for name in ("one", "other"):
            started.append(GatewayServer(provider, tmp_path_factory.mktemp(name), flags))
            stack.callback(started[-1].stop)
        yield started


@pytest.fixture
def places(servers: list[GatewayServer]) -> list[Place]:
    """One account of the test's own, on both servers."""
    provider = servers[0].provider
    provider.clear()
    provider.script(answer_as_provider)
    account = f"account-{next(_numbers)}"
    return [Place(server, account) for server in servers]


async def _ask(
    client: httpx2.AsyncClient, place: Place, model: str = "mock", **more: object
) -> int:
    answer = await client.post(
        place.url("openai/chat/completions", "gw"),
        json=chat_body(model, **more),
        headers=place.headers(),
    )
    return answer.status_code


def _client() -> httpx2.AsyncClient:
    return httpx2.AsyncClient(timeout=60, limits=httpx2.Limits(max_connections=200))


async def _ask_both(places: list[Place], times: int, **more: Any) -> Counter[int]:
    """Ask each server so many times, all at once."""
    async with _client() as client:
        asked = [_ask(client, place, **more) for _ in range(times) for place in places]
        return Counter(await asyncio.gather(*asked))


def _make(places: list[Place], **fields: Any) -> None:
    for place in places:
        place.make(**fields)


def _served_tokens(provider: StandIn) -> int:
    counters = provider.counters
    return counters.prompt_tokens.total() + counters.completion_tokens.total()


@pytest.mark.parametrize("technique", ["fixed", "sliding"])
async def test_a_rate_limit_lets_its_number_pass_over_both_servers(
    places: list[Place], technique: str
) -> None:
    _make(
        places,
        rate_limiting_interval=3600,
        rate_limiting_limit=50,
        rate_limiting_technique=technique,
    )

    statuses = await _ask_both(places, 60)

    assert statuses == {200: 50, 429: 70}
    assert len(places[0].provider.requests) == 50
    assert await _ask_both(places, 3) == {429: 6}


async def test_a_limit_that_one_server_used_up_is_used_up_on_the_other(
    places: list[Place],
) -> None:
    _make(places, rate_limiting_interval=3600, rate_limiting_limit=20)

    assert await _ask_both(places[:1], 30) == {200: 20, 429: 10}
    assert await _ask_both(places[1:], 10) == {429: 10}


async def test_a_budget_is_spent_over_both_servers_and_never_overdrawn(
    places: list[Place],
) -> None:
    rule = {"limit": 3000, "limitType": "tokens", "window": 86_400}
    _make(places, spend_limits={"enabled": True, "rules": [rule]})
    provider = places[0].provider

    statuses = await _ask_both(places, 60, model="mock-p5-t30", max_tokens=64)
    assert set(statuses) == {200, 429}
    assert _served_tokens(provider) <= 3000

    # One after the other: what calls set aside and did not use comes back, to either server.
    end_s = time.monotonic() + SETTLE_S
    async with _client() as client:
        while _served_tokens(provider) <= 3000 - MOST_TOKENS and time.monotonic() < end_s:
            for place in places:
                await _ask(client, place, "mock-p5-t30", max_tokens=64)
    last = await _ask_both(places, 10, model="mock-p5-t30", max_tokens=64)

    assert 3000 - MOST_TOKENS < _served_tokens(provider) <= 3000
    assert last[429] >= 18


def test_an_answer_that_one_server_kept_is_a_hit_on_the_other(
    places: list[Place], redis_server: RedisServer
) -> None:
    redis = pytest.importorskip("redis")
    _make(places, cache_ttl=60)
    with redis.Redis.from_url(redis_server.url) as store:
        before = len(store.keys("openworks:answer:*"))
        first = places[0].chat("gpt-4o-mini", gateway="gw")
        wait_until(
            lambda: len(store.keys("openworks:answer:*")) > before, what="the answer in Redis"
        )
    second = places[1].chat("gpt-4o-mini", gateway="gw")

    assert first.headers["cf-aig-cache-status"] == "MISS"
    assert second.headers["cf-aig-cache-status"] == "HIT"
    assert second.content == first.content
    assert len(places[0].provider.requests) == 1
    record = places[1].record_of(second)
    assert (record.cached, record.cost_usd, record.usage.prompt_tokens) == (True, 0, 120)


class _Load:
    """Callers of both servers who never rest."""

    def __init__(self, places: list[Place], *, callers: int, **more: Any) -> None:
        self.statuses: Counter[int] = Counter()
        self._places = places
        self._callers = callers
        self._more = more
        self._is_over = False

    async def run_during(self, story: Coroutine[Any, Any, None]) -> None:
        """Ask until the story is told."""
        async with _client() as client:
            callers = [
                asyncio.create_task(self._call(client, place))
                for place in self._places
                for _ in range(self._callers)
            ]
            try:
                await story
            finally:
                self._is_over = True
                await asyncio.gather(*callers)

    async def _call(self, client: httpx2.AsyncClient, place: Place) -> None:
        while not self._is_over:
            self.statuses[await _ask(client, place, **self._more)] += 1

    async def wait_for(self, is_so: Callable[[], bool], *, what: str) -> None:
        end_s = time.monotonic() + SETTLE_S
        while not is_so():
            assert time.monotonic() < end_s, f"Waited in vain for {what}: {self.statuses}"
            await asyncio.sleep(0.02)


def _events(places: list[Place], event: str) -> list[int]:
    return [place.server.process.log.read_text().count(f'"{event}"') for place in places]


async def test_redis_that_dies_under_load_fails_no_call_and_limits_hold_again_after(
    places: list[Place], redis_server: RedisServer
) -> None:
    limit = 400
    _make(places, rate_limiting_interval=3600, rate_limiting_limit=limit, cache_ttl=0)
    load = _Load(places, callers=4, model="mock-d20")
    downs, backs = _events(places, "limits.store_down"), _events(places, "limits.store_back")

    async def die_and_return() -> None:
        await load.wait_for(lambda: load.statuses[200] >= 60, what="calls with Redis")
        await asyncio.to_thread(redis_server.kill)
        await load.wait_for(
            lambda: _all_grew(downs, _events(places, "limits.store_down")), what="the outage"
        )
        at = load.statuses[200]
        await load.wait_for(lambda: load.statuses[200] >= at + 40, what="calls without Redis")
        await asyncio.to_thread(redis_server.start)
        await load.wait_for(
            lambda: _all_grew(backs, _events(places, "limits.store_back")), what="the return"
        )
        # A store that lost its memory grants nothing for some seconds; then, what is left.
        await load.wait_for(lambda: load.statuses[200] >= 0.95 * limit, what="the limit")
        refused = load.statuses[429]
        await load.wait_for(lambda: load.statuses[429] >= refused + 100, what="refusals")

    await load.run_during(die_and_return())

    assert set(load.statuses) == {200, 429}
    # Without Redis each server has its part of what was left, by what it knew.
    assert load.statuses[200] <= 1.1 * limit
    _make(places, rate_limiting_interval=1800, rate_limiting_limit=50)
    assert await _ask_both(places, 60) == {200: 50, 429: 70}


def _all_grew(before: list[int], now: list[int]) -> bool:
    return all(a < b for a, b in zip(before, now, strict=True))
