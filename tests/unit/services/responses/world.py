"""Responses over fakes: a model that says its script, and servers that share one memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import orjson

from openworks.core.errors import AppError, NotFoundError, UnsupportedFileError
from openworks.core.ids import AccountId, RequestId
from openworks.core.json import JsonObject
from openworks.ports.calls import Call, Principal, Usage
from openworks.ports.catalog import Deployment, ModelEntry, Task
from openworks.ports.converters import (
    WHOLE,
    ConversionOptions,
    Converted,
    Document,
    DocumentFormat,
    Segment,
)
from openworks.ports.events import StreamEvent
from openworks.ports.files import File
from openworks.ports.text import ChatRequest, FinishReason, TextChunk, ToolCallDelta
from openworks.services.conversations import Conversations
from openworks.services.journal import Journal, JournalConfig
from openworks.services.responses.context import ItemReader
from openworks.services.responses.jobs import ResponseJobs
from openworks.services.responses.responses import NewResponse, Responses
from openworks.services.responses.work import Responder
from openworks.services.workers import Workers, WorkersConfig
from tests.fake_responses import MemoryConversationStore, MemoryResponseStore
from tests.fake_work import MemoryEventStore, MemoryJobStore
from tests.fakes import CountingIds, FakeClock

MINE = AccountId("acct-mine")
USAGE = Usage(prompt_tokens=5, completion_tokens=3, cached_tokens=2, reasoning_tokens=1)
CALL = Call(
    request_id=RequestId("req-1"),
    principal=Principal(account_id=MINE),
    route="/v1/responses",
    model="talker",
)

Step: TypeAlias = TextChunk | AppError | asyncio.Event
"""A chunk that is said, an error that is raised, an event that is waited for."""


def said(*pieces: str, end: FinishReason = "stop") -> list[Step]:
    """Say an answer piece by piece."""
    return [*(TextChunk(content=piece) for piece in pieces), ended(end)]


def thought(*pieces: str) -> list[Step]:
    """Think before an answer."""
    return [TextChunk(reasoning=piece) for piece in pieces]


def called(index: int, name: str, *pieces: str) -> list[Step]:
    """Call a function, its arguments in pieces."""
    first = ToolCallDelta(index=index, id=f"call-{index}", name=name)
    deltas = [first, *(ToolCallDelta(index=index, arguments=piece) for piece in pieces)]
    return [TextChunk(tool_calls=(delta,)) for delta in deltas]


def ended(reason: FinishReason = "stop") -> TextChunk:
    """End an answer."""
    return TextChunk(finish_reason=reason, usage=USAGE)


@dataclass(slots=True)
class ScriptedModels:
    """Answers each call with the next script, and notes what it was asked."""

    scripts: list[list[Step]] = field(default_factory=list)
    requests: list[ChatRequest] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    context_tokens: int | None = None
    is_asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def chat(self, call: Call, request: ChatRequest) -> AsyncGenerator[TextChunk, None]:
        self.calls.append(call)
        self.requests.append(request)
        self.is_asked.set()
        for step in self.scripts.pop(0):
            match step:
                case AppError():
                    raise step
                case asyncio.Event():
                    await step.wait()
                case _:
                    yield step

    async def resolve(self, call: Call, task: Task) -> Deployment:
        entry = ModelEntry(id=call.model, name=call.model, task=task)
        return Deployment(
            entry=entry,
            engine="llamacpp",
            weights=Path("talker.gguf"),
            context_tokens=self.context_tokens,
        )

    async def count_tokens(self, call: Call, request: ChatRequest) -> int:
        return sum(len(str(message["content"])) for message in request.messages)

    def asked(self, number: int = -1) -> list[tuple[object, object]]:
        """Return role and content of the messages of one request."""
        messages = self.requests[number].messages
        return [(message["role"], message["content"]) for message in messages]


class MemoryConverter:
    """Says of every document but a picture how many bytes it has."""

    async def convert(self, document: Document, options: ConversionOptions = WHOLE) -> Converted:
        if document.name.endswith(".png"):
            raise UnsupportedFileError(f"{document.name!r} is a picture.")
        document.file.seek(0)
        size = len(document.file.read())
        return Converted(media_type="", segments=[Segment(text=f"{size} bytes")])

    def formats(self) -> Sequence[DocumentFormat]:
        return ()

    def media_type(self, document: Document) -> str:
        return document.media_type


@dataclass(slots=True)
class MemoryFiles:
    """Files in a dict, by their ids."""

    files: dict[str, tuple[File, bytes]] = field(default_factory=dict)

    def add(self, file_id: str, media_type: str, content: bytes, *, filename: str = "") -> None:
        file = File(
            id=file_id,
            account_id=MINE,
            created_at_s=0,
            filename=filename or f"{file_id}.txt",
            media_type=media_type,
            purpose="user_data",
            size_bytes=len(content),
            expires_at_s=None,
        )
        self.files[file_id] = file, content

    async def get(self, account_id: AccountId, file_id: str) -> File:
        if file_id not in self.files:
            raise NotFoundError(f"No file found with id {file_id!r}.")
        return self.files[file_id][0]

    async def read(self, file: File) -> AsyncGenerator[bytes, None]:
        yield self.files[file.id][1]


@dataclass(slots=True)
class World:
    """What servers share: their stores, and a model."""

    models: ScriptedModels = field(default_factory=ScriptedModels)
    clock: FakeClock = field(default_factory=FakeClock)
    ids: CountingIds = field(default_factory=CountingIds)
    files: MemoryFiles = field(default_factory=MemoryFiles)
    jobs: MemoryJobStore = field(default_factory=MemoryJobStore)
    conversation_store: MemoryConversationStore = field(default_factory=MemoryConversationStore)
    seeds: list[int] = field(default_factory=lambda: [11, 22, 33])

    def __post_init__(self) -> None:
        self.events = MemoryEventStore(self.jobs)
        self.store = MemoryResponseStore(self.conversation_store, self.jobs, self.events)

    events: MemoryEventStore = field(init=False)
    store: MemoryResponseStore = field(init=False)

    @asynccontextmanager
    async def server(self) -> AsyncIterator[Server]:
        """Run a server; after the block, it is dead."""
        journal = Journal(self.events, JournalConfig(), clock=self.clock)
        responder = Responder(
            self.models,
            ItemReader(self.files, MemoryConverter()),
            clock=self.clock,
            new_id=self.ids,
        )
        jobs = ResponseJobs(self.store, self.events, journal, responder)
        workers = Workers(
            self.jobs, {"response": jobs}, WorkersConfig(), clock=self.clock, new_id=self.ids
        )
        conversations = Conversations(
            self.conversation_store, self.store, clock=self.clock, new_id=self.ids
        )
        responses = Responses(
            self.store,
            self.events,
            conversations,
            self.models,
            responder,
            workers,
            journal,
            clock=self.clock,
            new_id=self.ids,
            new_seed=lambda: self.seeds.pop(0),
        )
        journal.open()
        try:
            yield Server(responses=responses, conversations=conversations, workers=workers)
        finally:
            await workers.close()
            await journal.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What a server does with responses."""

    responses: Responses
    conversations: Conversations
    workers: Workers

    async def take_up(self, response_id: str) -> None:
        """Work on what another server has left."""
        await self.workers.resume("response", response_id)


def asking(text: str = "Hello", **fields: Any) -> NewResponse:
    """Return what a caller asks for; settings are among the fields."""
    settings: JsonObject = {
        "parallel_tool_calls": True,
        "tools": [],
        "tool_choice": "auto",
        "stream": fields.pop("stream", False),
        **fields.pop("settings", {}),
    }
    return replace(NewResponse(model="talker", settings=settings, items=(message(text),)), **fields)


def message(text: str, role: str = "user", **fields: str) -> JsonObject:
    """Return a message as a request has it."""
    kind = "output_text" if role == "assistant" else "input_text"
    return {
        "type": "message",
        "role": role,
        "content": [{"type": kind, "text": text}],
        **fields,
    }


def bodies(events: Sequence[StreamEvent]) -> list[Any]:
    """Decode events after a check that their numbers have no gap and their names fit."""
    found = [orjson.loads(event.data) for event in events]
    for number, (event, body) in enumerate(zip(events, found, strict=True), events[0].number):
        assert (event.number, body["sequence_number"]) == (number, number)
        assert body["type"] == event.name
    return found


def texts(response: Any) -> list[str]:
    """Return the texts of a response's messages."""
    return [item["content"][0]["text"] for item in response.output if item["type"] == "message"]
