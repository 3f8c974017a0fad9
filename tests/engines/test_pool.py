"""The engine pool over real engine processes with a tiny random model."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest

from openworks.core.clock import SystemClock
from openworks.core.errors import (
    ContextLengthExceededError,
    EngineCrashedError,
    EngineOverloadedError,
    ModelLoadingError,
    ModelUnavailableError,
)
from openworks.engines.pool import EnginePool, EnginesConfig
from openworks.engines.supervisor import RestartConfig
from openworks.ports.text import ChatRequest, Sampling, TextChunk
from tests.models import ACCOUNT, deployment, random_model

GIB = 1 << 30
QUICK = RestartConfig(backoff_s=0.05, load_wait_s=30)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(tmp_path_factory.mktemp("models") / "random.gguf")


MakePool = Callable[[EnginesConfig], EnginePool]


@pytest.fixture
async def make_pool() -> AsyncIterator[MakePool]:
    async with AsyncExitStack() as stack:

        def make(config: EnginesConfig) -> EnginePool:
            pool = EnginePool(config, clock=SystemClock())
            stack.push_async_callback(pool.close)
            return pool

        yield make


def chat(text: str = "hi", *, max_tokens: int = 4) -> ChatRequest:
    return ChatRequest(
        messages=[{"role": "user", "content": text}],
        sampling=Sampling(max_tokens=max_tokens, temperature=0, logit_bias={511: -100}),
    )


async def answer(
    pool: EnginePool, name: str, weights: Path, *, memory_bytes: int = 0
) -> list[TextChunk]:
    stream = pool.chat(deployment(weights, name, memory_bytes=memory_bytes), ACCOUNT).stream(chat())
    async with aclosing(stream) as chunks:
        return [chunk async for chunk in chunks]


def pid_of(pool: EnginePool) -> int:
    pid = pool.residency()[0].pid
    assert pid is not None
    return pid


async def test_model_is_loaded_by_its_first_request_and_stays(
    make_pool: MakePool, weights: Path
) -> None:
    pool = make_pool(EnginesConfig())
    assert pool.residency() == []
    chunks = await answer(pool, "a", weights)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 4
    (row,) = pool.residency()
    assert (row.state, row.in_flight, row.restarts) == ("ready", 0, 0)
    assert row.memory_bytes > 1 << 20
    pid = row.pid
    await answer(pool, "a", weights)
    assert pid_of(pool) == pid


async def test_engine_that_is_killed_ends_its_requests_with_a_typed_error_and_comes_back(
    make_pool: MakePool, weights: Path
) -> None:
    pool = make_pool(EnginesConfig(restart=QUICK))
    stream = pool.chat(deployment(weights), ACCOUNT).stream(chat(max_tokens=900))
    async with aclosing(stream) as chunks:
        await anext(chunks)
        os.kill(pid_of(pool), signal.SIGKILL)
        with pytest.raises(EngineCrashedError):
            async for _ in chunks:
                pass
    await answer(pool, "random", weights)
    (row,) = pool.residency()
    assert (row.state, row.restarts, row.in_flight) == ("ready", 1, 0)


async def test_closed_stream_stops_the_engine_within_a_step(
    make_pool: MakePool, weights: Path
) -> None:
    pool = make_pool(EnginesConfig())
    model = pool.chat(deployment(weights), ACCOUNT)
    for _ in range(8):  # with four slots, leaked ones would leave no room for the last
        stream = model.stream(chat(max_tokens=900))
        async with aclosing(stream) as chunks:
            await anext(chunks)
    async with asyncio.timeout(5):
        await answer(pool, "random", weights)
    assert pool.residency()[0].in_flight == 0


async def test_broken_file_is_a_typed_error_that_names_it(
    make_pool: MakePool, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    pool = make_pool(EnginesConfig(restart=QUICK))
    with pytest.raises(ModelUnavailableError, match=r"broken\.gguf") as caught:
        await answer(pool, "broken", broken)
    assert caught.value.code == "model_load_failed"
    assert caught.value.retry_after_s is not None


async def test_request_that_will_not_wait_is_told_that_the_model_loads(
    make_pool: MakePool, weights: Path
) -> None:
    pool = make_pool(EnginesConfig(restart=RestartConfig(load_wait_s=0)))
    with pytest.raises(ModelLoadingError) as caught:
        await answer(pool, "a", weights)
    assert caught.value.retry_after_s is not None
    assert pool.residency()[0].in_flight == 0


async def test_least_recently_used_model_makes_room(make_pool: MakePool, weights: Path) -> None:
    pool = make_pool(EnginesConfig(memory_budget_gib=2.5))
    for name in ("a", "b", "a", "c"):
        await answer(pool, name, weights, memory_bytes=GIB)
    assert [row.deployment for row in pool.residency()] == ["c", "a"]


async def test_pinned_and_busy_models_are_not_evicted(make_pool: MakePool, weights: Path) -> None:
    pool = make_pool(EnginesConfig(memory_budget_gib=2.5))
    await pool.preload(deployment(weights, "pinned", memory_bytes=GIB, pinned=True))
    async with pool.lease(deployment(weights, "busy", memory_bytes=GIB)):
        with pytest.raises(ModelUnavailableError, match="busy or pinned") as caught:
            await answer(pool, "c", weights, memory_bytes=GIB)
        assert caught.value.retry_after_s is not None
    await answer(pool, "c", weights, memory_bytes=GIB)
    assert [row.deployment for row in pool.residency()] == ["c", "pinned"]


async def test_model_beyond_the_budget_is_refused_with_both_figures(
    make_pool: MakePool, weights: Path
) -> None:
    pool = make_pool(EnginesConfig(memory_budget_gib=1))
    with pytest.raises(ModelUnavailableError, match=r"needs 2\.00 GiB.*budget of 1\.00 GiB"):
        await answer(pool, "a", weights, memory_bytes=2 * GIB)


async def test_queue_that_is_full_refuses_and_loses_nobody(
    make_pool: MakePool, weights: Path
) -> None:
    pool = make_pool(EnginesConfig(max_queue=2))
    made = deployment(weights)
    async with AsyncExitStack() as stack:
        for _ in range(made.parallel + 2):
            await stack.enter_async_context(pool.lease(made))
        with pytest.raises(EngineOverloadedError, match="6 requests"):
            await answer(pool, "random", weights)
    await answer(pool, "random", weights)


async def test_prompt_beyond_the_context_is_refused_with_both_counts(
    make_pool: MakePool, weights: Path
) -> None:
    pool = make_pool(EnginesConfig())
    stream = pool.chat(deployment(weights), ACCOUNT).stream(chat("x" * 2000))
    with pytest.raises(ContextLengthExceededError, match=r"1024 tokens.*20\d\d tokens"):
        async with aclosing(stream) as chunks:
            await anext(chunks)


async def test_closing_the_pool_ends_every_process(make_pool: MakePool, weights: Path) -> None:
    pool = make_pool(EnginesConfig())
    await answer(pool, "a", weights)
    pid = pid_of(pool)
    await pool.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
