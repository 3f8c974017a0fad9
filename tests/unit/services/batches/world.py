"""Batches with all that they need in memory, and lines that are answered as a script says."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, cast

import orjson
from obstore.store import MemoryStore

from openworks.core.errors import AppError, ModelNotFoundError
from openworks.core.ids import AccountId
from openworks.ports.batches import Batch, BatchStore, LineAnswer, LineRequest
from openworks.ports.calls import Principal, Usage
from openworks.ports.files import File
from openworks.ports.jobs import Claim, Lease, NewJob
from openworks.services.batches.batches import BatchesConfig
from openworks.services.batches.files import BatchFiles
from openworks.services.batches.work import BatchWork
from openworks.services.files import Files, FilesConfig
from openworks.storage.blobs.store import ObjectBlobs
from tests.fake_batches import MemoryBatchStore, MemoryFileStore
from tests.fake_work import MemoryJobStore
from tests.fakes import CountingIds, FakeClock

MINE: Final = AccountId("acct-mine")
ENDPOINT: Final = "/v1/chat/completions"
LEASE_S: Final = 10.0


class Killed(BaseException):
    """The process is gone."""


class Answerer:
    """Says what it was asked, unless a test has other plans for a line."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        """How often each line was begun, by its `say`."""
        self.plans: dict[str, Callable[[LineRequest], Awaitable[LineAnswer]]] = {}
        self.num_running = self.most_running = 0
        self.missing_models: set[str] = set()
        self.principals: set[Principal] = set()

    async def check_model(self, principal: Principal, endpoint: str, model: str) -> None:
        self.principals.add(principal)
        if model in self.missing_models:
            raise ModelNotFoundError(f"The model {model!r} does not exist.", param="model")

    async def answer(self, request: LineRequest) -> LineAnswer:
        say = str(request.body["say"])
        self.asked[say] += 1
        self.principals.add(request.principal)
        self.num_running += 1
        self.most_running = max(self.num_running, self.most_running)
        try:
            await asyncio.sleep(0)
            plan = self.plans.get(say)
            return said(say) if plan is None else await plan(request)
        finally:
            self.num_running -= 1

    def refusal(self, error: AppError) -> LineAnswer:
        return LineAnswer(
            status=error.status, body=orjson.dumps({"error": {"message": error.message}})
        )


def said(text: str, *, status: int = 200) -> LineAnswer:
    """Answer with a text."""
    usage = Usage(prompt_tokens=2, completion_tokens=1)
    return LineAnswer(status=status, body=orjson.dumps({"said": text}), usage=usage)


class Dying:
    """A store of a process that is killed at one of its calls, before the call or after it."""

    def __init__(self, store: BatchStore, *, at: int, is_after: bool) -> None:
        self.num_calls = 0
        self._store = store
        self._at = at
        self._is_after = is_after

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        method = getattr(self._store, name)

        async def call(*args: object, **options: object) -> object:
            self.num_calls += 1
            if self.num_calls > self._at or (self.num_calls == self._at and not self._is_after):
                raise Killed
            result: object = await method(*args, **options)
            if self.num_calls >= self._at:
                raise Killed
            return result

        return call


@dataclass
class World:
    """One database and one blob store, which outlive processes."""

    config: BatchesConfig = BatchesConfig(max_lines=4)
    clock: FakeClock = field(default_factory=FakeClock)
    jobs: MemoryJobStore = field(default_factory=MemoryJobStore)
    file_store: MemoryFileStore = field(default_factory=MemoryFileStore)
    answerer: Answerer = field(default_factory=Answerer)
    _num_batches: int = 0

    def __post_init__(self) -> None:
        self.store = MemoryBatchStore(self.jobs, self.file_store)
        self.blobs = ObjectBlobs(MemoryStore())
        self.files = Files(
            self.file_store, self.blobs, FilesConfig(), clock=self.clock, new_id=CountingIds()
        )

    def work(self, store: BatchStore | Dying | None = None) -> BatchWork:
        """Start a process; its store may be one that fails."""
        seen = self.store if store is None else cast("BatchStore", store)
        outcome = BatchFiles(seen, self.files, self.blobs, orphan_after_s=86_400, clock=self.clock)
        return BatchWork(seen, self.files, outcome, self.answerer, self.config, clock=self.clock)

    async def add(self, *lines: object, **fields: Any) -> Claim:
        """Keep a batch with these lines; bytes stay as they are. Return its claim."""
        data = b"\n".join(line if isinstance(line, bytes) else orjson.dumps(line) for line in lines)
        self._num_batches += 1
        file = File(
            id=f"file-in-{self._num_batches}",
            account_id=MINE,
            created_at_s=0,
            filename="in.jsonl",
            media_type="",
            purpose="batch",
            size_bytes=len(data),
            expires_at_s=None,
        )
        await self.blobs.put(file.blob, data)
        await self.file_store.insert(file, max_total_bytes=0)
        batch = Batch(
            **{
                "id": f"batch_{self._num_batches}",
                "account_id": MINE,
                "key_id": None,
                "allowed_models": None,
                "created_at_s": self.clock.now_s(),
                "expires_at_s": self.clock.now_s() + 86_400,
                "endpoint": ENDPOINT,
                "input_file_id": file.id,
                **fields,
            }
        )
        job = NewJob(
            kind="batch",
            subject_id=batch.id,
            account_id=MINE,
            due_at_s=self.clock.now_s(),
            lease=self._lease(),
        )
        await self.store.insert(batch, job)
        return job.claim

    async def claim_again(self) -> Claim:
        """Let another process take over the batch that is due longest."""
        self.clock.advance(LEASE_S)
        while True:
            claims = await self.jobs.claim_due(
                ["batch"], self._lease(), now_s=self.clock.now_s(), limit=1
            )
            if claims:
                return claims[0]
            self.clock.advance(LEASE_S)

    async def batch(self, batch_id: str = "batch_1") -> Batch:
        batch = await self.store.get(MINE, batch_id)
        assert batch is not None
        return batch

    async def output(self, batch_id: str = "batch_1") -> list[Any]:
        return await self._lines((await self.batch(batch_id)).output_file_id)

    async def errors(self, batch_id: str = "batch_1") -> list[Any]:
        return await self._lines((await self.batch(batch_id)).error_file_id)

    async def _lines(self, file_id: str | None) -> list[Any]:
        if file_id is None:
            return []
        file = self.file_store.files[file_id]
        data = await self.blobs.get(file.blob)
        assert data is not None
        assert len(data) == file.size_bytes
        return [orjson.loads(line) for line in data.splitlines()]

    def _lease(self) -> Lease:
        return Lease(worker="w", until_s=self.clock.now_s() + LEASE_S)


def line(say: str, **fields: object) -> dict[str, object]:
    """A request that makes the answerer say something."""
    return {
        "custom_id": f"id-{say}",
        "method": "POST",
        "url": ENDPOINT,
        "body": {"model": "m", "say": say},
        **fields,
    }
