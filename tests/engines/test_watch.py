"""Engines that hang: told apart from those that are idle, and ended."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from openworks.core.clock import SystemClock
from openworks.core.errors import EngineCrashedError
from openworks.engines.pool import EnginePool, EnginesConfig
from openworks.engines.supervisor import RestartConfig
from openworks.ports.text import ChatModel, ChatRequest, Sampling
from tests.models import ACCOUNT, deployment, random_model

REQUEST = ChatRequest(
    messages=[{"role": "user", "content": "hi"}],
    sampling=Sampling(max_tokens=900, temperature=0, logit_bias={511: -100}),
)
MakePool = Callable[[RestartConfig], EnginePool]


@pytest.fixture
async def make_pool() -> AsyncIterator[MakePool]:
    pools: list[EnginePool] = []

    def make(config: RestartConfig) -> EnginePool:
        pools.append(EnginePool(EnginesConfig(restart=config), clock=SystemClock()))
        return pools[-1]

    yield make
    for pool in pools:
        await pool.close()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return random_model(tmp_path / "random.gguf")


async def first_chunks(model: ChatModel, count: int) -> None:
    async with aclosing(model.stream(REQUEST)) as chunks:
        for _ in range(count):
            await anext(chunks)


def freeze(pool: EnginePool) -> int:
    pid = pool.residency()[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    return pid


async def until_restarted(pool: EnginePool) -> None:
    async with asyncio.timeout(60):
        while pool.residency()[0].restarts == 0:  # noqa: ASYNC110 - the pool tells nobody
            await asyncio.sleep(0.05)


async def test_engine_that_was_idle_for_long_is_not_taken_for_hung(
    make_pool: MakePool, weights: Path
) -> None:
    pool = make_pool(RestartConfig(stall_timeout_s=1.5))
    model = pool.chat(deployment(weights), ACCOUNT)
    await first_chunks(model, 2)
    await asyncio.sleep(2.5)
    async with aclosing(model.stream(REQUEST)) as chunks:
        await anext(chunks)
        await asyncio.sleep(1.2)  # a turn of the watch passes while it has work
        assert pool.residency()[0].restarts == 0
    await first_chunks(model, 2)
    assert pool.residency()[0].restarts == 0


async def test_engine_that_says_nothing_while_it_has_work_is_ended(
    make_pool: MakePool, weights: Path
) -> None:
    pool = make_pool(RestartConfig(stall_timeout_s=1, backoff_s=0.05, load_wait_s=60))
    model = pool.chat(deployment(weights), ACCOUNT)
    await first_chunks(model, 2)
    freeze(pool)
    with pytest.raises(EngineCrashedError):
        await first_chunks(model, 2)
    await until_restarted(pool)
    await first_chunks(model, 2)


async def test_engine_that_does_not_let_go_of_a_cancelled_request_is_ended(
    make_pool: MakePool, weights: Path
) -> None:
    pool = make_pool(RestartConfig(cancel_timeout_s=1, backoff_s=0.05, load_wait_s=60))
    model = pool.chat(deployment(weights), ACCOUNT)
    async with aclosing(model.stream(REQUEST)) as chunks:
        await anext(chunks)
        freeze(pool)
    await until_restarted(pool)
    await first_chunks(model, 2)
