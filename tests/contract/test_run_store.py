"""Runs and their steps are kept, changed and found alike by every store of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

import pytest

from openworks.core.errors import ConflictError, InvalidRequestError, LeaseLostError
from openworks.core.ids import AccountId, KeyId
from openworks.core.pages import PageRequest
from openworks.ports.calls import Usage
from openworks.ports.events import EventStore, NewEvents, StreamEvent
from openworks.ports.jobs import Claim, JobStore, Lease, NewJob, Rest
from openworks.ports.runs import (
    FunctionCall,
    NewRun,
    Run,
    RunChange,
    RunError,
    RunSettings,
    RunStep,
    RunStore,
)
from openworks.ports.threads import Message, MessageStore, Thread
from openworks.storage.sql.database import Database
from openworks.storage.sql.events import SqlEventStore
from openworks.storage.sql.jobs import SqlJobStore
from openworks.storage.sql.messages import SqlMessageStore
from openworks.storage.sql.runs import SqlRunStore
from openworks.storage.sql.threads import SqlThreadStore
from tests.contract.conftest import OpenDatabase
from tests.fake_runs import MemoryRunStore, MemoryThreads
from tests.fake_work import MemoryEventStore, MemoryJobStore

MINE, THEIRS = AccountId("acct-mine"), AccountId("acct-theirs")
NOW_S = 1_790_000_000.25
LEASE = Lease(worker="w-1", until_s=NOW_S + 10)
MOST = 100
CALLS = tuple(
    FunctionCall(id=f"call-{number}", name="f", arguments='{"größe": 1}') for number in range(2)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """All that a run touches, over one database."""

    runs: RunStore
    messages: MessageStore
    jobs: JobStore
    events: EventStore
    database: Database | None = None

    async def begin(
        self,
        run_id: str = "run-1",
        thread_id: str = "t-1",
        *,
        is_new_thread: bool = True,
        messages: Sequence[Message] = (),
        run: Run | None = None,
    ) -> Claim:
        """Keep a run, on a new thread as a rule, and return the claim of who works on it."""
        run = a_run(run_id, thread_id) if run is None else run
        new = new_run(run, messages, thread=a_thread(thread_id) if is_new_thread else None)
        assert await self.runs.insert(new)
        return new.job.claim

    async def numbers(self, run_id: str = "run-1") -> list[int]:
        return [each.number for each in await self.events.read(run_id, after=-1, limit=100)]

    async def message_ids(self) -> list[str]:
        page = await self.messages.list(MINE, "t-1", PageRequest(order="asc", limit=100))
        assert page is not None
        return [message.id for message in page.items]

    async def has_job(self, *, now_s: float = NOW_S + 1e6) -> bool:
        return bool(await self.jobs.claim_due(["run"], LEASE, now_s=now_s, limit=1))


@pytest.fixture
async def stores(adapter: str, open_database: OpenDatabase) -> AsyncIterator[Stores]:
    if adapter == "memory":
        threads, jobs = MemoryThreads(), MemoryJobStore()
        events = MemoryEventStore(jobs)
        runs = MemoryRunStore(threads, jobs, events)
        yield Stores(runs=runs, messages=threads, jobs=jobs, events=events)
        return
    async with open_database(adapter) as database:
        yield Stores(
            runs=SqlRunStore(database),
            messages=SqlMessageStore(database),
            jobs=SqlJobStore(database),
            events=SqlEventStore(database),
            database=database,
        )


def a_thread(thread_id: str = "t-1") -> Thread:
    return Thread(id=thread_id, account_id=MINE, created_at_s=NOW_S)


def a_run(run_id: str = "run-1", thread_id: str = "t-1") -> Run:
    return Run(
        id=run_id,
        thread_id=thread_id,
        account_id=MINE,
        created_at_s=NOW_S,
        expires_at_s=NOW_S + 600,
        settings=RunSettings(assistant_id="asst-1", model="m"),
        route="/v1/threads/{thread_id}/runs",
    )


def a_message(message_id: str, *, run_id: str | None = None) -> Message:
    return Message(
        id=message_id,
        thread_id="t-1",
        created_at_s=NOW_S,
        role="user" if run_id is None else "assistant",
        content=(),
        run_id=run_id,
        assistant_id=None if run_id is None else "asst-1",
        status="completed" if run_id is None else "in_progress",
    )


def a_step(number: int, **fields: object) -> RunStep:
    step = RunStep(
        id=f"step-{number}", run_id="run-1", number=number, turn=0, created_at_s=NOW_S + number
    )
    return replace(step, **fields)  # type: ignore[arg-type] # the test's own names


def new_run(run: Run, messages: Sequence[Message] = (), *, thread: Thread | None = None) -> NewRun:
    job = NewJob(kind="run", subject_id=run.id, account_id=MINE, due_at_s=NOW_S, lease=LEASE)
    return NewRun(
        run=run,
        job=job,
        events=some_events(job.claim, 0),
        messages=messages,
        thread=thread,
        most_messages=MOST,
    )


def some_events(claim: Claim, first: int, count: int = 2) -> NewEvents:
    events = [
        StreamEvent(number=number, name="e", data=b"{}") for number in range(first, first + count)
    ]
    return NewEvents(claim=claim, events=events)


async def waiting(stores: Stores) -> Run:
    """Let a run wait for its caller; return it."""
    claim = await stores.begin()
    run = replace(a_run(), status="requires_action", open_calls=CALLS, num_turns=1)
    change = RunChange(
        was="queued",
        run=run,
        new_steps=[a_step(0, tool_calls=CALLS)],
        events=some_events(claim, 2),
        rest=Rest(due_at_s=run.expires_at_s),
    )
    await stores.runs.change(change, now_s=NOW_S)
    return run


async def test_run_comes_back_as_it_was_kept(stores: Stores) -> None:
    run = replace(
        a_run(),
        key_id=KeyId("key-1"),
        settings=RunSettings(
            assistant_id="asst-1",
            model="m",
            instructions="Grüße\0, 世界 🌍",
            tools=({"type": "function", "function": {"name": "f"}},),
            tool_choice={"type": "function", "function": {"name": "f"}},
            parallel_tool_calls=False,
            temperature=0.0,
            top_p=0.5,
            reasoning_effort="low",
            response_format={"type": "json_object"},
            max_prompt_tokens=1,
            max_completion_tokens=2,
            last_messages=3,
        ),
        metadata={"größe": "🌍"},
        status="failed",
        open_calls=CALLS,
        num_turns=3,
        started_at_s=NOW_S + 1,
        ended_at_s=NOW_S + 2,
        usage=Usage(prompt_tokens=7, completion_tokens=8),
        error=RunError(code="server_error", message="no"),
        incomplete_reason="max_tokens",
    )

    await stores.begin(run=run)

    assert await stores.runs.get(MINE, "t-1", "run-1") == run
    assert await stores.runs.find("run-1") == run


async def test_run_begins_with_its_job_its_events_and_its_messages(stores: Stores) -> None:
    await stores.begin(messages=[a_message("m-1"), a_message("m-2")])

    assert await stores.message_ids() == ["m-1", "m-2"]
    assert await stores.numbers() == [0, 1]
    assert not await stores.has_job(now_s=NOW_S)  # somebody works on it
    assert await stores.has_job()


async def test_messages_of_a_run_come_behind_those_that_the_thread_has(stores: Stores) -> None:
    claim = await stores.begin(messages=[a_message("m-1")])
    await end(stores, claim)

    await stores.begin("run-2", is_new_thread=False, messages=[a_message("m-0")])

    assert await stores.message_ids() == ["m-1", "m-0"]


async def end(stores: Stores, claim: Claim, *, was: str = "queued") -> None:
    run = await stores.runs.find(claim.subject_id)
    assert run is not None
    change = RunChange(
        was=was,  # type: ignore[arg-type] # one of them
        run=replace(run, status="completed"),
        events=some_events(claim, 100),
        rest=Rest(),
    )
    await stores.runs.change(change, now_s=NOW_S)


async def test_run_on_a_thread_that_is_not_there_is_not_kept(stores: Stores) -> None:
    await stores.begin()

    for run in (a_run("run-2", "t-2"), replace(a_run("run-2"), account_id=THEIRS)):
        assert not await stores.runs.insert(new_run(run))

    assert await stores.runs.find("run-2") is None
    assert await stores.numbers("run-2") == []


async def test_active_run_has_its_thread_to_itself(stores: Stores) -> None:
    claim = await stores.begin()

    with pytest.raises(InvalidRequestError, match=r"'t-1'.*'run-1'") as caught:
        await stores.runs.insert(new_run(a_run("run-2"), [a_message("m-1")]))
    assert caught.value.code == "run_active"
    with pytest.raises(InvalidRequestError, match=r"'t-1'.*'run-1'"):
        await stores.messages.append(MINE, a_message("m-1"), most=MOST)
    assert await stores.message_ids() == []

    await end(stores, claim)
    assert await stores.messages.append(MINE, a_message("m-1"), most=MOST)
    await stores.begin("run-2", is_new_thread=False)


async def test_of_runs_that_begin_together_one_is_kept(stores: Stores) -> None:
    await end(stores, await stores.begin("run-0"))
    begun = [stores.runs.insert(new_run(a_run(f"run-{number}"))) for number in range(1, 9)]

    ends = await asyncio.gather(*begun, return_exceptions=True)

    assert sum(each is True for each in ends) == 1
    assert all(each is True or isinstance(each, InvalidRequestError) for each in ends)


async def test_run_whose_messages_are_too_many_is_not_kept(stores: Stores) -> None:
    await end(stores, await stores.begin("run-0"))
    many = [a_message(f"m-{number}") for number in range(MOST + 1)]

    with pytest.raises(InvalidRequestError) as caught:
        await stores.runs.insert(new_run(a_run(), many))

    assert caught.value.code == "thread_full"
    assert await stores.runs.find("run-1") is None
    assert await stores.message_ids() == []


async def test_what_belongs_to_another_account_or_thread_is_not_there(stores: Stores) -> None:
    await stores.begin()
    await stores.begin("run-2", "t-2")

    for account_id, thread_id in ((THEIRS, "t-1"), (MINE, "t-2")):
        assert await stores.runs.get(account_id, thread_id, "run-1") is None
        assert await stores.runs.set_metadata(account_id, thread_id, "run-1", {"a": "b"}) is None
    assert await stores.runs.list(THEIRS, "t-1", PageRequest()) is None
    assert await stores.runs.list(MINE, "t-3", PageRequest()) is None
    assert await stores.runs.get(MINE, "t-1", "run-1") == a_run()


async def test_runs_of_a_thread_are_listed_by_creation(stores: Stores) -> None:
    for number, id_ in enumerate(("run-b", "run-a", "run-c")):
        run = replace(a_run(id_), created_at_s=NOW_S + number // 2)
        await end(stores, await stores.begin(run=run, is_new_thread=number == 0))

    async def ids(page: PageRequest) -> tuple[list[str], bool]:
        found = await stores.runs.list(MINE, "t-1", page)
        assert found is not None
        return [run.id for run in found.items], found.has_more

    assert await ids(PageRequest(order="asc")) == (["run-a", "run-b", "run-c"], False)
    assert await ids(PageRequest(limit=2)) == (["run-c", "run-b"], True)
    assert await ids(PageRequest(after="run-b")) == (["run-a"], False)
    with pytest.raises(InvalidRequestError, match="after"):
        await ids(PageRequest(after="run-x"))


async def test_change_is_kept_with_its_steps_message_and_events(stores: Stores) -> None:
    claim = await stores.begin(messages=[a_message("m-1")])
    message = a_message("m-2", run_id="run-1")
    step = a_step(0, message_id="m-2")
    begun = replace(a_run(), status="in_progress", started_at_s=NOW_S)
    beginning = RunChange(
        was="queued",
        run=begun,
        new_steps=[step],
        new_message=message,
        events=some_events(claim, 2),
    )

    await stores.runs.change(beginning, now_s=NOW_S)

    assert await stores.runs.find("run-1") == begun
    assert list(await stores.runs.steps("run-1")) == [step]
    assert await stores.message_ids() == ["m-1", "m-2"]
    assert await stores.messages.get(MINE, "t-1", "m-2") == message
    assert await stores.numbers() == [0, 1, 2, 3]

    said = replace(
        message,
        content=({"type": "text", "text": {"value": "Hi", "annotations": []}},),
        status="incomplete",
        incomplete_reason="max_tokens",
        ended_at_s=NOW_S + 5,
    )
    ended = replace(step, status="completed", ended_at_s=NOW_S + 5, usage=Usage(prompt_tokens=3))
    over = replace(begun, status="incomplete", incomplete_reason="max_tokens", num_turns=1)
    ending = RunChange(
        was="in_progress",
        run=over,
        steps=[ended],
        message=said,
        events=some_events(claim, 4),
        rest=Rest(),
    )
    await stores.runs.change(ending, now_s=NOW_S)

    assert await stores.runs.find("run-1") == over
    assert await stores.runs.get_step("run-1", "step-0") == ended
    assert await stores.messages.get(MINE, "t-1", "m-2") == said
    assert not await stores.has_job()


async def test_change_leaves_the_metadata_to_the_caller(stores: Stores) -> None:
    claim = await stores.begin()
    changed = await stores.runs.set_metadata(MINE, "t-1", "run-1", {"a": "b"})
    assert changed == replace(a_run(), metadata={"a": "b"})

    await end(stores, claim)

    found = await stores.runs.find("run-1")
    assert found is not None
    assert found.metadata == {"a": "b"}
    assert found.status == "completed"


async def test_change_of_a_lost_claim_is_not_kept(stores: Stores) -> None:
    claim = await stores.begin()
    assert await stores.has_job()  # another worker has it now

    with pytest.raises(LeaseLostError):
        await stores.runs.change(
            RunChange(
                was="queued",
                run=replace(a_run(), status="in_progress"),
                new_steps=[a_step(0, message_id="m-1")],
                new_message=a_message("m-1", run_id="run-1"),
                events=some_events(claim, 2),
            ),
            now_s=NOW_S,
        )

    assert await stores.runs.find("run-1") == a_run()
    assert await stores.runs.steps("run-1") == []
    assert await stores.message_ids() == []
    assert await stores.numbers() == [0, 1]


async def test_change_of_a_run_with_another_status_is_not_kept(stores: Stores) -> None:
    claim = await stores.begin()
    assert await stores.runs.begin_cancel(a_run(), now_s=NOW_S)

    with pytest.raises(ConflictError, match="'queued'"):
        await end(stores, claim)

    assert await stores.numbers() == [0, 1]
    assert await stores.runs.find("run-1") == replace(a_run(), status="cancelling")


async def test_change_does_not_bring_a_deleted_message_back(stores: Stores) -> None:
    if stores.database is None:
        pytest.skip("messages of the fake are not deleted")
    claim = await stores.begin(messages=[a_message("m-1")])
    assert await stores.messages.delete(MINE, "t-1", "m-1")

    change = RunChange(
        was="queued", run=a_run(), message=a_message("m-1"), events=some_events(claim, 2)
    )
    await stores.runs.change(change, now_s=NOW_S)

    assert await stores.message_ids() == []


async def test_outputs_are_kept_and_the_run_is_due_at_once(stores: Stores) -> None:
    run = await waiting(stores)
    assert not await stores.has_job(now_s=NOW_S)

    outputs = {"call-0": "Grüße\0 🌍", "call-1": ""}
    assert await stores.runs.submit(run, outputs, now_s=NOW_S)

    found = await stores.runs.find("run-1")
    assert found == replace(run, status="queued", open_calls=())
    (step,) = await stores.runs.steps("run-1")
    assert {call.id: call.output for call in step.tool_calls} == outputs
    assert await stores.has_job(now_s=NOW_S)


async def test_outputs_that_are_not_waited_for_are_not_kept(stores: Stores) -> None:
    run = await waiting(stores)
    steps = await stores.runs.steps("run-1")

    for outputs in ({}, {"call-0": "1"}, {"call-0": "1", "call-1": "2", "call-2": "3"}):
        assert not await stores.runs.submit(run, outputs, now_s=NOW_S)
    assert await stores.runs.steps("run-1") == steps
    assert await stores.runs.find("run-1") == run
    assert not await stores.has_job(now_s=NOW_S)

    outputs = {"call-0": "1", "call-1": "2"}
    assert await stores.runs.submit(run, outputs, now_s=NOW_S)
    assert not await stores.runs.submit(run, outputs, now_s=NOW_S)


async def test_outputs_that_come_together_are_taken_once(stores: Stores) -> None:
    run = await waiting(stores)
    answers = [{"call-0": str(number), "call-1": ""} for number in range(5)]

    taken = await asyncio.gather(
        *(stores.runs.submit(run, outputs, now_s=NOW_S) for outputs in answers)
    )

    assert sum(taken) == 1
    (step,) = await stores.runs.steps("run-1")
    assert step.tool_calls[0].output == str(taken.index(True))


async def test_run_that_waits_is_due_when_it_is_to_be_cancelled(stores: Stores) -> None:
    run = await waiting(stores)

    assert await stores.runs.begin_cancel(run, now_s=NOW_S)

    assert await stores.runs.find("run-1") == replace(run, status="cancelling", open_calls=())
    assert await stores.has_job(now_s=NOW_S)


async def test_run_that_is_over_is_not_cancelled(stores: Stores) -> None:
    await end(stores, await stores.begin())

    assert not await stores.runs.begin_cancel(a_run(), now_s=NOW_S)

    found = await stores.runs.find("run-1")
    assert found is not None
    assert found.status == "completed"


async def test_steps_are_found_and_listed_in_their_order(stores: Stores) -> None:
    claim = await stores.begin()
    await stores.begin("run-2", "t-2")
    steps = [
        a_step(0, message_id="m-1"),
        a_step(1, tool_calls=CALLS, status="failed", ended_at_s=NOW_S),
        a_step(2, turn=1, error=RunError(code="server_error", message="no")),
    ]
    change = RunChange(was="queued", run=a_run(), new_steps=steps, events=some_events(claim, 2))
    await stores.runs.change(change, now_s=NOW_S)

    assert list(await stores.runs.steps("run-1")) == steps
    assert await stores.runs.get_step("run-1", "step-1") == steps[1]
    assert await stores.runs.get_step("run-2", "step-1") is None
    page = await stores.runs.list_steps("run-1", PageRequest(limit=2))
    assert (list(page.items), page.has_more) == (steps[:0:-1], True)
    page = await stores.runs.list_steps("run-1", PageRequest(order="asc", after="step-1"))
    assert (list(page.items), page.has_more) == (steps[2:], False)
    with pytest.raises(InvalidRequestError, match="before"):
        await stores.runs.list_steps("run-1", PageRequest(before="step-9"))


async def test_deleted_thread_takes_its_runs_along_and_tells_who_listens(stores: Stores) -> None:
    if stores.database is None:
        pytest.skip("threads of the fake are not deleted")
    threads = SqlThreadStore(stores.database)
    old = await stores.begin("run-0")
    await end(stores, old)
    claim = await stores.begin(is_new_thread=False)
    farewell = [("error", b'{"error":{}}'), ("done", b"[DONE]")]

    assert not await threads.delete(THEIRS, "t-1", farewell=farewell, now_s=NOW_S)
    assert await threads.delete(MINE, "t-1", farewell=farewell, now_s=NOW_S)

    assert await stores.runs.find("run-1") is None
    assert await stores.runs.list(MINE, "t-1", PageRequest()) is None
    assert not await stores.has_job()
    assert await stores.numbers("run-0") == []
    assert list(await stores.events.read("run-1", after=-1, limit=9)) == [
        StreamEvent(number=2, name="error", data=b'{"error":{}}'),
        StreamEvent(number=3, name="done", data=b"[DONE]", is_last=True),
    ]
    change = RunChange(was="queued", run=a_run(), events=some_events(claim, 2), rest=Rest())
    with pytest.raises(LeaseLostError):
        await stores.runs.change(change, now_s=NOW_S)


async def test_thread_may_go_while_a_run_works_on_it(stores: Stores) -> None:
    if stores.database is None:
        pytest.skip("threads of the fake are not deleted")
    threads = SqlThreadStore(stores.database)
    for round_ in range(5):
        thread_id, run_id = f"t-{round_}", f"run-{round_}"
        claim = await stores.begin(run_id, thread_id)

        async def work(claim: Claim, thread_id: str) -> None:
            run = a_run(claim.subject_id, thread_id)
            for number in range(5):
                message = replace(a_message(f"m-{run.id}-{number}"), thread_id=thread_id)
                change = RunChange(
                    was="queued",
                    run=run,
                    new_message=message,
                    new_steps=[replace(a_step(number), id=f"{run.id}-{number}", run_id=run.id)],
                    events=some_events(claim, 2 + number, 1),
                )
                await stores.runs.change(change, now_s=NOW_S)

        _, worked = await asyncio.gather(
            threads.delete(MINE, thread_id), work(claim, thread_id), return_exceptions=True
        )

        assert worked is None or isinstance(worked, LeaseLostError)
        assert await stores.runs.find(run_id) is None
        assert not await stores.has_job()
