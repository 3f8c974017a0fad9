"""Runs of an account: begun, found, changed, cancelled, answered, listened to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Annotated

import orjson
from pydantic import Field

from openworks.core.clock import Clock
from openworks.core.errors import InvalidRequestError, NotFoundError
from openworks.core.ids import AccountId, NewId
from openworks.core.pages import Page, PageRequest
from openworks.ports.calls import Principal
from openworks.ports.events import EventStore, NewEvents, StreamEvent
from openworks.ports.runs import NewRun, Run, RunSettings, RunStep, RunStore
from openworks.ports.threads import Message, Thread
from openworks.services.journal import Journal
from openworks.services.runs.documents import run_body, thread_body
from openworks.services.runs.work import DONE
from openworks.services.threads import MAX_MESSAGES
from openworks.services.workers import Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsConfig:
    """How long runs may take."""

    ttl_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 600.0
    """Seconds after which a run that is not over expires, also one that waits for its caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """A run that a caller wants, checked."""

    settings: RunSettings
    metadata: Mapping[str, str] = field(default_factory=dict)
    messages: Sequence[Message] = ()
    """To be put into the thread first."""
    thread: Thread | None = None
    """Given when it is to be made as well."""


class Runs:
    """Begins runs, and has this process work on them at once."""

    def __init__(
        self,
        store: RunStore,
        events: EventStore,
        journal: Journal,
        workers: Workers,
        config: RunsConfig,
        *,
        clock: Clock,
        new_id: NewId,
    ) -> None:
        self._store = store
        self._events = events
        self._journal = journal
        self._workers = workers
        self._config = config
        self._clock = clock
        self._new_id = new_id

    async def create(
        self, caller: Principal, route: str, thread_id: str, beginning: Beginning
    ) -> Run:
        """Begin a run on a thread.

        Args:
            caller: Whose account it is, and whose key its calls are counted for.
            route: The path template, for their records.
            thread_id: The thread.
            beginning: The rest.

        Raises:
            NotFoundError: There is no such thread.
            InvalidRequestError: It has an active run, or no place for the messages.
        """
        now_s = self._clock.now_s()
        run = Run(
            id=self._new_id("run_"),
            thread_id=thread_id,
            account_id=caller.account_id,
            key_id=caller.key_id,
            route=route,
            created_at_s=now_s,
            expires_at_s=now_s + self._config.ttl_s,
            settings=beginning.settings,
            metadata=beginning.metadata,
        )
        job = self._workers.new_job("run", run.id, run.account_id)
        bodies = [("thread.run.created", run_body(run)), ("thread.run.queued", run_body(run))]
        if beginning.thread is not None:
            bodies.insert(0, ("thread.created", thread_body(beginning.thread)))
        events = [
            StreamEvent(number=number, name=name, data=orjson.dumps(body))
            for number, (name, body) in enumerate(bodies)
        ]
        new = NewRun(
            run=run,
            job=job,
            events=NewEvents(claim=job.claim, events=events),
            messages=beginning.messages,
            thread=beginning.thread,
            most_messages=MAX_MESSAGES,
        )
        if not await self._store.insert(new):
            raise _no_thread(thread_id)
        self._workers.begin(job)
        return run

    async def get(self, account_id: AccountId, thread_id: str, run_id: str) -> Run:
        """Find one.

        Raises:
            NotFoundError: The account has no such run on this thread.
        """
        run = await self._store.get(account_id, thread_id, run_id)
        if run is None:
            raise _no_run(thread_id, run_id)
        return run

    async def list(self, account_id: AccountId, thread_id: str, page: PageRequest) -> Page[Run]:
        """Return a page of a thread's runs.

        Raises:
            NotFoundError: There is no such thread.
        """
        found = await self._store.list(account_id, thread_id, page)
        if found is None:
            raise _no_thread(thread_id)
        return found

    async def set_metadata(
        self, account_id: AccountId, thread_id: str, run_id: str, metadata: Mapping[str, str]
    ) -> Run:
        """Replace a run's metadata."""
        run = await self._store.set_metadata(account_id, thread_id, run_id, metadata)
        if run is None:
            raise _no_run(thread_id, run_id)
        return run

    async def cancel(self, account_id: AccountId, thread_id: str, run_id: str) -> Run:
        """Ask for a run's end; it comes soon after.

        Raises:
            InvalidRequestError: It is over already.
        """
        run = await self.get(account_id, thread_id, run_id)
        now_s = self._clock.now_s()
        if not run.is_active or not await self._store.begin_cancel(run, now_s=now_s):
            run = await self.get(account_id, thread_id, run_id)
            raise _wrong_state(f"Run '{run_id}' cannot be cancelled: it is {run.status}.")
        await self._workers.cancel("run", run_id)
        return replace(run, status="cancelling", open_calls=())

    async def submit(
        self, account_id: AccountId, thread_id: str, run_id: str, outputs: Mapping[str, str]
    ) -> Run:
        """Give a run what its calls have returned; it goes on at once.

        Args:
            account_id: The run's owner.
            thread_id: Its thread.
            run_id: The run.
            outputs: One for each open call, by its id.

        Raises:
            InvalidRequestError: The run does not wait for outputs, or for others.
        """
        run = await self.get(account_id, thread_id, run_id)
        _check_outputs(run, outputs)
        if not await self._store.submit(run, outputs, now_s=self._clock.now_s()):
            run = await self.get(account_id, thread_id, run_id)
            _check_outputs(run, outputs)
            raise _wrong_state(f"Run '{run_id}' was answered at the same moment by another caller.")
        await self._workers.resume("run", run_id)
        return replace(run, status="queued", open_calls=())

    async def steps(self, run: Run, page: PageRequest) -> Page[RunStep]:
        """Return a page of a run's steps."""
        return await self._store.list_steps(run.id, page)

    async def step(self, run: Run, step_id: str) -> RunStep:
        """Find a step.

        Raises:
            NotFoundError: The run has no such step.
        """
        step = await self._store.get_step(run.id, step_id)
        if step is None:
            raise NotFoundError(f"No step found with id {step_id[:100]!r} in run {run.id!r}.")
        return step

    async def last_event(self, run: Run) -> int:
        """Return the number of the last event of a run so far."""
        return await self._events.last_number(run.id)

    async def events(self, run: Run, *, after: int) -> AsyncGenerator[StreamEvent, None]:
        """Yield a run's events behind a number, until one that ends its listeners' connections.

        Leaving does nothing to the run.

        Raises:
            NotFoundError: The run is over, and its events are not kept any more.
        """
        if not run.is_active:
            found = await self._events.read(run.id, after=after, limit=1)
            is_gap = found[0].number > after + 1 if found else await self.last_event(run) < 0
            if is_gap:
                raise NotFoundError(f"The events of run '{run.id}' are not kept any more.")
            if not found:
                yield StreamEvent(number=after, name=DONE[0], data=DONE[1], is_last=True)
                return
        async with aclosing(self._journal.follow(run.id, after=after)) as events:
            async for event in events:
                yield event


def _check_outputs(run: Run, outputs: Mapping[str, str]) -> None:
    if run.status != "requires_action":
        raise _wrong_state(f"Run '{run.id}' does not wait for tool outputs: it is {run.status}.")
    wanted = [call.id for call in run.open_calls]
    for id_ in outputs:
        if id_ not in wanted:
            raise InvalidRequestError(
                f"Run '{run.id}' has no open tool call with id {id_[:100]!r}; open: "
                f"{', '.join(wanted)}.",
                code="invalid_value",
                param="tool_outputs",
            )
    if missing := [id_ for id_ in wanted if id_ not in outputs]:
        raise InvalidRequestError(
            f"Run '{run.id}' needs the outputs of all its open tool calls together; missing: "
            f"{', '.join(missing)}.",
            code="missing_tool_outputs",
            param="tool_outputs",
        )


def _wrong_state(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, code="invalid_run_state")


def _no_thread(thread_id: str) -> NotFoundError:
    return NotFoundError(f"No thread found with id {thread_id[:100]!r}.")


def _no_run(thread_id: str, run_id: str) -> NotFoundError:
    return NotFoundError(f"No run found with id {run_id[:100]!r} on thread {thread_id[:100]!r}.")
