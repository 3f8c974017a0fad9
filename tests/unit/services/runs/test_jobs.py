from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Literal

import pytest

from openworks.core.errors import (
    ContextLengthExceededError,
    EngineCrashedError,
    InvalidRequestError,
    NotFoundError,
    ProviderError,
    RateLimitError,
)
from openworks.ports.events import StreamEvent
from openworks.ports.runs import Run
from openworks.ports.text import TextChunk
from openworks.services.runs.documents import run_body
from tests.unit.services.runs.world import (
    MINE,
    WEATHER,
    Fuse,
    Process,
    ScriptedModel,
    World,
    body_of,
    calls,
    names,
    text,
    until_burnt,
)

TEXT_EVENTS = [
    "thread.run.step.created",
    "thread.run.step.in_progress",
    "thread.message.created",
    "thread.message.in_progress",
    "thread.message.delta",
]
CALL_EVENTS = ["thread.run.step.created", "thread.run.step.in_progress", "thread.run.step.delta"]
BEGIN = ["thread.created", "thread.run.created", "thread.run.queued", "thread.run.in_progress"]
OUTPUT = {"call-get_weather": "21"}


def talker(*pieces: str) -> ScriptedModel:
    return ScriptedModel(text(*pieces))


def caller() -> ScriptedModel:
    """Says something, calls a function, and says something with what that returned."""
    first = [TextChunk(content="Let me "), TextChunk(content="see.")]
    return ScriptedModel(
        [*first, *calls(("get_weather", '{"city": "Paris"}'))],
        text("It is ", "21 ", "degrees."),
    )


async def test_run_tells_of_each_of_its_states_and_keeps_what_it_said() -> None:
    world = World(talker("Hel", "lo."))
    async with world.process() as process:
        run = await process.begin("Hi")
        events = await process.hear(run)

        assert names(events) == [
            *BEGIN,
            *TEXT_EVENTS,
            "thread.message.completed",
            "thread.run.step.completed",
            "thread.run.completed",
            "done",
        ]
        assert events == await world.stored(run.id)
        assert world.said() == ["Hi", "Hello."]
        over = await process.now(run)
        assert body_of(events[-2]) == run_body(over)
        assert (over.usage.prompt_tokens, over.usage.completion_tokens) == (50, 5)
        assert not world.jobs.jobs


async def test_call_of_a_function_waits_for_its_output_and_goes_on_with_it() -> None:
    world = World(caller())
    async with world.process() as process:
        run = await process.begin("What is the weather in Paris?", tools=(WEATHER,))
        first = await process.hear(run)
        waiting = await process.now(run)
        (call,) = waiting.open_calls
        assert (call.name, call.arguments) == ("get_weather", '{"city": "Paris"}')
        assert names(first)[-4:] == [
            "thread.message.completed",
            "thread.run.step.completed",
            "thread.run.requires_action",
            "done",
        ]

        await process.runs.submit(MINE, "t-1", run.id, OUTPUT)
        second = await process.hear(run, after=first[-1].number)

        assert names(second) == [
            "thread.run.step.completed",
            "thread.run.queued",
            "thread.run.in_progress",
            *TEXT_EVENTS,
            "thread.message.completed",
            "thread.run.step.completed",
            "thread.run.completed",
            "done",
        ]
    asked = world.model.requests[1].messages
    assert [each["role"] for each in asked] == ["user", "assistant", "tool"]
    assert asked[1]["content"] == "Let me see."
    assert asked[2] == {"role": "tool", "tool_call_id": "call-get_weather", "content": "21"}
    assert world.said()[1:] == ["Let me see.", "It is 21 degrees."]
    assert [step.status for step in world.store.rows[run.id]] == ["completed"] * 3
    usages = [step.usage.completion_tokens for step in world.store.rows[run.id]]
    assert usages == [0, 5, 5]


class Client:
    """Wants one answer with the weather, from whichever process is there."""

    def __init__(self, world: World, *, cancels: bool = False) -> None:
        self.world = world
        self.cancels = cancels
        self.heard: list[StreamEvent] = []
        self.num_asked_before_output = 0

    async def go_on(self, process: Process) -> None:
        run = next(iter(self.world.store.runs.values()), None)
        if run is None:
            run = await process.begin("What is the weather?", tools=(WEATHER,))
        while not self.heard or self.heard[-1].name != "done" or run.is_active:
            if run.status == "requires_action":
                self.num_asked_before_output = len(self.world.model.requests)
                await process.runs.submit(MINE, "t-1", run.id, OUTPUT)
            await self._listen(process, run)
            run = await process.now(run)

    async def _listen(self, process: Process, run: Run) -> None:
        async with aclosing(process.runs.events(run, after=len(self.heard) - 1)) as events:
            async for event in events:
                assert event.number == len(self.heard)
                self.heard.append(event)
                if self.cancels and event.name == "thread.message.delta":
                    run = await process.now(run)
                    if run.status not in {"cancelling", "cancelled"}:
                        await process.runs.cancel(MINE, "t-1", run.id)


