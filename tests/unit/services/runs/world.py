"""A server's runs over stores in memory, with a model that follows a script, and a way to die."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

from openworks.core.errors import AppError
from openworks.core.ids import AccountId
from openworks.core.json import JsonObject
from openworks.ports.calls import Call, Principal, Usage
from openworks.ports.catalog import Deployment, ModelEntry, Task
from openworks.ports.events import StreamEvent
from openworks.ports.files import File
from openworks.ports.runs import Run, RunSettings
from openworks.ports.text import ChatRequest, TextChunk, ToolCallDelta
from openworks.ports.threads import Message, Thread
from openworks.services.agent.loop import Agent
from openworks.services.journal import Journal, JournalConfig
from openworks.services.runs.jobs import RunJobs
from openworks.services.runs.prompts import RunPrompts
from openworks.services.runs.runs import Beginning, Runs, RunsConfig
from openworks.services.workers import Workers, WorkersConfig
from tests.fake_runs import MemoryRunStore, MemoryThreads
from tests.fake_work import MemoryEventStore, MemoryJobStore
from tests.fakes import CountingIds, FakeClock

MINE = AccountId("acct-mine")
ROUTE = "/v1/threads/{thread_id}/runs"
LEASE_S = 10.0
SOON_S = 0.002
WEATHER: JsonObject = {"type": "function", "function": {"name": "get_weather"}}
_UNCOUNTED = {"which_exist", "claim_due", "renew", "release"}
"""Calls that come round by the clock, and not by what is done."""


class Fuse:
    """Burns at a certain call of a store or of the model; from then on nothing answers."""

    def __init__(self, at: int = 0, when: Literal["before", "after"] = "before") -> None:
        """Count calls.

        Args:
            at: The number of the call, from 1; 0 for never.
            when: Whether the call still does its work, of which nobody hears.
        """
        self._at = at
        self._when = when
        self.num_calls = 0
        self.is_burnt = asyncio.Event()

    async def ask(self, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        if self.is_burnt.is_set():
            await asyncio.Event().wait()
        is_last = False
        if name not in _UNCOUNTED:
            self.num_calls += 1
            is_last = self.num_calls == self._at
        if is_last and self._when == "before":
            await self._burn()
        try:
            return await call()
        finally:
            if is_last:
                await self._burn()

    async def _burn(self) -> None:
        self.is_burnt.set()
        await asyncio.Event().wait()

    def protect(self, inner: object) -> Any:
        """Return `inner` behind this fuse."""
        return _Protected(inner, self)


class _Protected:
    def __init__(self, inner: object, fuse: Fuse) -> None:
        self._inner = inner
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        async def asked(*args: Any, **options: Any) -> Any:
            return await self._fuse.ask(name, partial(method, *args, **options))

        return asked


class ScriptedModel:
    """Says the next piece of its script, whoever asks, in chunks of a few letters.

    What it says to a conversation that ends with a tool's output is the script's second entry.
    """

    def __init__(self, *script: Sequence[TextChunk | AppError | asyncio.Event]) -> None:
        self.script = script
        self.context_tokens: int | None = 4096
        self.requests: list[ChatRequest] = []
        self.calls: list[Call] = []
        self.num_counts = 0

    async def chat(self, call: Call, request: ChatRequest) -> AsyncGenerator[TextChunk, None]:
        self.requests.append(request)
        self.calls.append(call)
        turn = sum(each["role"] == "tool" for each in request.messages)
        for part in self.script[turn]:
            match part:
                case TextChunk():
                    yield part
                case asyncio.Event():
                    await part.wait()
                case error:
                    raise error

    async def count_tokens(self, call: Call, request: ChatRequest) -> int:
        """Return a token for each word, and one for each message."""
        self.num_counts += 1
        return sum(1 + len(str(each["content"]).split()) for each in request.messages)

    async def resolve(self, call: Call, task: Task) -> Deployment:
        entry = ModelEntry(id="m", name="m", task=task)
        return Deployment(
            entry=entry, engine="llamacpp", weights=Path("m"), context_tokens=self.context_tokens
        )


class _ModelBehindFuse:
    """Each of the model's chunks is a call that may be the last."""

    def __init__(self, model: ScriptedModel, fuse: Fuse) -> None:
        self._model = model
        self._fuse = fuse

    async def chat(self, call: Call, request: ChatRequest) -> AsyncGenerator[TextChunk, None]:
        async with aclosing(self._model.chat(call, request)) as chunks:
            while True:
                try:
                    chunk = await self._fuse.ask("chunk", partial(anext, chunks))
                except StopAsyncIteration:
                    return
                yield chunk


class NoFiles:
    """No image is a file here, but for those that a test puts there."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[File, bytes]] = {}

    async def find(self, account_id: AccountId, file_id: str) -> File | None:
        found = self.files.get(file_id)
        return None if found is None else found[0]

    async def read(self, file: File) -> AsyncGenerator[bytes, None]:
        yield self.files[file.id][1]


class World:
    """What survives the death of a process."""

    def __init__(self, model: ScriptedModel) -> None:
        self.model = model
        self.clock = FakeClock()
        self.new_id = CountingIds()
        self.jobs = MemoryJobStore()
        self.events = MemoryEventStore(self.jobs)
        self.threads = MemoryThreads()
        self.store = MemoryRunStore(self.threads, self.jobs, self.events)
        self.files = NoFiles()

    @asynccontextmanager
    async def process(
        self, fuse: Fuse | None = None, *, max_attempts: int = 3
    ) -> AsyncIterator[Process]:
        """Run a process until the block ends; if its fuse burns meanwhile, it dies without a word.

        The block is left at once then.
        """
        fuse = fuse or Fuse()
        process = Process(self, fuse, max_attempts)
        others = asyncio.all_tasks()
        process.open()
        try:
            yield process
        finally:
            if fuse.is_burnt.is_set():
                await _let_go(others)
                self.clock.advance(LEASE_S + 1)
            else:
                await process.close()

    def said(self, thread_id: str = "t-1") -> list[str]:
        """What the thread's messages say, oldest first."""
        return [text_of(each) for each in self.threads.rows[thread_id]]

    async def stored(self, run_id: str) -> list[StreamEvent]:
        return list(await self.events.read(run_id, after=-1, limit=10**6))


