"""Fakes of where runs and the messages of their threads are kept, in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from openworks.core.errors import ConflictError, InvalidRequestError
from openworks.core.ids import AccountId
from openworks.core.pages import Page, PageRequest
from openworks.ports.jobs import Claim, Rest
from openworks.ports.runs import NewRun, Run, RunChange, RunStep
from openworks.ports.threads import Message, Thread
from tests.fake_work import MemoryEventStore, MemoryJobStore


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=_HasId)


class MemoryThreads:
    """Threads with their messages, in the order of arrival; a `MessageStore` as far as runs go."""

    def __init__(self) -> None:
        self.threads: dict[str, Thread] = {}
        self.rows: dict[str, list[Message]] = {}
        self.active: dict[str, str] = {}
        """The active runs, by thread."""

    async def append(self, account_id: AccountId, message: Message, *, most: int) -> bool:
        await asyncio.sleep(0)
        if not self.has(account_id, message.thread_id):
            return False
        self.refuse(message.thread_id)
        self.add([message], message.thread_id, most=most)
        return True

    async def get(self, account_id: AccountId, thread_id: str, message_id: str) -> Message | None:
        await asyncio.sleep(0)
        rows = self.rows[thread_id] if self.has(account_id, thread_id) else []
        return next((each for each in rows if each.id == message_id), None)

    async def list(
        self,
        account_id: AccountId,
        thread_id: str,
        page: PageRequest,
        *,
        run_id: str | None = None,
    ) -> Page[Message] | None:
        assert page.after is None
        assert page.before is None
        await asyncio.sleep(0)
        if not self.has(account_id, thread_id):
            return None
        rows = [each for each in self.rows[thread_id] if run_id in {None, each.run_id}]
        return _page(rows, page)

    async def set_metadata(
        self, account_id: AccountId, thread_id: str, message_id: str, metadata: Mapping[str, str]
    ) -> Message | None:
        raise NotImplementedError

    async def delete(self, account_id: AccountId, thread_id: str, message_id: str) -> bool:
        raise NotImplementedError

    def has(self, account_id: AccountId, thread_id: str) -> bool:
        thread = self.threads.get(thread_id)
        return thread is not None and thread.account_id == account_id

    def refuse(self, thread_id: str) -> None:
        if run_id := self.active.get(thread_id):
            raise InvalidRequestError(f"'{thread_id}': '{run_id}' is active.", code="run_active")

    def add(self, messages: Sequence[Message], thread_id: str, *, most: int) -> None:
        rows = self.rows[thread_id]
        if messages and len(rows) + len(messages) > most:
            raise InvalidRequestError(f"'{thread_id}' is full.", code="thread_full")
        if {each.id for each in messages} & {each.id for each in rows}:
            raise ConflictError("A message is there already.")
        rows.extend(messages)

    def replace(self, message: Message) -> None:
        rows = self.rows[message.thread_id]
        rows[:] = [message if each.id == message.id else each for each in rows]


class MemoryRunStore:
    """Runs and steps in dicts; a method that was begun must be awaited to its end."""

    def __init__(
        self, threads: MemoryThreads, jobs: MemoryJobStore, events: MemoryEventStore
    ) -> None:
        self._threads = threads
        self._jobs = jobs
        self._events = events
        self.runs: dict[str, Run] = {}
        self.rows: dict[str, list[RunStep]] = {}

    async def insert(self, new: NewRun) -> bool:
        run = new.run
        await asyncio.sleep(0)
        if new.thread is None and not self._threads.has(run.account_id, run.thread_id):
            return False
        if run.id in self.runs:
            raise ConflictError(f"A run with id '{run.id}' is there already.")
        self._threads.refuse(run.thread_id)
        if new.thread is not None:
            self._threads.threads[new.thread.id] = new.thread
            self._threads.rows[new.thread.id] = []
        self._threads.add(new.messages, run.thread_id, most=new.most_messages)
        self._put(run)
        self.rows[run.id] = []
        await self._jobs.insert(new.job)
        await self._events.insert(new.events, now_s=run.created_at_s)
        return True

    async def get(self, account_id: AccountId, thread_id: str, run_id: str) -> Run | None:
        run = await self.find(run_id)
        if run is None or (run.account_id, run.thread_id) != (account_id, thread_id):
            return None
        return run

    async def find(self, run_id: str) -> Run | None:
        await asyncio.sleep(0)
        return self.runs.get(run_id)

    async def list(
        self, account_id: AccountId, thread_id: str, page: PageRequest
    ) -> Page[Run] | None:
        await asyncio.sleep(0)
        if not self._threads.has(account_id, thread_id):
            return None
        found = [run for run in self.runs.values() if run.thread_id == thread_id]
        return _page(sorted(found, key=lambda run: (run.created_at_s, run.id)), page)

    async def set_metadata(
        self, account_id: AccountId, thread_id: str, run_id: str, metadata: Mapping[str, str]
    ) -> Run | None:
        run = await self.get(account_id, thread_id, run_id)
        if run is not None:
            run = self.runs[run_id] = replace(run, metadata=metadata)
        return run

    async def begin_cancel(self, run: Run, *, now_s: float) -> bool:
        now = await self.find(run.id)
        if now is None or not now.is_active:
            return False
        self._jobs.jobs["run", run.id].due_at_s = now_s
        self._put(replace(now, status="cancelling", open_calls=()))
        return True

    async def submit(self, run: Run, outputs: Mapping[str, str], *, now_s: float) -> bool:
        now = await self.find(run.id)
        if now is None or now.status != "requires_action":
            return False
        if {call.id for call in now.open_calls} != outputs.keys():
            return False
        steps = self.rows[run.id]
        calls = (replace(call, output=outputs[call.id]) for call in steps[-1].tool_calls)
        steps[-1] = replace(steps[-1], tool_calls=tuple(calls))
        self._jobs.jobs["run", run.id].due_at_s = now_s
        self._put(replace(now, status="queued", open_calls=()))
        return True

    async def change(self, change: RunChange, *, now_s: float) -> None:
        run, claim = change.run, change.events.claim
        await self._jobs.hold(claim, is_progress=change.is_progress)
        now = self.runs[run.id]
        if now.status != change.was:
            raise ConflictError(f"Run '{run.id}' is not {change.was!r} any more.")
        await self._events.insert(change.events, now_s=now_s)
        if change.new_message is not None:
            self._threads.add([change.new_message], run.thread_id, most=2**31)
        if change.message is not None:
            self._threads.replace(change.message)
        self.rows[run.id].extend(change.new_steps)
        changed = {step.id: step for step in change.steps}
        self.rows[run.id] = [changed.get(step.id, step) for step in self.rows[run.id]]
        self._put(replace(run, metadata=now.metadata))
        if change.rest is not None:
            self._rest(claim, change.rest)

    async def steps(self, run_id: str) -> Sequence[RunStep]:
        await asyncio.sleep(0)
        return list(self.rows.get(run_id, ()))

    async def get_step(self, run_id: str, step_id: str) -> RunStep | None:
        return next((step for step in await self.steps(run_id) if step.id == step_id), None)

    async def list_steps(self, run_id: str, page: PageRequest) -> Page[RunStep]:
        return _page(await self.steps(run_id), page)

    def _put(self, run: Run) -> None:
        self.runs[run.id] = run
        if run.is_active:
            self._threads.active[run.thread_id] = run.id
        else:
            self._threads.active.pop(run.thread_id, None)

    def _rest(self, claim: Claim, rest: Rest) -> None:
        if rest.due_at_s is None:
            del self._jobs.jobs[claim.kind, claim.subject_id]
            return
        job = self._jobs.jobs[claim.kind, claim.subject_id]
        job.give_back(due_at_s=0.0 if job.is_cancelled else rest.due_at_s)
        job.attempt = 0


def _page(rows: Sequence[T], page: PageRequest) -> Page[T]:
    """Cut a page out of rows, which are in ascending order."""
    ordered = list(rows) if page.order == "asc" else list(rows)[::-1]
    places = {row.id: place for place, row in enumerate(ordered)}
    for param, cursor in (("after", page.after), ("before", page.before)):
        if cursor is not None and cursor not in places:
            raise InvalidRequestError(
                f"{param} must be the id of an item.", code="invalid_cursor", param=param
            )
    first = 0 if page.after is None else places[page.after] + 1
    found = ordered[first : None if page.before is None else places[page.before]]
    backwards = page.before is not None and page.after is None
    kept = found[-page.limit :] if backwards else found[: page.limit]
    return Page(items=kept, has_more=len(found) > page.limit)