def check(world: World, client: Client) -> None:
    """What must be so after any accident."""
    (run,) = world.store.runs.values()
    assert run.status == "completed"
    assert not world.jobs.jobs
    assert world.said() == ["What is the weather?", "Let me see.", "It is 21 degrees."]
    assert {each.status for each in world.threads.rows["t-1"]} == {"completed"}
    steps = world.store.rows[run.id]
    assert [(step.number, step.turn, step.status) for step in steps] == [
        (0, 0, "completed"),
        (1, 0, "completed"),
        (2, 1, "completed"),
    ]
    assert [step.message_id is None for step in steps] == [False, True, False]
    assert (run.num_turns, run.usage.prompt_tokens, run.usage.completion_tokens) == (2, 100, 10)
    assert names(client.heard) == [
        *BEGIN,
        *TEXT_EVENTS,
        *CALL_EVENTS,
        "thread.message.completed",
        "thread.run.step.completed",
        "thread.run.requires_action",
        "done",
        "thread.run.step.completed",
        "thread.run.queued",
        "thread.run.in_progress",
        *TEXT_EVENTS,
        "thread.message.completed",
        "thread.run.step.completed",
        "thread.run.completed",
        "done",
    ]
    assert heard_text(client) == "Let me see.It is 21 degrees."
    assert heard_arguments(client) == '{"city": "Paris"}'
    asked_again = world.model.requests[client.num_asked_before_output :]
    assert all(request.messages[-1]["role"] == "tool" for request in asked_again)


def heard_text(client: Client) -> str:
    deltas = [body_of(each) for each in client.heard if each.name == "thread.message.delta"]
    return "".join(delta["delta"]["content"][0]["text"]["value"] for delta in deltas)


def heard_arguments(client: Client) -> str:
    deltas = [body_of(each) for each in client.heard if each.name == "thread.run.step.delta"]
    found = [delta["delta"]["step_details"]["tool_calls"][0] for delta in deltas]
    assert [call["id"] for call in found if "id" in call] == ["call-get_weather"]
    return "".join(call["function"]["arguments"] for call in found)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_process_that_dies_at_any_call_loses_and_doubles_nothing(
    when: Literal["before", "after"],
) -> None:
    for at in range(1, 1000):
        world, fuse = World(caller()), Fuse(at, when)
        client = Client(world)
        async with world.process(fuse) as process:
            await until_burnt(fuse, client.go_on(process))
        async with world.process() as process, asyncio.timeout(20):
            await client.go_on(process)
            assert client.heard == await world.stored(next(iter(world.store.runs)))
        check(world, client)
        assert len(world.model.requests) <= 3
        if not fuse.is_burnt.is_set():
            break
    assert at > 35


@pytest.mark.parametrize("when", ["before", "after"])
async def test_process_that_dies_at_any_call_of_a_cancellation_leaves_a_cancelled_run(
    when: Literal["before", "after"],
) -> None:
    for at in range(1, 1000):
        endless: Sequence[TextChunk | asyncio.Event] = (*text("On and ", "on")[:2], asyncio.Event())
        world, fuse = World(ScriptedModel(endless)), Fuse(at, when)
        client = Client(world, cancels=True)
        async with world.process(fuse) as process:
            await until_burnt(fuse, client.go_on(process))
        async with world.process() as process, asyncio.timeout(20):
            (run,) = world.store.runs.values() or [await process.begin("Hi")]
            if run.is_active:
                await process.runs.cancel(MINE, "t-1", run.id)
            await client.go_on(process)
            assert client.heard == await world.stored(run.id)
        (run,) = world.store.runs.values()
        assert run.status == "cancelled"
        assert not world.jobs.jobs
        message = world.threads.rows["t-1"][1:]
        assert [each.status for each in message] == ["incomplete"] * len(message)
        assert heard_text(client) == "".join(world.said()[1:])
        assert names(client.heard).count("thread.run.cancelled") == 1
        if not fuse.is_burnt.is_set():
            break
    assert at > 15


