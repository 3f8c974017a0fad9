"""Work that nobody waits for runs on real engines, and gives way to whoever asks."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest

from openworks.core.clock import SystemClock
from openworks.core.errors import ContextLengthExceededError, EngineOverloadedError
from openworks.engines.pool import EnginePool, EnginesConfig
from openworks.ports.catalog import Deployment, EngineName
from openworks.ports.text import ChatRequest, CompletionRequest, EmbeddingRequest, Sampling
from tests.api.weights import TestModels
from tests.engine_choice import EACH_ENGINE
from tests.models import ACCOUNT, deployment

GIB = 1 << 30
LONG = 900
FOREVER = dict.fromkeys((509, 511), -100.0)


@pytest.fixture
def model(models: TestModels, engine: EngineName) -> Deployment:
    made = replace(deployment(models.talker), engine=engine)
    return replace(made, cache_tokens=8192, precision="float32") if engine == "batched" else made


@pytest.fixture
async def pool() -> AsyncIterator[EnginePool]:
    config = EnginesConfig(memory_budget_gib=1.5, quiet_s=0.05)
    made = EnginePool(config, clock=SystemClock())
    yield made
    await made.close()


def request(max_tokens: int, *, n: int = 1) -> ChatRequest:
    return ChatRequest(
        messages=[{"role": "user", "content": "hi"}],
        sampling=Sampling(max_tokens=max_tokens, temperature=0, seed=1, logit_bias=FOREVER),
        n=n,
    )


async def text_of(
    pool: EnginePool, model: Deployment, asked: ChatRequest, *, is_background: bool
) -> str:
    chat = pool.chat(model, ACCOUNT, is_background=is_background)
    async with aclosing(chat.stream(asked)) as chunks:
        return "".join([chunk.content async for chunk in chunks])


async def until_in_flight(pool: EnginePool, number: int) -> None:
    async with asyncio.timeout(30):
        while sum(row.in_flight for row in pool.residency()) != number:  # noqa: ASYNC110  # no event
            await asyncio.sleep(0.002)


@EACH_ENGINE
async def test_answer_is_the_one_that_somebody_would_have_got(
    pool: EnginePool, model: Deployment
) -> None:
    at_once = await text_of(pool, model, request(40), is_background=False)

    assert at_once
    assert await text_of(pool, model, request(40), is_background=True) == at_once


@EACH_ENGINE
async def test_request_stops_background_work_which_ends_all_the_same(
    pool: EnginePool, model: Deployment
) -> None:
    await text_of(pool, model, request(1), is_background=False)
    work = [
        asyncio.create_task(text_of(pool, model, request(LONG), is_background=True))
        for _ in range(6)
    ]
    await until_in_flight(pool, 3)  # all slots but one

    chat = pool.chat(model, ACCOUNT)
    async with aclosing(chat.stream(request(20))) as chunks:
        async for _ in chunks:
            assert sum(row.in_flight for row in pool.residency()) == 1

    texts = await asyncio.gather(*work)
    assert len(set(texts)) == 1
    assert len(texts[0]) > LONG / 2


@EACH_ENGINE
async def test_several_answers_fill_several_slots(pool: EnginePool, model: Deployment) -> None:
    texts = await asyncio.gather(
        *(text_of(pool, model, request(5, n=3), is_background=True) for _ in range(4))
    )

    assert all(texts)


@EACH_ENGINE
async def test_completion_in_the_background_is_complete(
    pool: EnginePool, model: Deployment
) -> None:
    asked = CompletionRequest(
        prompt="Once", sampling=Sampling(max_tokens=7, logit_bias=FOREVER), n=2
    )
    async with aclosing(
        pool.completions(model, ACCOUNT, is_background=True).stream(asked)
    ) as chunks:
        found = [chunk async for chunk in chunks]

    assert [chunk.index for chunk in found if chunk.finish_reason].count(1) == 1
    assert found[-1].usage is not None
    assert found[-1].usage.completion_tokens == 14


async def test_vectors_are_those_that_somebody_would_have_got(
    pool: EnginePool, models: TestModels
) -> None:
    made = deployment(models.encoder)
    made = replace(made, entry=replace(made.entry, task="text-embeddings"))
    asked = EmbeddingRequest(inputs=["one", "two", "three"], dimensions=8)

    at_once = await pool.embedder(made).embed(asked)
    later = await pool.embedder(made, is_background=True).embed(asked)

    for one, other in zip(at_once.vectors, later.vectors, strict=True):
        assert struct.unpack("<8f", one) == pytest.approx(struct.unpack("<8f", other), abs=1e-4)
    assert later.usage == at_once.usage


async def test_refusal_comes_at_once(pool: EnginePool, models: TestModels) -> None:
    asked = replace(request(1), messages=[{"role": "user", "content": "word " * 2000}])

    with pytest.raises(ContextLengthExceededError):
        await text_of(pool, deployment(models.talker), asked, is_background=True)


async def test_who_leaves_takes_background_work_along(pool: EnginePool, models: TestModels) -> None:
    made = deployment(models.talker)
    task = asyncio.create_task(text_of(pool, made, request(LONG), is_background=True))
    await until_in_flight(pool, 1)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    await until_in_flight(pool, 0)


async def test_background_work_puts_no_model_out_that_somebody_asked(
    pool: EnginePool, models: TestModels
) -> None:
    asked = deployment(models.talker, "asked", memory_bytes=GIB)
    other = deployment(models.plain, "other", memory_bytes=GIB)
    await text_of(pool, asked, request(1), is_background=False)

    with pytest.raises(EngineOverloadedError, match="'other'"):
        await text_of(pool, other, request(1), is_background=True)

    assert [row.deployment for row in pool.residency()] == ["asked"]


async def test_who_asks_puts_a_model_out_that_works_in_the_background(
    pool: EnginePool, models: TestModels
) -> None:
    asked = deployment(models.talker, "asked", memory_bytes=GIB)
    other = deployment(models.plain, "other", memory_bytes=GIB)
    work = asyncio.create_task(text_of(pool, other, request(LONG), is_background=True))
    await until_in_flight(pool, 1)

    assert await text_of(pool, asked, request(3), is_background=False)

    assert [row.deployment for row in pool.residency()] == ["asked"]
    with pytest.raises(EngineOverloadedError):  # it is tried again later
        await work
