from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

import pytest

from openworks.core.errors import LeaseLostError, ModelUnavailableError
from openworks.core.ids import AccountId, RequestId
from openworks.ports.calls import Call, Principal
from openworks.ports.text import ChatRequest, FinishReason, TextChunk, ToolCallDelta
from openworks.services.agent.loop import Agent, Completed, End, Incomplete, NeedsOutputs
from openworks.services.agent.turn import Answer, Said, ToolCall, Turn
from tests.unit.services.agent.listener import Notes

CALL = Call(
    request_id=RequestId("req-1"),
    principal=Principal(account_id=AccountId("acct-1")),
    route="/v1/threads/{thread_id}/runs",
    model="talker",
)
ADD = ToolCall(id="call-1", name="add", arguments='{"a":1}')
LOOK_UP = ToolCall(id="call-2", name="look_up", arguments="{}")


class Act(Protocol):
    """One answer of the model."""

    def __call__(self) -> AsyncGenerator[TextChunk, None]: ...


class ScriptedModel:
    """Answers in turn, and keeps what it was asked."""

    def __init__(self, *answers: Sequence[TextChunk] | Act) -> None:
        self._answers = list(answers)
        self.asked: list[ChatRequest] = []
        self.num_closed = 0

    async def chat(self, call: Call, request: ChatRequest) -> AsyncGenerator[TextChunk, None]:
        self.asked.append(request)
        answer = self._answers.pop(0)
        try:
            if callable(answer):
                async for chunk in answer():
                    yield chunk
            else:
                for chunk in answer:
                    yield chunk
        finally:
            self.num_closed += 1


