"""Responses by a scripted model: whole, streamed, in the background, over crashes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

import pytest

from openworks.core.errors import (
    ContextLengthExceededError,
    EngineCrashedError,
    InvalidRequestError,
    ModelLoadingError,
    NotFoundError,
)
from openworks.core.ids import AccountId
from openworks.core.json import JsonObject
from openworks.core.pages import PageRequest
from openworks.ports.events import StreamEvent
from openworks.ports.responses import Response
from openworks.services.responses.responses import NewResponse
from tests.unit.services.responses.world import (
    CALL,
    MINE,
    USAGE,
    Server,
    World,
    asking,
    bodies,
    called,
    ended,
    message,
    said,
    texts,
    thought,
)

THEIRS = AccountId("acct-theirs")
TOOLS: JsonObject = {"tools": [{"type": "function", "name": "add", "parameters": {}}]}


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def server(world: World) -> AsyncIterator[Server]:
    async with world.server() as opened:
        yield opened


async def streamed(server: Server, new: NewResponse) -> list[StreamEvent]:
    async with aclosing(server.responses.stream(new, CALL)) as events:
        return [event async for event in events]


async def followed(server: Server, response_id: str, after: int = -1) -> list[StreamEvent]:
    events = await server.responses.follow(MINE, response_id, after=after)
    assert events is not None
    async with aclosing(events):
        return [event async for event in events]


async def settled(server: Server, response_id: str) -> Response:
    """Return a response in the background once it has ended."""
    while True:
        response = await server.responses.get(MINE, response_id)
        if response.status not in {"queued", "in_progress"}:
            return response
        await asyncio.sleep(0)


async def names(world: World) -> list[str]:
    """Return the ids of all responses that are kept."""
    found = [f"resp_{number}" for number in range(100)]
    return [each for each in found if await world.store.get(MINE, each) is not None]


async def test_answer_is_kept_as_it_was_given(world: World, server: Server) -> None:
    world.models.scripts = [said("Good ", "day.")]

    response = await server.responses.answer(asking(), CALL)

    assert (response.status, response.usage, texts(response)) == ("completed", USAGE, ["Good day."])
    assert response.completed_at_s == world.clock.now_s()
    assert await server.responses.get(MINE, response.id) == response
    assert not world.jobs.jobs


async def test_stream_tells_of_everything_in_order(world: World, server: Server) -> None:
    world.models.scripts = [
        [
            *thought("Hm", "m."),
            *said("Let me ", "add.")[:-1],
            *called(0, "add", '{"a"', ":1}"),
            ended(),
        ]
    ]

    events = bodies(await streamed(server, asking(stream=True, settings=TOOLS)))

    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    assert [event["output_index"] for event in events if "output_index" in event] == (
        [0] * 7 + [1] * 4 + [2] * 3 + [1] * 3 + [2] * 2
    )


async def test_stream_ends_with_what_it_told(world: World, server: Server) -> None:
    world.models.scripts = [[*thought("Hm."), *said("Good ", "day.")]]

    events = bodies(await streamed(server, asking(stream=True)))

    response = events[-1]["response"]
    told = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert response["output"] == told
    assert [item["type"] for item in told] == ["reasoning", "message"]
    assert told[0]["content"] == [{"type": "reasoning_text", "text": "Hm."}]
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert told[1]["content"][0]["text"] == "".join(deltas) == "Good day."
    kept = await server.responses.get(MINE, response["id"])
    assert list(kept.output) == told


async def test_answer_of_nothing_is_an_empty_message(world: World, server: Server) -> None:
    world.models.scripts = [[ended()]]

    response = await server.responses.answer(asking(), CALL)

    assert texts(response) == [""]


async def test_answer_that_was_cut_off_is_incomplete(world: World, server: Server) -> None:
    world.models.scripts = [said("Good ", end="length")]

    response = await server.responses.answer(asking(), CALL)

    assert (response.status, response.incomplete_reason) == ("incomplete", "max_output_tokens")
    assert response.output[0]["status"] == "incomplete"
    assert response.completed_at_s is None


async def test_call_that_was_cut_off_is_not_gone_on_from(world: World, server: Server) -> None:
    world.models.scripts = [[*called(0, "add", '{"a"'), ended("length")], said("Three.")]
    first = await server.responses.answer(asking(settings=TOOLS), CALL)

    await server.responses.answer(asking("And?", previous_id=first.id), CALL)

    assert first.output[0]["status"] == "incomplete"
    assert world.models.asked() == [("user", "Hello"), ("user", "And?")]


async def test_refusal_before_the_first_word_leaves_nothing(world: World, server: Server) -> None:
    error = ContextLengthExceededError("It is too long.")
    world.models.scripts = [[error], [error]]

    with pytest.raises(ContextLengthExceededError):
        await server.responses.answer(asking(), CALL)
    with pytest.raises(ContextLengthExceededError):
        await streamed(server, asking(stream=True))

    assert not world.jobs.jobs
    assert await names(world) == []


async def test_failure_within_an_answer_is_told_and_kept(world: World, server: Server) -> None:
    world.models.scripts = [[*said("Good ")[:-1], EngineCrashedError("It is gone.")]]

    events = bodies(await streamed(server, asking(stream=True)))

    assert events[-1]["type"] == "response.failed"
    failed = events[-1]["response"]
    assert (failed["status"], failed["error"]["code"]) == ("failed", "server_error")
    kept = await server.responses.get(MINE, failed["id"])
    assert (kept.status, kept.error) == ("failed", failed["error"])
    assert not world.jobs.jobs


async def test_caller_who_leaves_a_stream_cancels_it(world: World, server: Server) -> None:
    world.models.scripts = [[*said("Good ")[:-1], asyncio.Event()]]
    events = server.responses.stream(asking(stream=True), CALL)
    (created,) = bodies([await anext(events)])

    await events.aclose()

    kept = await server.responses.get(MINE, created["response"]["id"])
    assert kept.status == "cancelled"
    assert not world.jobs.jobs


async def test_caller_who_leaves_an_answer_cancels_it(world: World, server: Server) -> None:
    world.models.scripts = [[asyncio.Event()]]
    waiting = asyncio.create_task(server.responses.answer(asking(), CALL))
    await world.models.is_asked.wait()

    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting

    (id_,) = await names(world)
    assert (await server.responses.get(MINE, id_)).status == "cancelled"
    assert not world.jobs.jobs


async def test_response_that_is_not_to_be_stored_is_not(world: World, server: Server) -> None:
    world.models.scripts = [said("Good day."), said("Good day.")]

    response = await server.responses.answer(asking(is_stored=False), CALL)
    await streamed(server, asking(stream=True, is_stored=False))

    assert texts(response) == ["Good day."]
    assert await names(world) == []
    with pytest.raises(NotFoundError, match=response.id):
        await server.responses.get(MINE, response.id)


async def test_later_response_knows_what_was_said_but_not_the_instructions(
    world: World, server: Server
) -> None:
    world.models.scripts = [said("Hello Anna."), said("Anna.")]
    told = {"instructions": "Be kind."}
    first = await server.responses.answer(asking("I am Anna.", settings=told), CALL)

    await server.responses.answer(asking("Who am I?", previous_id=first.id), CALL)

    assert world.models.asked(0) == [("system", "Be kind."), ("user", "I am Anna.")]
    assert world.models.asked(1) == [
        ("user", "I am Anna."),
        ("assistant", "Hello Anna."),
        ("user", "Who am I?"),
    ]


async def test_conversation_grows_with_each_response(world: World, server: Server) -> None:
    world.models.scripts = [said("Hello Anna."), said("Anna.")]
    conversation = await server.conversations.create(
        MINE, items=[message("Be kind.", "developer")], metadata={}
    )
    for text in ("I am Anna.", "Who am I?"):
        new = asking(text, conversation_id=conversation.id)
        await server.responses.answer(new, CALL)

    assert world.models.asked(1) == [
        ("system", "Be kind."),
        ("user", "I am Anna."),
        ("assistant", "Hello Anna."),
        ("user", "Who am I?"),
    ]
    page = await server.conversations.list_items(MINE, conversation.id, PageRequest(order="asc"))
    assert [item["role"] for item in page.items] == [
        "developer",
        "user",
        "assistant",
        "user",
        "assistant",
    ]


async def test_result_of_a_call_goes_with_the_call(world: World, server: Server) -> None:
    world.models.scripts = [[*called(0, "add", '{"a":1}'), ended("tool_calls")], said("Two.")]
    first = await server.responses.answer(asking("1+1?", settings=TOOLS), CALL)
    result: JsonObject = {"type": "function_call_output", "call_id": "call-0", "output": "2"}

    last = await server.responses.answer(asking(items=(result,), previous_id=first.id), CALL)

    assert texts(last) == ["Two."]
    _, call, output = world.models.requests[1].messages
    assert call["tool_calls"] == [
        {"id": "call-0", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}
    ]
    assert output == {"role": "tool", "tool_call_id": "call-0", "content": "2"}


async def test_reference_stands_for_an_item(world: World, server: Server) -> None:
    world.models.scripts = [said("Hello Anna."), said("Yes.")]
    first = await server.responses.answer(asking("I am Anna."), CALL)
    reference: JsonObject = {"type": "item_reference", "id": first.output[0]["id"]}

    await server.responses.answer(asking(items=(reference, message("Really?"))), CALL)

    assert world.models.asked() == [("assistant", "Hello Anna."), ("user", "Really?")]


@pytest.mark.parametrize(
    ("fields", "error", "param"),
    [
        ({"previous_id": "resp-x"}, NotFoundError, "previous_response_id"),
        ({"conversation_id": "conv-x"}, NotFoundError, "conversation"),
        ({"items": ({"type": "item_reference", "id": "x"},)}, InvalidRequestError, "input[0].id"),
        ({"items": ()}, InvalidRequestError, "input"),
        ({"items": (message("a", id="m"),) * 2}, InvalidRequestError, "input[1].id"),
    ],
)
async def test_what_does_not_fit_together_is_refused_by_name(
    server: Server, fields: dict[str, Any], error: type[InvalidRequestError], param: str
) -> None:
    with pytest.raises(error) as caught:
        await server.responses.answer(asking(**fields), CALL)

    assert caught.value.param == param


async def test_response_that_has_not_ended_is_not_gone_on_from(
    world: World, server: Server
) -> None:
    world.models.scripts = [[asyncio.Event()]]
    first = await server.responses.start(asking(is_background=True), CALL)

    with pytest.raises(InvalidRequestError, match="has not ended") as caught:
        await server.responses.answer(asking(previous_id=first.id), CALL)

    assert caught.value.param == "previous_response_id"


async def test_response_whose_beginnings_were_deleted_is_not_gone_on_from(
    world: World, server: Server
) -> None:
    world.models.scripts = [said("One."), said("Two.")]
    first = await server.responses.answer(asking(), CALL)
    second = await server.responses.answer(asking(previous_id=first.id), CALL)

    await server.responses.delete(MINE, first.id)

    with pytest.raises(InvalidRequestError, match=f"{second.id}.*{first.id}"):
        await server.responses.answer(asking(previous_id=second.id), CALL)


async def test_background_response_ends_without_its_caller(world: World, server: Server) -> None:
    world.models.scripts = [said("Good day.")]

    begun = await server.responses.start(asking(is_background=True), CALL)

    assert (begun.status, begun.output) == ("queued", ())
    done = await settled(server, begun.id)
    assert (done.status, texts(done)) == ("completed", ["Good day."])
    assert world.models.calls[0].request_id == f"{begun.id}-1"
    assert not world.jobs.jobs


async def test_background_stream_can_be_taken_up_behind_any_event(
    world: World, server: Server
) -> None:
    world.models.scripts = [said("Good ", "day.")]
    begun = await server.responses.start(asking(is_background=True, stream=True), CALL)
    events = await followed(server, begun.id)

    assert [event["type"] for event in bodies(events)[:3]] == [
        "response.created",
        "response.queued",
        "response.in_progress",
    ]
    for after in range(-1, len(events) - 1):
        assert await followed(server, begun.id, after) == events[after + 1 :]
    assert await server.responses.follow(MINE, begun.id, after=len(events) - 1) is None
    with pytest.raises(InvalidRequestError, match="starting_after"):
        await server.responses.follow(MINE, begun.id, after=len(events))


async def test_only_a_background_stream_can_be_taken_up(world: World, server: Server) -> None:
    world.models.scripts = [said("Good day."), said("Good day.")]
    begun = await server.responses.start(asking(is_background=True), CALL)
    streamed_once = bodies(await streamed(server, asking(stream=True)))[0]["response"]["id"]

    for id_ in (begun.id, streamed_once):
        with pytest.raises(InvalidRequestError) as caught:
            await server.responses.follow(MINE, id_)
        assert caught.value.param == "stream"


async def test_listeners_hear_nothing_twice_when_a_server_dies(world: World) -> None:
    dies = asyncio.Event()
    script = [*thought("Hm."), *said("Good ", "day, ")[:-1]]
    rest = [*said("Anna.")[:-1], *called(0, "add", "{}"), ended()]
    world.models.scripts = [[*script, dies, *rest], [*script, *rest]]
    new = asking(is_background=True, stream=True, settings=TOOLS)
    async with world.server() as first, world.server() as second:
        begun = await first.responses.start(new, CALL)
        heard = await first.responses.follow(MINE, begun.id)
        assert heard is not None
        before: list[StreamEvent] = []
        async with aclosing(heard):
            while len([event for event in before if event.name.endswith("text.delta")]) < 3:
                before.append(await anext(heard))

        world.clock.advance(60.0)  # its lease is over, and it does not know
        await second.take_up(begun.id)
        events = await followed(second, begun.id)
        dies.set()
        done = await settled(second, begun.id)

    assert events[: len(before)] == before
    told = bodies(events)
    assert (
        "".join(event["delta"] for event in told if event["type"] == "response.output_text.delta")
        == "Good day, Anna."
    )
    assert [event["type"] for event in told].count("response.output_item.added") == 3
    assert told[-1]["response"]["output"] == list(done.output)
    assert [request.sampling.seed for request in world.models.requests] == [11, 11]


async def test_foreground_response_of_a_dead_server_has_failed(world: World) -> None:
    world.models.scripts = [[*said("Good ")[:-1], asyncio.Event()]]
    async with world.server() as first, world.server() as second:
        events = first.responses.stream(asking(stream=True), CALL)
        (created,) = bodies([await anext(events)])
        id_ = created["response"]["id"]

        world.clock.advance(60.0)
        await second.take_up(id_)
        done = await settled(second, id_)
        await events.aclose()

        assert done.status == "failed"
        assert await second.responses.get(MINE, id_) == done


async def test_model_that_is_not_ready_is_asked_again(world: World, server: Server) -> None:
    world.models.scripts = [[ModelLoadingError("Not yet.")], said("Good day.")]
    begun = await server.responses.start(asking(is_background=True), CALL)
    await world.models.is_asked.wait()
    for _ in range(100):  # it is given back
        await asyncio.sleep(0)

    await server.take_up(begun.id)

    assert texts(await settled(server, begun.id)) == ["Good day."]


async def test_background_response_that_cannot_be_made_has_failed(
    world: World, server: Server
) -> None:
    world.models.scripts = [[ContextLengthExceededError("It is too long.")]]
    begun = await server.responses.start(asking(is_background=True, stream=True), CALL)

    events = bodies(await followed(server, begun.id))

    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"]["error"] == {
        "code": "invalid_prompt",
        "message": "It is too long.",
    }
    assert len(world.models.requests) == 1


async def test_cancelled_response_stays_cancelled(world: World, server: Server) -> None:
    world.models.scripts = [[*said("Good ")[:-1], asyncio.Event()]]
    begun = await server.responses.start(asking(is_background=True, stream=True), CALL)
    await world.models.is_asked.wait()

    cancelled = await server.responses.cancel(MINE, begun.id)

    assert cancelled.status == "cancelled"
    assert await server.responses.cancel(MINE, begun.id) == cancelled
    (*_, last) = bodies(await followed(server, begun.id))
    assert (last["type"], last["code"]) == ("error", "response_cancelled")


async def test_deleted_response_ends_first(world: World, server: Server) -> None:
    world.models.scripts = [[*said("Good ")[:-1], asyncio.Event()]]
    begun = await server.responses.start(asking(is_background=True, stream=True), CALL)
    heard = asyncio.create_task(followed(server, begun.id))
    await world.models.is_asked.wait()

    await server.responses.delete(MINE, begun.id)

    assert bodies(await heard)[-1]["code"] == "response_cancelled"
    assert await names(world) == []


async def test_response_that_is_listened_to_is_not_cancelled_by_name(
    world: World, server: Server
) -> None:
    world.models.scripts = [said("Good day.")]
    response = await server.responses.answer(asking(), CALL)

    with pytest.raises(InvalidRequestError, match="'background'"):
        await server.responses.cancel(MINE, response.id)


async def test_other_account_finds_nothing(world: World, server: Server) -> None:
    world.models.scripts = [said("Good day.")]
    response = await server.responses.answer(asking(), CALL)

    for asked in (
        server.responses.get(THEIRS, response.id),
        server.responses.follow(THEIRS, response.id),
        server.responses.cancel(THEIRS, response.id),
        server.responses.delete(THEIRS, response.id),
        server.responses.list_input(THEIRS, response.id, PageRequest()),
    ):
        with pytest.raises(NotFoundError, match=response.id):
            await asked

    assert await server.responses.get(MINE, response.id) == response


async def test_truncation_drops_the_oldest(world: World, server: Server) -> None:
    world.models.scripts = [said("b" * 20), said("d" * 20), said("f")]
    world.models.context_tokens = 100
    first = await server.responses.answer(asking("a" * 20), CALL)
    second = await server.responses.answer(asking("c" * 20, previous_id=first.id), CALL)
    settings: JsonObject = {"truncation": "auto", "max_output_tokens": 30, "instructions": "Be."}

    last = asking("e" * 20, previous_id=second.id, settings=settings)
    await server.responses.answer(last, CALL)

    assert world.models.asked() == [
        ("system", "Be."),
        ("user", "c" * 20),
        ("assistant", "d" * 20),
        ("user", "e" * 20),
    ]


async def test_compaction_stands_for_what_was_said(world: World, server: Server) -> None:
    world.models.scripts = [said("Anna said hello."), said("Anna.")]
    item, usage = await server.responses.compact(asking("I am Anna."), CALL)
    assert usage == USAGE

    await server.responses.answer(asking(items=(item, message("Who am I?"))), CALL)

    (_, first), last = world.models.asked()
    assert str(first).endswith("Anna said hello.")
    assert last == ("user", "Who am I?")