class Process:
    """What serves runs in one process."""

    def __init__(self, world: World, fuse: Fuse, max_attempts: int) -> None:
        self.world = world
        self.fuse = fuse
        store, events = fuse.protect(world.store), fuse.protect(world.events)
        tools = {"clock": world.clock, "new_id": world.new_id}
        self.journal = Journal(events, JournalConfig(poll_s=SOON_S), clock=world.clock)
        model = _ModelBehindFuse(world.model, fuse)
        jobs = RunJobs(
            store=store,
            events=events,
            journal=self.journal,
            agent=Agent(model, tools={}),
            prompts=RunPrompts(world.model, fuse.protect(world.threads), world.files),
            **cast("Any", tools),
        )
        self.workers = Workers(
            fuse.protect(world.jobs),
            {"run": jobs},
            WorkersConfig(lease_s=LEASE_S, look_every_s=SOON_S, max_attempts=max_attempts),
            **cast("Any", tools),
        )
        self.runs = Runs(
            store, events, self.journal, self.workers, RunsConfig(), **cast("Any", tools)
        )

    def open(self) -> None:
        self.journal.open()
        self.workers.open()

    async def close(self) -> None:
        await self.workers.close()
        await self.journal.close()

    async def begin(self, *said: str, **settings: Any) -> Run:
        """Begin a run on a new thread in which a user has said something."""
        thread = Thread(id="t-1", account_id=MINE, created_at_s=self.world.clock.now_s())
        beginning = Beginning(
            settings=RunSettings(assistant_id="asst-1", model="m", **settings),
            thread=thread,
            messages=[a_message(f"u-{number}", text) for number, text in enumerate(said)],
        )
        return await self.runs.create(Principal(account_id=MINE), ROUTE, "t-1", beginning)

    async def hear(self, run: Run, *, after: int = -1) -> list[StreamEvent]:
        """Listen until a last event."""
        async with asyncio.timeout(20), aclosing(self.runs.events(run, after=after)) as events:
            return [event async for event in events]

    async def now(self, run: Run) -> Run:
        return await self.runs.get(MINE, "t-1", run.id)


async def until_burnt(fuse: Fuse, work: Awaitable[None]) -> None:
    """Do the work, or stop in its middle when the process dies."""
    working = asyncio.ensure_future(work)
    burning = asyncio.create_task(fuse.is_burnt.wait())
    await asyncio.wait({working, burning}, return_when=asyncio.FIRST_COMPLETED, timeout=20)
    burning.cancel()
    if not fuse.is_burnt.is_set():
        async with asyncio.timeout(0):
            await working


async def _let_go(others: set[asyncio.Task[Any]]) -> None:
    """Let calls that are under way end, as they would in a database, and all else vanish."""
    for _ in range(20):
        await asyncio.sleep(0)
    while tasks := asyncio.all_tasks() - others - {asyncio.current_task()}:
        for task in tasks:
            task.cancel()  # again and again: some would like to say goodbye to the database
        await asyncio.sleep(0)


def text(*pieces: str, finish: Any = "stop", tokens: int = 5) -> list[TextChunk]:
    """Say something, piece by piece."""
    usage = Usage(prompt_tokens=10 * tokens, completion_tokens=tokens)
    return [
        *(TextChunk(content=piece) for piece in pieces),
        TextChunk(finish_reason=finish, usage=usage),
    ]


def calls(*functions: tuple[str, str], tokens: int = 5) -> list[TextChunk]:
    """Call functions, each by its name and with arguments that come in two pieces."""
    found = []
    for index, (name, arguments) in enumerate(functions):
        half = len(arguments) // 2
        first = ToolCallDelta(index=index, id=f"call-{name}", name=name, arguments=arguments[:half])
        found.append(TextChunk(tool_calls=(first,)))
        rest = ToolCallDelta(index=index, arguments=arguments[half:])
        found.append(TextChunk(tool_calls=(rest,)))
    usage = Usage(prompt_tokens=10 * tokens, completion_tokens=tokens)
    return [*found, TextChunk(finish_reason="tool_calls", usage=usage)]


def a_message(message_id: str, said: str, *, role: Any = "user", thread_id: str = "t-1") -> Message:
    return Message(
        id=message_id,
        thread_id=thread_id,
        created_at_s=1.0,
        role=role,
        content=({"type": "text", "text": {"value": said, "annotations": []}},),
    )


def text_of(message: Message) -> str:
    return "".join(cast("Any", part)["text"]["value"] for part in message.content)


def names(events: Sequence[StreamEvent]) -> list[str]:
    """Names of events, in which what repeats itself stands once."""
    found: list[str] = []
    for event in events:
        if not found or found[-1] != event.name:
            found.append(event.name)
    return found


def body_of(event: StreamEvent) -> Any:
    return json.loads(event.data)