async def test_cancelled_run_keeps_what_was_heard_of_it() -> None:
    forever = asyncio.Event()
    world = World(ScriptedModel([TextChunk(content="Once "), forever]))
    async with world.process() as process:
        run = await process.begin("Tell me")
        async with aclosing(process.runs.events(run, after=-1)) as events:
            async for event in events:
                if event.name == "thread.message.delta":
                    break
        asked = await process.runs.cancel(MINE, "t-1", run.id)
        assert asked.status == "cancelling"

        rest = await process.hear(run, after=event.number)

        assert names(rest) == [
            "thread.run.cancelling",
            "thread.message.incomplete",
            "thread.run.step.cancelled",
            "thread.run.cancelled",
            "done",
        ]
        assert body_of(rest[1])["incomplete_details"] == {"reason": "run_cancelled"}
        assert world.said() == ["Tell me", "Once "]
        with pytest.raises(InvalidRequestError, match="cancelled"):
            await process.runs.cancel(MINE, "t-1", run.id)


async def test_run_that_waits_for_its_caller_is_cancelled() -> None:
    world = World(caller())
    async with world.process() as process:
        run = await process.begin("Weather?", tools=(WEATHER,))
        first = await process.hear(run)

        await process.runs.cancel(MINE, "t-1", run.id)
        rest = await process.hear(run, after=first[-1].number)

        assert names(rest) == [
            "thread.run.cancelling",
            "thread.run.step.cancelled",
            "thread.run.cancelled",
            "done",
        ]
        with pytest.raises(InvalidRequestError, match="cancelled"):
            await process.runs.submit(MINE, "t-1", run.id, OUTPUT)


async def test_run_whose_caller_never_answers_expires() -> None:
    world = World(caller())
    async with world.process() as process:
        run = await process.begin("Weather?", tools=(WEATHER,))
        first = await process.hear(run)

        world.clock.advance(601)
        rest = await process.hear(run, after=first[-1].number)

        assert names(rest) == ["thread.run.step.expired", "thread.run.expired", "done"]
        over = await process.now(run)
        assert (over.status, over.open_calls) == ("expired", ())
        assert not world.jobs.jobs


async def test_run_that_was_left_until_its_time_was_over_expires() -> None:
    world = World(ScriptedModel([TextChunk(content="Half"), asyncio.Event()]))
    fuse = Fuse()
    async with world.process(fuse) as process:
        run = await process.begin("Hi")
        async with aclosing(process.runs.events(run, after=-1)) as events:
            async for event in events:
                if event.name == "thread.message.delta":
                    break
        fuse.is_burnt.set()
    world.clock.advance(600)

    async with world.process() as process:
        rest = await process.hear(run, after=event.number)

    assert names(rest) == [
        "thread.message.incomplete",
        "thread.run.step.expired",
        "thread.run.expired",
        "done",
    ]
    assert body_of(rest[0])["incomplete_details"] == {"reason": "run_expired"}
    assert world.said() == ["Hi", "Half"]


@pytest.mark.parametrize(
    ("error", "code", "times"),
    [
        (ContextLengthExceededError("Too long."), "invalid_prompt", 1),
        (NotFoundError("No such model."), "server_error", 1),
        (RateLimitError("Too many."), "rate_limit_exceeded", 3),
        (ProviderError("Broken."), "server_error", 3),
    ],
)
async def test_error_of_the_model_fails_the_run_when_asking_again_does_not_help(
    error: InvalidRequestError, code: str, times: int
) -> None:
    world = World(ScriptedModel([TextChunk(content="Hm"), error]))
    async with world.process() as process:
        run = await process.begin("Hi")
        hearing = asyncio.create_task(process.hear(run))
        for _ in range(times):
            await wait_for_requests(world, times)
        events = await hearing

        assert names(events)[-4:] == [
            "thread.message.incomplete",
            "thread.run.step.failed",
            "thread.run.failed",
            "done",
        ]
        body = body_of(events[-2])
        assert body["last_error"] == {"code": code, "message": error.message}
        assert len(world.model.requests) == times
        assert world.said() == ["Hi", "Hm"]


async def wait_for_requests(world: World, count: int) -> None:
    """Let time pass until the model was asked so often."""
    async with asyncio.timeout(20):
        while len(world.model.requests) < count:
            world.clock.advance(0.5)
            await asyncio.sleep(0.001)


