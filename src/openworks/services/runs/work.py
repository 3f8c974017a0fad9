"""A run as the agent loop sees it: its turns, and what each leaves in the thread and the stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import orjson

from openworks.core.clock import Clock
from openworks.core.ids import NewId, RequestId
from openworks.core.json import JsonObject
from openworks.ports.calls import Call, Principal, Usage
from openworks.ports.events import EventStore
from openworks.ports.jobs import Rest
from openworks.ports.runs import FunctionCall, Run, RunChange, RunStep, RunStore
from openworks.ports.text import TokenLogprob
from openworks.ports.threads import Message
from openworks.services.agent.loop import Completed, End, Incomplete, NeedsOutputs
from openworks.services.agent.turn import Answer, Said, ToolCall, Turn
from openworks.services.journal import StreamWriter
from openworks.services.runs.documents import (
    arguments_delta,
    call_delta,
    message_body,
    run_body,
    step_body,
    text_content,
    text_delta,
)
from openworks.services.runs.prompts import RunPrompts

DONE = ("done", b"[DONE]")
"""The event with which listeners' connections end."""
_MESSAGE_DELTA = "thread.message.delta"
_STEP_DELTA = "thread.run.step.delta"
_PAGE = 256

_Event: TypeAlias = tuple[str, JsonObject | bytes]


