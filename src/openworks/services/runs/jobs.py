"""Brings runs to an end state, whatever happens: the handler of their jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from openworks.core.clock import Clock
from openworks.core.errors import AppError, ConflictError, InvalidRequestError, RateLimitError
from openworks.core.ids import NewId
from openworks.core.json import JsonObject
from openworks.ports.events import EventStore
from openworks.ports.jobs import Claim, Rest
from openworks.ports.runs import FunctionCall, Run, RunChange, RunError, RunStep, RunStore
from openworks.ports.threads import Message
from openworks.services.agent.loop import Agent
from openworks.services.agent.turn import Said
from openworks.services.journal import Journal, StreamWriter
from openworks.services.runs.documents import message_body, run_body, step_body, text_content
from openworks.services.runs.prompts import RunPrompts
from openworks.services.runs.work import DONE, RunWork, message_of, read_told

_Cut: TypeAlias = Literal["cancelled", "expired", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunJobs:
    """Knows what a job of the kind `run` is about; a `JobHandler`."""

    store: RunStore
    events: EventStore
    journal: Journal
    agent: Agent
    prompts: RunPrompts
    clock: Clock
    new_id: NewId

    async def work(self, claim: Claim) -> None:
        writer = await self.journal.write(claim)
        try:
            run = await self.store.find(claim.subject_id)
            if run is None:  # deleted with its thread, and the job as well
                return
            left_s = run.expires_at_s - self.clock.now_s()
            if run.status == "cancelling":
                await self._end(claim, "cancelled")
            elif left_s <= 0:
                await self._end(claim, "expired")
            elif run.status == "requires_action":
                await self._wait_for_caller(run, writer)
            else:
                await self._go_on(run, claim, writer, left_s)
        finally:
            writer.close()

    async def cancel(self, claim: Claim) -> None:
        await self._end(claim, "cancelled")

    async def give_up(self, claim: Claim, error: AppError) -> None:
        await self._end(claim, "failed", error)

    async def _go_on(self, run: Run, claim: Claim, writer: StreamWriter, left_s: float) -> None:
        is_new = run.status == "queued" and not run.num_turns
        work = RunWork(
            run,
            () if is_new else await self.store.steps(run.id),
            attempt=claim.token,
            store=self.store,
            events=self.events,
            writer=writer,
            prompts=self.prompts,
            clock=self.clock,
            new_id=self.new_id,
        )
        try:
            async with asyncio.timeout(left_s) as limit:
                await work.begin()
                await self.agent.run(work)
        except TimeoutError:
            if not limit.expired():
                raise
            await self._end(claim, "expired")
        except ConflictError:  # somebody else has changed the run, or works on it
            raise
        except AppError as error:
            await writer.flush()  # what was said before the error is not lost with it
            if error.retryable or error.status >= 500:
                raise
            await self._end(claim, "failed", error)

    async def _wait_for_caller(self, run: Run, writer: StreamWriter) -> None:
        """Leave a run alone that was claimed before its caller has answered."""
        new = await writer.number([])
        rest = Rest(due_at_s=run.expires_at_s)
        change = RunChange(was=run.status, run=run, events=new, rest=rest)
        await self.store.change(change, now_s=self.clock.now_s())

    async def _end(
        self,
        claim: Claim,
        status: _Cut,
        error: AppError | None = None,
    ) -> None:
        """End a run before its time; what it has written so far stays.

        Everything is read anew: it may be that the last write was cut off, and nobody knows whether
        it was kept.
        """
        writer = await self.journal.write(claim)
        try:
            run = await self.store.find(claim.subject_id)
            if run is None or not run.is_active:
                return
            now_s = self.clock.now_s()
            over = replace(
                run,
                status=status,
                open_calls=(),
                ended_at_s=now_s,
                error=None if error is None else _run_error(error),
            )
            events: list[tuple[str, JsonObject | bytes]] = []
            if status == "cancelled":
                cancelling = replace(run, status="cancelling", open_calls=())
                events.append(("thread.run.cancelling", run_body(cancelling)))
            message, steps = await self._cut_off(run, over, status, now_s)
            if message is not None:
                events.append(("thread.message.incomplete", message_body(message)))
            events += [(f"thread.run.step.{status}", step_body(over, step)) for step in steps]
            events += [(f"thread.run.{status}", run_body(over)), DONE]
            new = await writer.number(events, ends=True)
            change = RunChange(
                was=run.status, run=over, steps=steps, message=message, events=new, rest=Rest()
            )
            await self.store.change(change, now_s=now_s)
            writer.show(new)
        finally:
            writer.close()

    async def _cut_off(
        self, run: Run, over: Run, status: _Cut, now_s: float
    ) -> tuple[Message | None, Sequence[RunStep]]:
        """Return the open steps of a run that is over, and the message that one was writing."""
        steps = [step for step in await self.store.steps(run.id) if step.status == "in_progress"]
        broken = [step for step in steps if step.turn == run.num_turns]
        told = await read_told(self.events, broken) if broken else Said()
        message = None
        ended = []
        for step in steps:
            if step.message_id is not None:
                message = replace(
                    message_of(run, step),
                    content=text_content(told.text) if told.text else (),
                    status="incomplete",
                    incomplete_reason=f"run_{status}",
                    ended_at_s=now_s,
                )
            elif step in broken:
                calls = [
                    FunctionCall(id=each.id, name=each.name, arguments=each.arguments)
                    for each in told.tool_calls
                ]
                step = replace(step, tool_calls=tuple(calls))
            ended.append(
                replace(step, status=status, ended_at_s=now_s, error=_step_error(over.error))
            )
        return message, ended


def _run_error(error: AppError) -> RunError:
    match error:
        case RateLimitError():
            return RunError(code="rate_limit_exceeded", message=error.message)
        case InvalidRequestError():
            return RunError(code="invalid_prompt", message=error.message)
        case _:
            return RunError(code="server_error", message=error.message)


def _step_error(error: RunError | None) -> RunError | None:
    """Steps know no invalid prompts: those end a run before it takes a step."""
    if error is None or error.code != "invalid_prompt":
        return error
    return replace(error, code="server_error")