async def test_answer_that_broke_off_is_made_again_and_heard_once() -> None:
    model = ScriptedModel([TextChunk(content="Once upon"), EngineCrashedError("Gone.")])
    world = World(model)
    async with world.process() as process:
        run = await process.begin("Tell me")
        hearing = asyncio.create_task(process.hear(run))
        await wait_for_requests(world, 1)
        model.script = (text("Once ", "upon ", "a time."),)
        await wait_for_requests(world, 2)
        events = await hearing

    deltas = [body_of(each) for each in events if each.name == "thread.message.delta"]
    pieces = [delta["delta"]["content"][0]["text"]["value"] for delta in deltas]
    assert "".join(pieces) == "Once upon a time."
    assert pieces[0] == "Once upon"
    assert world.said() == ["Tell me", "Once upon a time."]
    seeds = {request.sampling.seed for request in model.requests}
    assert len(seeds) == 1
    assert len({call.request_id for call in model.calls}) == 2


async def test_answer_that_is_too_long_is_incomplete() -> None:
    world = World(ScriptedModel(text("Half of", finish="length")))
    async with world.process() as process:
        run = await process.begin("Tell me", max_completion_tokens=5)
        events = await process.hear(run)

    assert world.model.requests[0].sampling.max_tokens == 5
    assert names(events)[-4:] == [
        "thread.message.incomplete",
        "thread.run.step.completed",
        "thread.run.incomplete",
        "done",
    ]
    message, run_now = body_of(events[-4]), body_of(events[-2])
    assert message["incomplete_details"] == {"reason": "max_tokens"}
    assert run_now["incomplete_details"] == {"reason": "max_completion_tokens"}
    assert run_now["usage"]["total_tokens"] == 55


@pytest.mark.parametrize("limit", ["max_prompt_tokens", "max_completion_tokens"])
async def test_limits_hold_for_all_turns_together(limit: str) -> None:
    world = World(caller())
    most = {"max_prompt_tokens": 50, "max_completion_tokens": 5}[limit]
    async with world.process() as process:
        run = await process.begin("Weather?", tools=(WEATHER,), **{limit: most})
        first = await process.hear(run)
        await process.runs.submit(MINE, "t-1", run.id, OUTPUT)
        rest = await process.hear(run, after=first[-1].number)

    assert len(world.model.requests) == 1
    assert names(rest)[-2:] == ["thread.run.incomplete", "done"]
    assert body_of(rest[-2])["incomplete_details"] == {"reason": limit}


async def test_listener_that_leaves_does_not_end_the_run() -> None:
    gate = asyncio.Event()
    world = World(ScriptedModel([TextChunk(content="On"), gate, *text(" it goes")]))
    async with world.process() as process:
        run = await process.begin("Hi")
        async with aclosing(process.runs.events(run, after=-1)) as events:
            async for event in events:
                if event.name == "thread.message.delta":
                    break
        gate.set()

        rest = await process.hear(run, after=event.number)

        assert names(rest)[-2:] == ["thread.run.completed", "done"]
        assert world.said() == ["Hi", "On it goes"]


async def test_outputs_must_be_those_of_the_open_calls() -> None:
    both = calls(("get_weather", "{}"), ("get_time", "{}"))
    world = World(ScriptedModel(both, text(), text("Done.")))
    async with world.process() as process:
        run = await process.begin("Both?", tools=(WEATHER,))
        await process.hear(run)

        for outputs, named in (
            ({}, "call-get_weather, call-get_time"),
            ({"call-get_weather": "1"}, "missing: call-get_time"),
            ({**OUTPUT, "call-get_time": "2", "call-x": "3"}, "'call-x'"),
        ):
            with pytest.raises(InvalidRequestError, match=named):
                await process.runs.submit(MINE, "t-1", run.id, outputs)
        assert (await process.now(run)).status == "requires_action"

        await process.runs.submit(MINE, "t-1", run.id, {**OUTPUT, "call-get_time": "2"})
        with pytest.raises(InvalidRequestError, match="does not wait"):
            await process.runs.submit(MINE, "t-1", run.id, {**OUTPUT, "call-get_time": "2"})


async def test_events_of_a_run_that_is_over_are_heard_again_from_any_place() -> None:
    world = World(talker("Hello."))
    async with world.process() as process:
        run = await process.begin("Hi")
        events = await process.hear(run)
        over = await process.now(run)

        for after in range(-1, len(events) - 1):
            assert await process.hear(over, after=after) == events[after + 1 :]
        assert names(await process.hear(over, after=len(events) - 1)) == ["done"]

        await world.events.delete_old(before_s=world.clock.now_s() + 1e6, limit=3)
        with pytest.raises(NotFoundError, match="not kept"):
            await process.hear(over)