class RunWork:
    """The work on a run that this process has claimed; an `AgentWork`."""

    def __init__(
        self,
        run: Run,
        steps: Sequence[RunStep],
        *,
        attempt: int,
        store: RunStore,
        events: EventStore,
        writer: StreamWriter,
        prompts: RunPrompts,
        clock: Clock,
        new_id: NewId,
    ) -> None:
        """Go on where the run stands.

        Args:
            run: As it is stored.
            steps: All that it has.
            attempt: Tells calls of the model apart that are made for the same turn.
            store: Keeps what is done.
            events: Knows what listeners have heard.
            writer: Tells them more.
            prompts: Says what the model is asked.
            clock: For moments.
            new_id: For messages and steps.
        """
        self._run = run
        self._steps = list(steps)
        self._attempt = attempt
        self._store = store
        self._events = events
        self._writer = writer
        self._prompts = prompts
        self._clock = clock
        self._new_id = new_id

    @property
    def call(self) -> Call:
        run = self._run
        return Call(
            request_id=RequestId(f"{run.id}-{run.num_turns + 1}.{self._attempt}"),
            principal=Principal(account_id=run.account_id, key_id=run.key_id),
            route=run.route,
            model=run.settings.model,
        )

    async def begin(self) -> None:
        """Leave the queue; calls whose outputs have come are done with."""
        run = self._run
        if run.status != "queued":
            return
        now_s = self._clock.now_s()
        events: list[_Event] = []
        steps = []
        if self._steps:  # it comes back from its caller
            steps = [replace(self._steps[-1], status="completed", ended_at_s=now_s)]
            events = [
                ("thread.run.step.completed", step_body(run, steps[0])),
                ("thread.run.queued", run_body(run)),
            ]
        begun_s = now_s if run.started_at_s is None else run.started_at_s
        run = replace(run, status="in_progress", started_at_s=begun_s)
        await self._keep(run, [*events, ("thread.run.in_progress", run_body(run))], steps=steps)

    async def open_calls(self) -> Sequence[ToolCall]:
        return [
            ToolCall(id=call.id, name=call.name, arguments=call.arguments)
            for step in self._steps
            if step.status == "in_progress" and step.turn < self._run.num_turns
            for call in step.tool_calls
            if call.output is None
        ]

    async def next_turn(self) -> Turn | Incomplete:
        broken = self._of_turn()
        before = [step for step in self._steps if step not in broken]
        call = self.call
        request = await self._prompts.request(self._run, before, call)
        if isinstance(request, Incomplete):
            return request
        told = await read_told(self._events, broken) if broken else Said()
        return Turn(call=call, request=request, told=told)

    async def on_text(self, piece: str, logprobs: Sequence[TokenLogprob]) -> None:
        message_id = self._message_id()
        if message_id is None:
            message_id = await self._begin_message()
        await self._writer.put(_MESSAGE_DELTA, text_delta(message_id, piece))

    async def on_reasoning(self, piece: str) -> None:
        """Keep it to ourselves: messages of threads have no place for it."""

    async def on_tool_call(self, index: int, call: ToolCall) -> None:
        step = self._step_of_calls()
        if step is None:
            step = await self._begin_calls()
        await self._writer.put(_STEP_DELTA, call_delta(step.id, index, _function(call)))

    async def on_arguments(self, index: int, piece: str) -> None:
        step = self._step_of_calls()
        assert step is not None
        await self._writer.put(_STEP_DELTA, arguments_delta(step.id, index, piece))

    async def end_turn(self, turn: Turn, answer: Answer, end: End | None) -> None:
        now_s = self._clock.now_s()
        message, steps, events = self._ended_steps(answer, end, now_s)
        usage = Usage(
            prompt_tokens=answer.usage.prompt_tokens,
            completion_tokens=answer.usage.completion_tokens,
        )
        if steps:
            steps[-1] = replace(steps[-1], usage=usage)
        run = replace(self._run, num_turns=self._run.num_turns + 1, usage=self._run.usage + usage)
        for step in steps:
            if step.status != "in_progress":
                events.append((f"thread.run.step.{step.status}", step_body(run, step)))
        await self._keep(run, events, end=end, steps=steps, message=message, is_progress=True)

    async def end_tool(self, call: ToolCall, output: str) -> None:
        (step,) = (each for each in self._steps if call.id in {one.id for one in each.tool_calls})
        calls = tuple(
            replace(each, output=output) if each.id == call.id else each for each in step.tool_calls
        )
        step = replace(step, tool_calls=calls)
        events: list[_Event] = []
        if all(each.output is not None for each in calls):
            step = replace(step, status="completed", ended_at_s=self._clock.now_s())
            events = [("thread.run.step.completed", step_body(self._run, step))]
        await self._keep(self._run, events, steps=[step], is_progress=True)

    async def end(self, end: End) -> None:
        await self._keep(self._run, [], end=end)

    def _of_turn(self) -> list[RunStep]:
        """Return the steps of the turn that the model is asked for now."""
        return [step for step in self._steps if step.turn == self._run.num_turns]

    def _message_id(self) -> str | None:
        return next((step.message_id for step in self._of_turn() if step.message_id), None)

    def _step_of_calls(self) -> RunStep | None:
        return next((step for step in self._of_turn() if step.message_id is None), None)

    async def _begin_message(self) -> str:
        step = self._new_step(message_id=self._new_id("msg_"))
        message = message_of(self._run, step)
        await self._keep(
            self._run,
            [
                ("thread.run.step.created", step_body(self._run, step)),
                ("thread.run.step.in_progress", step_body(self._run, step)),
                ("thread.message.created", message_body(message)),
                ("thread.message.in_progress", message_body(message)),
            ],
            new_step=step,
            new_message=message,
        )
        return message.id

    async def _begin_calls(self) -> RunStep:
        step = self._new_step(message_id=None)
        body = step_body(self._run, step)
        await self._keep(
            self._run,
            [("thread.run.step.created", body), ("thread.run.step.in_progress", body)],
            new_step=step,
        )
        return step

    def _new_step(self, *, message_id: str | None) -> RunStep:
        return RunStep(
            id=self._new_id("step_"),
            run_id=self._run.id,
            number=len(self._steps),
            turn=self._run.num_turns,
            created_at_s=self._clock.now_s(),
            message_id=message_id,
        )

    def _ended_steps(
        self, answer: Answer, end: End | None, now_s: float
    ) -> tuple[Message | None, list[RunStep], list[_Event]]:
        """Return the message and the steps of the turn that ends, and the message's event."""
        message: Message | None = None
        steps: list[RunStep] = []
        events: list[_Event] = []
        calls = self._step_of_calls()
        for step in self._of_turn():
            if step.message_id is not None:
                cut = end if calls is None and isinstance(end, Incomplete) else None
                message = replace(
                    message_of(self._run, step),
                    content=text_content(answer.said.text),
                    status="completed" if cut is None else "incomplete",
                    incomplete_reason=None if cut is None else cut.reason,
                    ended_at_s=now_s,
                )
                events.append((f"thread.message.{message.status}", message_body(message)))
                steps.append(replace(step, status="completed", ended_at_s=now_s))
                continue
            step = replace(step, tool_calls=tuple(map(_function, answer.said.tool_calls)))
            if end is not None and not isinstance(end, NeedsOutputs):  # nobody will call them
                step = replace(step, status="cancelled", ended_at_s=now_s)
            steps.append(step)
        return message, steps, events

    async def _keep(
        self,
        run: Run,
        events: Sequence[_Event],
        *,
        end: End | None = None,
        new_step: RunStep | None = None,
        steps: Sequence[RunStep] = (),
        new_message: Message | None = None,
        message: Message | None = None,
        is_progress: bool = False,
    ) -> None:
        """Keep a change of the run and tell of it; with an end, it rests."""
        rest = None
        if end is not None:
            run, rest = _rested(run, end, self._clock.now_s())
            events = [*events, (f"thread.run.{run.status}", run_body(run)), DONE]
        new = await self._writer.number(events, ends=end is not None)
        change = RunChange(
            was=self._run.status,
            run=run,
            new_steps=() if new_step is None else (new_step,),
            steps=steps,
            new_message=new_message,
            message=message,
            events=new,
            rest=rest,
            is_progress=is_progress,
        )
        await self._store.change(change, now_s=self._clock.now_s())
        self._writer.show(new)
        self._run = run
        changed = {step.id: step for step in steps}
        self._steps = [changed.get(step.id, step) for step in self._steps]
        if new_step is not None:
            self._steps.append(new_step)


