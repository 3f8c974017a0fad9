"""What is counted for a conversation is what its answer's usage says, whichever engine answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import cast

import gguf
import pytest
from gguf.scripts.gguf_new_metadata import MetadataDetails, copy_with_new_metadata

from benchmarks.random_model import PRESETS, write_random_llama
from benchmarks.random_parts import write_random_eyes
from openworks.core.clock import SystemClock
from openworks.core.errors import (
    ContextLengthExceededError,
    InvalidRequestError,
    UnsupportedParameterError,
)
from openworks.core.json import JsonObject
from openworks.engines.pool import EnginePool, EnginesConfig
from openworks.ports.catalog import Deployment, EngineName
from openworks.ports.text import ChatRequest, JsonFormat, Sampling
from tests.api.asks import COLOUR_SCHEMA, TIME, WEATHER
from tests.api.weights import TOOLS_TEMPLATE, TestModels
from tests.engine_choice import EACH_ENGINE
from tests.models import ACCOUNT, deployment
from tests.pictures import data_url, png

TOOLS: list[JsonObject] = [cast("JsonObject", WEATHER), cast("JsonObject", TIME)]
SYSTEM: JsonObject = {"role": "system", "content": "Be kind. 你好 🙂"}
USER: JsonObject = {"role": "user", "content": "What is the weather in Rome?"}
CALL: JsonObject = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'},
        }
    ],
}
RESULT: JsonObject = {"role": "tool", "tool_call_id": "call_1", "content": "Sunny"}
SCHEMA = JsonFormat(schema=COLOUR_SCHEMA)


@pytest.fixture(scope="module")
def model(models: TestModels, engine: EngineName) -> Deployment:
    made = replace(deployment(models.talker), engine=engine, context_tokens=2048)
    return replace(made, cache_tokens=8192, precision="float32") if engine == "batched" else made


@pytest.fixture
async def pool() -> AsyncIterator[EnginePool]:
    made = EnginePool(EnginesConfig(), clock=SystemClock())
    yield made
    await made.close()


async def used(pool: EnginePool, model: Deployment, request: ChatRequest) -> int:
    """What the answer's usage says of the prompt."""
    async with aclosing(pool.chat(model, ACCOUNT).stream(request)) as chunks:
        usages = [chunk.usage async for chunk in chunks]
    assert usages[-1] is not None
    return usages[-1].prompt_tokens


def asked(*messages: JsonObject) -> ChatRequest:
    return ChatRequest(messages=messages, sampling=Sampling(max_tokens=3, seed=1))


CONVERSATIONS = {
    "plain": asked(USER),
    "system": asked(SYSTEM, USER),
    "tools": replace(asked(SYSTEM, USER), tools=TOOLS),
    "must call": replace(asked(USER), tools=TOOLS, tool_choice="required"),
    "a named tool": replace(asked(USER), tools=TOOLS, tool_choice="get_time"),
    "no call": replace(asked(USER), tools=TOOLS, tool_choice="none"),
    "several turns": replace(asked(SYSTEM, USER, CALL, RESULT, USER), tools=TOOLS),
    "schema": replace(asked(USER), response_format=SCHEMA),
    "schema and tools": replace(asked(USER), tools=TOOLS, response_format=SCHEMA),
    "parts": asked({"role": "user", "content": [{"type": "text", "text": "One."}] * 2}),
    "several answers": replace(asked(USER), n=3),
    "nearly full": asked({"role": "user", "content": "word " * 400}),
}


@EACH_ENGINE
async def test_count_is_what_usage_says(pool: EnginePool, model: Deployment) -> None:
    counter = pool.token_counter(model)
    for name, request in CONVERSATIONS.items():
        counted = await counter.count_tokens(request)
        assert counted == await used(pool, model, request), name
        assert counted > 20, name


@EACH_ENGINE
async def test_conversation_beyond_the_context_is_counted(
    pool: EnginePool, model: Deployment
) -> None:
    long = asked({"role": "user", "content": "word " * 2000})

    counted = await pool.token_counter(model).count_tokens(long)

    assert counted > 10_000
    with pytest.raises(ContextLengthExceededError, match=f"resulted in {counted} tokens"):
        await used(pool, model, long)


@EACH_ENGINE
async def test_what_the_model_cannot_take_is_not_counted(
    pool: EnginePool, model: Deployment
) -> None:
    picture: JsonObject = {
        "type": "image_url",
        "image_url": {"url": data_url(png(4, 4, (0, 0, 0)))},
    }

    with pytest.raises(UnsupportedParameterError):
        await pool.token_counter(model).count_tokens(asked({"role": "user", "content": [picture]}))


async def test_a_template_that_refuses_is_said(
    pool: EnginePool, models: TestModels, tmp_path: Path
) -> None:
    refusal = "{%- if messages[0].content == 'Stop' %}{{ raise_exception('I go on.') }}{% endif %}"
    details = MetadataDetails(gguf.GGUFValueType.STRING, refusal + TOOLS_TEMPLATE)
    weights = tmp_path / "strict.gguf"
    copy_with_new_metadata(
        gguf.GGUFReader(models.plain),
        gguf.GGUFWriter(weights, "llama"),
        {gguf.Keys.Tokenizer.CHAT_TEMPLATE: details},
        [],
    )
    strict, stop = deployment(weights), asked({"role": "user", "content": "Stop"})

    with pytest.raises(InvalidRequestError) as answered:
        await used(pool, strict, stop)
    with pytest.raises(InvalidRequestError, match="I go on") as counted:
        await pool.token_counter(strict).count_tokens(stop)
    assert counted.value.message == answered.value.message


async def test_pictures_are_counted(pool: EnginePool, tmp_path: Path) -> None:
    weights, eyes = tmp_path / "chat.gguf", tmp_path / "mmproj-F16.gguf"
    write_random_llama(weights, PRESETS["tiny"])
    write_random_eyes(eyes, text_dim=PRESETS["tiny"].dim)
    seer = replace(deployment(weights), mmproj=eyes)
    picture: JsonObject = {
        "type": "image_url",
        "image_url": {"url": data_url(png(40, 40, (9, 9, 9)))},
    }
    shown = asked({"role": "user", "content": [{"type": "text", "text": "What?"}, picture]})

    assert await pool.token_counter(seer).count_tokens(shown) == await used(pool, seer, shown)
