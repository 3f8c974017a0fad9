from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworks.core.errors import InvalidRequestError
from openworks.core.ids import RequestId
from openworks.ports.calls import Call, Principal, Usage
from openworks.ports.files import File
from openworks.ports.runs import Run, RunSettings
from openworks.ports.text import ChatRequest, JsonFormat
from openworks.ports.threads import Message, Thread
from openworks.services.agent.loop import Incomplete
from openworks.services.runs.prompts import RunPrompts
from tests.unit.services.runs.world import MINE, ROUTE, WEATHER, ScriptedModel, World, a_message

CALL = Call(
    request_id=RequestId("req-1"), principal=Principal(account_id=MINE), route=ROUTE, model="m"
)


def a_world(*messages: Message, context_tokens: int = 4096) -> World:
    world = World(ScriptedModel())
    world.model.context_tokens = context_tokens
    world.threads.threads["t-1"] = Thread(id="t-1", account_id=MINE, created_at_s=0.0)
    world.threads.rows["t-1"] = list(messages)
    return world


def talk(*texts: str) -> list[Message]:
    """A user and an assistant say something in turn."""
    return [
        a_message(f"m-{number}", text, role=("user", "assistant")[number % 2])
        for number, text in enumerate(texts)
    ]


def a_run(**settings: Any) -> Run:
    return Run(
        id="run-1",
        thread_id="t-1",
        account_id=MINE,
        created_at_s=0.0,
        expires_at_s=600.0,
        settings=RunSettings(assistant_id="asst-1", model="m", **settings),
        route=ROUTE,
    )


async def asked(world: World, run: Run) -> ChatRequest | Incomplete:
    prompts = RunPrompts(world.model, world.threads, world.files)
    return await prompts.request(run, (), CALL)


async def texts(world: World, run: Run) -> list[Any]:
    request = await asked(world, run)
    assert isinstance(request, ChatRequest)
    return [message["content"] for message in request.messages]


async def test_short_thread_is_asked_as_a_whole_without_being_counted() -> None:
    world = a_world(*talk("One", "Two", "Three"))

    assert await texts(world, a_run(instructions="Be short.")) == [
        "Be short.",
        "One",
        "Two",
        "Three",
    ]
    assert world.model.num_counts == 0


@given(
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=30),
    context_tokens=st.integers(64, 2000),
)
async def test_as_many_of_the_newest_messages_are_asked_as_leave_room(
    lengths: list[int], context_tokens: int
) -> None:
    said = [f"{number} " + "w " * (length - 1) for number, length in enumerate(lengths)]
    world = a_world(*talk(*said), context_tokens=context_tokens)
    limit = context_tokens - min(1024, context_tokens // 4)

    found = await texts(world, a_run())

    dropped = len(said) - len(found)
    assert found == said[dropped:]
    sizes = [1 + length for length in lengths]
    starts = [0, *(at for at in range(1, len(said)) if at % 2 == 0 or at == len(said) - 1)]
    assert dropped in starts
    if len(found) > 1:
        assert sum(sizes[dropped:]) <= limit
    for start in starts:
        if start < dropped:
            assert sum(sizes[start:]) > limit


async def test_thread_of_thousands_of_messages_is_read_as_far_as_it_fits() -> None:
    world = a_world(*talk(*("word " * 9 for _ in range(5000))), context_tokens=8192)

    found = await texts(world, a_run())

    assert len(found) == 716  # of ten tokens each
    assert world.model.num_counts < 40


async def test_last_messages_are_those_that_the_run_did_not_write() -> None:
    world = a_world(*talk("One", "Two", "Three"))

    assert await texts(world, a_run(last_messages=2)) == ["Two", "Three"]


@pytest.mark.parametrize("last_messages", [None, 1])
async def test_prompt_over_its_own_limit_is_not_asked(last_messages: int | None) -> None:
    world = a_world(*talk("word " * 100))
    run = a_run(max_prompt_tokens=60, last_messages=last_messages)

    assert await asked(world, run) == Incomplete("max_prompt_tokens")


async def test_limit_of_prompts_drops_messages_like_the_context() -> None:
    world = a_world(*talk("word " * 3000, "Hm", "Now?"))

    assert await texts(world, a_run(max_prompt_tokens=1500)) == ["Now?"]


async def test_forced_call_is_forced_once() -> None:
    world = a_world(*talk("Hi"))
    first = a_run(tools=(WEATHER,), tool_choice="required", max_completion_tokens=9)
    second = replace(first, num_turns=1, usage=Usage(completion_tokens=2))

    for run, choice, most in ((first, "required", 9), (second, "auto", 7)):
        request = await asked(world, run)
        assert isinstance(request, ChatRequest)
        assert (request.tool_choice, request.sampling.max_tokens) == (choice, most)


async def test_format_of_the_answer_is_passed_on() -> None:
    world = a_world(*talk("Hi"))
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}

    for value, expected in (
        ("auto", None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, JsonFormat()),
        (schema, JsonFormat(schema={"type": "object"})),
    ):
        request = await asked(world, a_run(response_format=value))
        assert isinstance(request, ChatRequest)
        assert request.response_format == expected


def a_picture(**fields: Any) -> File:
    return File(
        **{
            "id": "file-1",
            "account_id": MINE,
            "created_at_s": 0,
            "filename": "a.png",
            "media_type": "",
            "purpose": "vision",
            "size_bytes": 3,
            "expires_at_s": None,
            **fields,
        }
    )


def showing() -> Message:
    image: Any = {"type": "image_file", "image_file": {"file_id": "file-1", "detail": "low"}}
    message = a_message("m-1", "What is it?")
    return replace(message, content=(*message.content, image))


async def test_image_of_a_file_is_shown_as_a_data_url() -> None:
    world = a_world(showing())
    world.files.files["file-1"] = (a_picture(), b"abc")

    assert await texts(world, a_run()) == [
        [
            {"type": "text", "text": "What is it?"},
            {
                "type": "image_url",
                "image_url": {"url": "data:image/png;base64,YWJj", "detail": "low"},
            },
        ]
    ]


@pytest.mark.parametrize("fields", [None, {"filename": "a.txt"}, {"size_bytes": 21 << 20}])
async def test_image_that_cannot_be_shown_is_named(fields: dict[str, Any] | None) -> None:
    world = a_world(showing())
    if fields is not None:
        world.files.files["file-1"] = (a_picture(**fields), b"abc")

    with pytest.raises(InvalidRequestError, match="'file-1'"):
        await asked(world, a_run())


async def test_thread_without_messages_is_not_asked() -> None:
    with pytest.raises(InvalidRequestError, match="'t-1'"):
        await asked(a_world(), a_run(instructions="Be short."))