class Adder:
    """A tool of this server."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def run(self, call: Call, arguments: str) -> str:
        assert call is CALL
        self.calls.append(arguments)
        return "3"


class MemoryWork(Notes):
    """A run in memory; what would be stored stands in `log`."""

    def __init__(
        self,
        *,
        open_calls: Sequence[ToolCall] = (),
        told: Said | None = None,
        max_turns: int = 10,
    ) -> None:
        super().__init__(told or Said())
        self._told = self.said
        self._open = list(open_calls)
        self._turns_left = max_turns
        self.log: list[object] = []
        self.answers: list[Answer] = []
        self.is_lost = False

    @property
    def call(self) -> Call:
        return CALL

    async def open_calls(self) -> Sequence[ToolCall]:
        return list(self._open)

    async def next_turn(self) -> Turn | Incomplete:
        if self._turns_left == 0:
            return Incomplete("max_prompt_tokens")
        self._turns_left -= 1
        told, self._told = self._told, Said()
        return Turn(call=CALL, request=ChatRequest(messages=[{"role": "user"}]), told=told)

    async def end_turn(self, turn: Turn, answer: Answer, end: End | None) -> None:
        self.answers.append(answer)
        self._open = list(answer.said.tool_calls)
        self.log.append(("turn", answer.said.text, end))

    async def end_tool(self, call: ToolCall, output: str) -> None:
        self._open.remove(call)
        self.log.append(("tool", call.id, output))

    async def end(self, end: End) -> None:
        self.log.append(("end", end))

    async def on_text(self, piece: str, logprobs: Sequence[object]) -> None:
        if self.is_lost:
            raise LeaseLostError("The work on 'run-1' was taken over by another server.")
        self.text += piece


def says(text: str, finish_reason: FinishReason = "stop") -> list[TextChunk]:
    return [TextChunk(content=text), TextChunk(finish_reason=finish_reason)]


def wants(*calls: ToolCall) -> list[TextChunk]:
    deltas = tuple(
        ToolCallDelta(index=index, id=call.id, name=call.name, arguments=call.arguments)
        for index, call in enumerate(calls)
    )
    return [TextChunk(tool_calls=deltas, finish_reason="tool_calls")]


async def test_answer_without_calls_completes_the_work() -> None:
    work, model = MemoryWork(), ScriptedModel(says("Hello."))

    await Agent(model, {}).run(work)

    assert work.log == [("turn", "Hello.", Completed())]
    assert work.text == "Hello."
    assert model.asked == [ChatRequest(messages=[{"role": "user"}])]


async def test_tools_of_the_server_are_called_and_the_model_is_asked_again() -> None:
    work, tool = MemoryWork(), Adder()

    await Agent(ScriptedModel(wants(ADD), says("3.")), {"add": tool}).run(work)

    assert work.log == [("turn", "", None), ("tool", "call-1", "3"), ("turn", "3.", Completed())]
    assert tool.calls == ['{"a":1}']


async def test_tools_of_the_caller_are_waited_for() -> None:
    work = MemoryWork()

    await Agent(ScriptedModel(wants(ADD, LOOK_UP)), {}).run(work)

    assert work.log == [("turn", "", NeedsOutputs((ADD, LOOK_UP)))]


async def test_tools_of_the_server_are_called_before_the_callers_are_waited_for() -> None:
    work = MemoryWork()

    await Agent(ScriptedModel(wants(LOOK_UP, ADD)), {"add": Adder()}).run(work)

    assert work.log == [
        ("turn", "", None),
        ("tool", "call-1", "3"),
        ("end", NeedsOutputs((LOOK_UP,))),
    ]


async def test_work_goes_on_with_the_calls_that_have_no_output_yet() -> None:
    work, tool = MemoryWork(open_calls=[ADD]), Adder()

    await Agent(ScriptedModel(says("3.")), {"add": tool}).run(work)

    assert work.log == [("tool", "call-1", "3"), ("turn", "3.", Completed())]


async def test_turn_that_broke_off_is_made_anew_and_only_the_rest_is_heard() -> None:
    work = MemoryWork(told=Said(text="Hel"))

    await Agent(ScriptedModel(says("Hello.")), {}).run(work)

    assert work.text == "Hello."
    assert work.log == [("turn", "Hello.", Completed())]


@pytest.mark.parametrize(
    ("finish_reason", "end"),
    [
        ("length", Incomplete("max_tokens")),
        ("content_filter", Incomplete("content_filter")),
        ("stop", Completed()),
    ],
)
async def test_end_follows_from_why_the_model_stopped(
    finish_reason: FinishReason, end: End
) -> None:
    work = MemoryWork()

    await Agent(ScriptedModel(says("He", finish_reason)), {}).run(work)

    assert work.log == [("turn", "He", end)]


async def test_calls_of_an_answer_that_was_cut_off_are_not_made() -> None:
    work, tool = MemoryWork(), Adder()
    chunks = [*wants(ADD), TextChunk(finish_reason="length")]

    await Agent(ScriptedModel(chunks), {"add": tool}).run(work)

    assert work.log == [("turn", "", Incomplete("max_tokens"))]
    assert tool.calls == []


async def test_work_that_may_ask_no_more_ends() -> None:
    work = MemoryWork(max_turns=1)

    await Agent(ScriptedModel(wants(ADD)), {"add": Adder()}).run(work)

    assert work.log[-1] == ("end", Incomplete("max_prompt_tokens"))


async def test_error_of_the_model_leaves_the_turn_open() -> None:
    async def breaks() -> AsyncGenerator[TextChunk, None]:
        yield TextChunk(content="He")
        raise ModelUnavailableError("The model is away.")

    work = MemoryWork()
    with pytest.raises(ModelUnavailableError):
        await Agent(ScriptedModel(breaks), {}).run(work)

    assert work.text == "He"
    assert work.log == []


async def test_stopping_the_work_closes_the_model_at_once() -> None:
    is_asked = asyncio.Event()

    async def hangs() -> AsyncGenerator[TextChunk, None]:
        yield TextChunk(content="He")
        is_asked.set()
        await asyncio.Event().wait()

    model = ScriptedModel(hangs)
    task = asyncio.create_task(Agent(model, {}).run(MemoryWork()))
    await is_asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert model.num_closed == 1


async def test_listener_that_can_hear_no_more_closes_the_model_at_once() -> None:
    work, model = MemoryWork(), ScriptedModel(says("Hello."))
    work.is_lost = True

    with pytest.raises(LeaseLostError):
        await Agent(model, {}).run(work)

    assert model.num_closed == 1
    assert work.log == []
