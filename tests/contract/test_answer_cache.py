from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis

from openworks.core.clock import SystemClock
from openworks.gateway.caching.memory import MemoryAnswerCache
from openworks.ports.answers_cache import AnswerCache, CachedAnswer
from openworks.storage.redis.cache import RedisAnswerCache
from openworks.storage.redis.client import make_client
from tests.fakes import FakeClock
from tests.redis_server import RedisServer
from tests.unit.gateway.caching.answers import answer

KEY = bytes(range(32))


def memory() -> MemoryAnswerCache:
    return MemoryAnswerCache(max_bytes=1_000_000, clock=SystemClock())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    running = RedisServer(tmp_path_factory.mktemp("redis"))
    yield running
    running.kill()


@pytest.fixture
async def client(server: RedisServer) -> AsyncIterator[Redis]:
    opened = make_client(server.url, max_connections=2)
    await opened.flushall()
    yield opened
    await opened.aclose()


@dataclass
class Outage:
    """A server of the test's own, which may die."""

    server: RedisServer
    client: Redis


@pytest.fixture
async def outage(tmp_path: Path) -> AsyncIterator[Outage]:
    server = RedisServer(tmp_path)
    client = make_client(server.url, max_connections=2)
    yield Outage(server, client)
    await client.aclose()
    server.kill()


@pytest.fixture(params=["memory", "redis"])
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[AnswerCache]:
    if request.param == "memory":
        yield memory()
        return
    server: RedisServer = request.getfixturevalue("server")
    client = make_client(server.url, max_connections=2)
    await client.flushall()
    shared = RedisAnswerCache(client, local=memory(), clock=SystemClock())
    yield shared
    await shared.close()
    await client.aclose()


# Every cache


async def test_what_was_put_is_got_whole(cache: AnswerCache) -> None:
    made = answer(bytes(range(256)) * 100, stream=True)
    cache.put(KEY, made, ttl_s=60)
    assert cache.get(KEY) == made
    assert await cache.fetch(KEY) == made


async def test_an_unknown_key_is_a_miss(cache: AnswerCache) -> None:
    assert cache.get(KEY) is None
    assert await cache.fetch(KEY) is None


async def test_no_time_to_live_keeps_nothing(cache: AnswerCache) -> None:
    cache.put(KEY, answer(), ttl_s=0)
    assert cache.get(KEY) is None
    assert await cache.fetch(KEY) is None


async def test_an_answer_expires(cache: AnswerCache) -> None:
    cache.put(KEY, answer(), ttl_s=0.05)
    for _ in range(200):
        if await cache.fetch(KEY) is None:
            break
        await asyncio.sleep(0.005)
    assert await cache.fetch(KEY) is None


async def test_an_answer_over_the_limit_is_not_kept(cache: AnswerCache) -> None:
    cache.put(KEY, answer(b"x" * 2_000_001), ttl_s=60)
    assert cache.get(KEY) is None
    assert await cache.fetch(KEY) is None


async def test_the_newest_answer_counts(cache: AnswerCache) -> None:
    cache.put(KEY, answer(b"old"), ttl_s=60)
    cache.put(KEY, answer(b"new"), ttl_s=60)
    found = await cache.fetch(KEY)
    assert found is not None
    assert found.body == b"new"


# Several processes over one Redis


async def shared_answer(client: Redis, made: CachedAnswer, *, ttl_s: float = 60) -> None:
    writer = RedisAnswerCache(client, local=memory(), clock=SystemClock())
    writer.put(KEY, made, ttl_s=ttl_s)
    await writer.close()


async def test_another_process_finds_the_answer_and_then_has_it_itself(client: Redis) -> None:
    made = answer(stream=True)
    await shared_answer(client, made)
    reader = RedisAnswerCache(client, local=memory(), clock=SystemClock())
    assert reader.get(KEY) is None
    assert await reader.fetch(KEY) == made
    assert reader.get(KEY) == made
    assert reader.failures == 0


async def test_what_is_taken_over_lives_no_longer_than_in_redis(client: Redis) -> None:
    await shared_answer(client, answer(), ttl_s=30)
    clock = FakeClock()
    local = MemoryAnswerCache(max_bytes=100_000, clock=clock)
    reader = RedisAnswerCache(client, local=local, clock=clock)
    assert await reader.fetch(KEY)
    clock.advance(29)
    assert reader.get(KEY)
    clock.advance(1)
    assert reader.get(KEY) is None