def message_of(run: Run, step: RunStep) -> Message:
    """Return the message that a step writes, as it begins."""
    assert step.message_id is not None
    return Message(
        id=step.message_id,
        thread_id=run.thread_id,
        created_at_s=step.created_at_s,
        role="assistant",
        content=(),
        run_id=run.id,
        assistant_id=run.settings.assistant_id,
        status="in_progress",
    )


async def read_told(events: EventStore, steps: Sequence[RunStep]) -> Said:
    """Return what listeners have heard of the steps of one turn, at least one, that broke off."""
    ids = {step.message_id or step.id for step in steps}
    text = ""
    calls: dict[int, ToolCall] = {}
    after = -1
    while page := await events.read(steps[0].run_id, after=after, limit=_PAGE):
        after = page[-1].number
        for event in page:
            if event.name not in {_MESSAGE_DELTA, _STEP_DELTA}:
                continue
            body = orjson.loads(event.data)
            if body["id"] not in ids:
                continue
            if event.name == _MESSAGE_DELTA:
                text += body["delta"]["content"][0]["text"]["value"]
                continue
            (delta,) = body["delta"]["step_details"]["tool_calls"]
            index, function = delta["index"], delta["function"]
            if "id" in delta:
                calls[index] = ToolCall(id=delta["id"], name=function["name"], arguments="")
            so_far = calls[index].arguments
            calls[index] = replace(calls[index], arguments=so_far + function["arguments"])
    return Said(text=text, tool_calls=tuple(calls[index] for index in sorted(calls)))


def _rested(run: Run, end: End, now_s: float) -> tuple[Run, Rest]:
    match end:
        case NeedsOutputs(calls=calls):
            waiting = replace(
                run, status="requires_action", open_calls=tuple(map(_function, calls))
            )
            return waiting, Rest(due_at_s=run.expires_at_s)
        case Completed():
            return replace(run, status="completed", ended_at_s=now_s), Rest()
        case Incomplete(reason=reason):
            over = replace(run, status="incomplete", incomplete_reason=reason, ended_at_s=now_s)
            return over, Rest()


def _function(call: ToolCall) -> FunctionCall:
    return FunctionCall(id=call.id, name=call.name, arguments=call.arguments)
