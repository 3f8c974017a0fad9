"""Reranking and seeing, over real engine processes with random weights."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.random_model import PRESETS
from benchmarks.random_parts import write_random_eyes, write_random_reranker
from openworks.core.clock import SystemClock
from openworks.core.errors import InvalidRequestError, UnsupportedParameterError
from openworks.core.json import JsonObject
from openworks.engines.pool import EnginePool, EnginesConfig
from openworks.ports.catalog import Deployment, ModelEntry
from openworks.ports.text import ChatRequest, RerankRequest, Sampling
from tests.models import ACCOUNT, deployment, random_model
from tests.pictures import data_url, png


@pytest.fixture
async def pool() -> AsyncIterator[EnginePool]:
    made = EnginePool(EnginesConfig(), clock=SystemClock())
    yield made
    await made.close()


@pytest.fixture
def reranker(tmp_path: Path) -> Deployment:
    write_random_reranker(tmp_path / "reranker.gguf")
    return Deployment(
        entry=ModelEntry(id="reranker", name="reranker", task="rerank"),
        engine="llamacpp",
        weights=tmp_path / "reranker.gguf",
        context_tokens=256,
    )


@pytest.fixture
def seeing(tmp_path: Path) -> Deployment:
    write_random_eyes(tmp_path / "eyes.gguf", text_dim=PRESETS["tiny"].dim)
    return replace(deployment(random_model(tmp_path / "chat.gguf")), mmproj=tmp_path / "eyes.gguf")


def shown(colour: tuple[int, int, int]) -> ChatRequest:
    parts: list[JsonObject] = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": data_url(png(40, 40, colour))}},
    ]
    return ChatRequest(
        messages=[{"role": "user", "content": [*parts]}],
        sampling=Sampling(max_tokens=12, temperature=0),
    )


async def said(pool: EnginePool, made: Deployment, request: ChatRequest) -> str:
    async with aclosing(pool.chat(made, ACCOUNT).stream(request)) as chunks:
        return "".join([chunk.content async for chunk in chunks])


async def test_scores_come_in_the_order_of_the_documents(
    pool: EnginePool, reranker: Deployment
) -> None:
    documents = ["a b c", "x y z q", "a b c", "m"]
    result = await pool.reranker(reranker).rerank(RerankRequest(query="a b", documents=documents))
    assert len(result.scores) == 4
    assert result.scores[0] == pytest.approx(result.scores[2], abs=1e-4)
    assert result.scores[0] != pytest.approx(result.scores[1], abs=1e-6)
    assert result.usage.prompt_tokens > 8


async def test_reranker_does_not_chat(pool: EnginePool, reranker: Deployment) -> None:
    with pytest.raises(InvalidRequestError, match="for rerank, not for text-generation"):
        await said(pool, reranker, shown((0, 0, 0)))


async def test_answer_depends_on_the_picture(pool: EnginePool, seeing: Deployment) -> None:
    red, blue = shown((255, 0, 0)), shown((0, 0, 255))
    first = await said(pool, seeing, red)
    assert first
    assert await said(pool, seeing, red) == first
    assert await said(pool, seeing, blue) != first


async def test_broken_picture_is_refused_and_the_engine_goes_on(
    pool: EnginePool, seeing: Deployment
) -> None:
    broken: list[JsonObject] = [
        {"type": "image_url", "image_url": {"url": data_url(png(40, 40, (1, 2, 3))[:50])}}
    ]
    with pytest.raises(InvalidRequestError):
        await said(pool, seeing, ChatRequest(messages=[{"role": "user", "content": [*broken]}]))
    assert await said(pool, seeing, shown((255, 0, 0)))


async def test_picture_is_refused_without_eyes(pool: EnginePool, seeing: Deployment) -> None:
    with pytest.raises(UnsupportedParameterError, match="does not see"):
        await said(pool, replace(seeing, mmproj=None), shown((255, 0, 0)))
