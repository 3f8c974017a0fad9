"""Reasoning is split from the answer, with a model that says its script in the real engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from openworks.core.clock import SystemClock
from openworks.core.errors import UnsupportedParameterError
from openworks.engines.pool import EnginePool, EnginesConfig
from openworks.ports.catalog import Deployment
from openworks.ports.text import ChatRequest, Sampling, TextChunk
from tests.models import ACCOUNT, deployment, random_model
from tests.scripted_model import REASONING_TEMPLATE, write_scripted_model

SCRIPT = ["<think>", "\nLet me", " see", ".\n", "</think>", "\n\n", "For", "ty", "-two"]


@pytest.fixture
async def pool() -> AsyncIterator[EnginePool]:
    made = EnginePool(EnginesConfig(), clock=SystemClock())
    yield made
    await made.close()


@pytest.fixture
def thinker(tmp_path: Path) -> Deployment:
    write_scripted_model(tmp_path / "thinker.gguf", SCRIPT, template=REASONING_TEMPLATE)
    return deployment(tmp_path / "thinker.gguf", "thinker")


async def answer(
    pool: EnginePool, made: Deployment, *, effort: str | None = None, stop: tuple[str, ...] = ()
) -> list[TextChunk]:
    request = ChatRequest(
        messages=[{"role": "user", "content": "What is six times seven?"}],
        reasoning_effort=effort,
        sampling=Sampling(stop=stop, max_tokens=50),
    )
    async with aclosing(pool.chat(made, ACCOUNT).stream(request)) as chunks:
        return [chunk async for chunk in chunks]


def joined(chunks: list[TextChunk], part: str) -> str:
    return "".join(str(getattr(chunk, part)) for chunk in chunks)


async def test_reasoning_comes_apart_from_the_answer_and_before_it(
    pool: EnginePool, thinker: Deployment
) -> None:
    chunks = await answer(pool, thinker)
    assert joined(chunks, "reasoning").strip() == "Let me see."
    assert joined(chunks, "content").strip() == "Forty-two"
    kinds = [bool(chunk.reasoning) for chunk in chunks if chunk.reasoning or chunk.content.strip()]
    assert kinds == sorted(kinds, reverse=True)


async def test_marks_of_reasoning_are_in_neither_part(
    pool: EnginePool, thinker: Deployment
) -> None:
    chunks = await answer(pool, thinker)
    for part in ("reasoning", "content"):
        assert "think" not in joined(chunks, part)


async def test_reasoning_tokens_are_counted(pool: EnginePool, thinker: Deployment) -> None:
    usage = (await answer(pool, thinker))[-1].usage
    assert usage is not None
    assert usage.completion_tokens == len(SCRIPT) + 1  # and the end of the turn
    assert 2 <= usage.reasoning_tokens <= 6


async def test_stop_text_does_not_end_the_reasoning(pool: EnginePool, thinker: Deployment) -> None:
    chunks = await answer(pool, thinker, stop=("see", "y-t"))
    assert joined(chunks, "reasoning").strip() == "Let me see."
    assert joined(chunks, "content").strip() == "Fort"
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]


async def test_effort_none_switches_thinking_off_in_the_prompt(
    pool: EnginePool, thinker: Deployment
) -> None:
    with_thinking = (await answer(pool, thinker))[-1].usage
    without = (await answer(pool, thinker, effort="none"))[-1].usage
    assert with_thinking is not None
    assert without is not None
    assert without.prompt_tokens > with_thinking.prompt_tokens  # the template closed the thinking


async def test_effort_is_refused_by_a_model_that_does_not_reason(
    pool: EnginePool, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedParameterError, match="reasoning_effort 'low'"):
        await answer(pool, deployment(random_model(tmp_path / "plain.gguf")), effort="low")