async def test_reads_that_come_together_are_all_answered(client: Redis) -> None:
    writer = RedisAnswerCache(client, local=memory(), clock=SystemClock())
    keys = [b"%032d" % number for number in range(100)]
    for key in keys[:50]:
        writer.put(key, answer(key), ttl_s=60)
    await writer.close()
    reader = RedisAnswerCache(client, local=memory(), clock=SystemClock())
    found = await asyncio.gather(*(reader.fetch(key) for key in keys + keys))
    assert [item.body if item else None for item in found] == (keys[:50] + [None] * 50) * 2
    assert (reader.failures, writer.dropped) == (0, 0)


async def test_a_reader_that_leaves_takes_nothing_from_the_others(client: Redis) -> None:
    made = answer()
    await shared_answer(client, made)
    reader = RedisAnswerCache(client, local=memory(), clock=SystemClock())
    first, second = (asyncio.create_task(reader.fetch(KEY)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == made
    assert first.cancelled()


async def test_nonsense_in_redis_is_a_miss(client: Redis) -> None:
    await client.set(b"openworks:answer:1:" + KEY, b"\xc1nonsense", ex=60)
    await client.lpush(b"openworks:answer:1:other", b"no string")
    await client.expire(b"openworks:answer:1:other", 60)
    reader = RedisAnswerCache(client, local=memory(), clock=SystemClock())
    for found in await asyncio.gather(reader.fetch(KEY), reader.fetch(b"other")):
        assert found is None
    assert reader.failures == 2


async def test_every_entry_in_redis_expires(client: Redis) -> None:
    await shared_answer(client, answer(), ttl_s=60)
    (name,) = await client.keys(b"*")
    assert 59_000 < await client.pttl(name) <= 60_000


# Redis away


async def test_an_outage_is_a_miss_and_redis_is_asked_again_later(outage: Outage) -> None:
    clock = FakeClock()
    made = answer()
    await shared_answer(outage.client, made)
    outage.server.kill()
    cache = RedisAnswerCache(outage.client, local=memory(), clock=clock)
    assert await cache.fetch(KEY) is None
    assert await cache.fetch(KEY) is None
    assert cache.failures == 1  # the second was not sent
    cache.put(KEY, made, ttl_s=60)
    assert cache.get(KEY) == made  # this process has it all the same
    assert cache.dropped == 1
    outage.server.start()
    clock.advance(1)
    cache.put(b"later", made, ttl_s=60)
    await cache.close()
    other = RedisAnswerCache(outage.client, local=memory(), clock=clock)
    assert await other.fetch(b"later") == made
    assert (cache.failures, cache.dropped) == (1, 1)


async def test_a_server_that_never_answers_delays_once_and_no_longer_than_its_timeout() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    client = make_client(f"redis://127.0.0.1:{port}", timeout_s=0.05, max_connections=2)
    cache = RedisAnswerCache(client, local=memory(), clock=FakeClock())
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    found = await asyncio.gather(*(cache.fetch(b"%d" % number) for number in range(100)))
    assert found == [None] * 100
    assert loop.time() - begun_s < 1.0
    assert cache.failures == 1
    await client.aclose()
    listener.close()


async def test_writes_that_wait_are_bounded_in_bytes(client: Redis) -> None:
    cache = RedisAnswerCache(client, local=memory(), clock=SystemClock(), max_pending_bytes=20_000)
    for number in range(10):
        cache.put(b"%d" % number, answer(b"x" * 5_000), ttl_s=60)
    await cache.close()
    assert cache.dropped == 7
    assert await client.dbsize() == 3


async def test_reads_that_wait_are_bounded(client: Redis) -> None:
    await shared_answer(client, answer())
    cache = RedisAnswerCache(client, local=memory(), clock=SystemClock(), max_reads=1)
    first, second = await asyncio.gather(cache.fetch(KEY), cache.fetch(KEY))
    assert first is not None
    assert second is None
    assert await cache.fetch(KEY) is not None


async def test_a_full_server_still_gives_what_it_has(outage: Outage) -> None:
    made = answer()
    await shared_answer(outage.client, made)
    await outage.client.config_set("maxmemory", "1")
    cache = RedisAnswerCache(outage.client, local=memory(), clock=SystemClock())
    cache.put(b"new", made, ttl_s=60)
    await cache.close()
    assert (cache.failures, cache.dropped) == (1, 1)
    assert await cache.fetch(KEY) == made
