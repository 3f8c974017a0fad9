"""Callers of the stateful API who write down what was acknowledged to them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2
import openai
from openai import AsyncOpenAI

MODEL = "@openworks/tiny-chat"
CITIES = ("Paris", "Rome", "Oslo", "Cairo", "Lima")
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
ENDS = {"completed", "failed", "cancelled", "expired", "incomplete"}
_AWAY = (
    openai.APIConnectionError,
    openai.InternalServerError,
    openai.RateLimitError,
    httpx2.TransportError,  # of a stream that breaks off
)
"""What callers hear of servers that are killed, busy, or without their database."""


@dataclass(slots=True)
class Acknowledged:
    """What callers were told, to be found again afterwards."""

    messages: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """Thread → ids and texts, in the order of the acknowledgements."""
    runs: dict[str, str] = field(default_factory=dict)
    """Run → thread."""
    outputs: dict[str, str] = field(default_factory=dict)
    """Tool call → its run, once its output was taken."""
    asked_again: list[str] = field(default_factory=list)
    """Tool calls that were asked for after their output was taken."""
    files: dict[str, str] = field(default_factory=dict)
    """File → SHA-256."""
    batches: dict[str, set[str]] = field(default_factory=dict)
    """Batch → the custom ids of its lines."""
    responses: dict[str, str] = field(default_factory=dict)
    """Response → its input."""
    gaps: list[str] = field(default_factory=list)
    """Streams whose events had a gap or a repetition."""
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Callers:
    """Callers of one or more servers that share their state."""

    urls: Sequence[str]
    told: Acknowledged = field(default_factory=Acknowledged)
    is_over: bool = False
    assistant_id: str = ""

    def client(self) -> AsyncOpenAI:
        """Return a client of one of the servers."""
        return AsyncOpenAI(
            base_url=f"{random.choice(self.urls)}/v1", api_key="none", max_retries=0, timeout=60.0
        )

    async def prepare(self) -> None:
        """Make the assistant that all conversations are held with."""
        async with self.client() as client:
            made = await client.beta.assistants.create(
                model=MODEL, name="weather", tools=[TOOL], temperature=0
            )
            self.assistant_id = made.id

    async def work(self, *, talkers: int, others: int = 1) -> None:
        """Call until it is over."""
        async with asyncio.TaskGroup() as group:
            for number in range(talkers):
                group.create_task(self._repeat(self._talk, random.Random(number)))
            for number in range(others):
                for work in (self._bring, self._batch, self._respond):
                    group.create_task(self._repeat(work, random.Random(1000 + number)))

    async def _repeat(
        self, work: Callable[[AsyncOpenAI, random.Random], Awaitable[None]], rng: random.Random
    ) -> None:
        """Do the same again and again; a server that is away is asked again later."""
        name = work.__name__.strip("_")
        while not self.is_over:
            try:
                async with self.client() as client:
                    await work(client, rng)
                self.told.counts[f"{name}: done"] += 1
            except _AWAY as error:
                self.told.counts[f"{name}: {type(error).__name__}"] += 1
                await asyncio.sleep(0.1)

    async def _talk(self, client: AsyncOpenAI, rng: random.Random) -> None:
        """Hold a conversation in a thread of its own, with a tool call here and there."""
        thread = await client.beta.threads.create()
        self.told.messages[thread.id] = []
        for _ in range(rng.randrange(1, 4)):
            sum_, weather = _sum(rng), f"What is the weather in {rng.choice(CITIES)}?"
            text = rng.choice([sum_, weather])
            message = await client.beta.threads.messages.create(
                thread.id, role="user", content=text
            )
            self.told.messages[thread.id].append((message.id, text))
            await self._run(client, thread.id, streams=rng.random() < 0.5)
            if self.is_over:
                return

    async def _run(self, client: AsyncOpenAI, thread_id: str, *, streams: bool) -> None:
        runs = client.beta.threads.runs
        if streams:
            stream = await runs.create(thread_id, assistant_id=self.assistant_id, stream=True)
            async for event in stream:
                if event.event == "thread.run.created":
                    self.told.runs[event.data.id] = thread_id
        else:
            run = await runs.create(thread_id, assistant_id=self.assistant_id)
            self.told.runs[run.id] = thread_id
        found = await runs.list(thread_id, limit=1)
        run = found.data[0]
        while run.status not in ENDS and not self.is_over:
            if run.status == "requires_action":
                await self._answer(client, run)
            await asyncio.sleep(0.05)
            run = await runs.retrieve(run.id, thread_id=thread_id)

    async def _answer(self, client: AsyncOpenAI, run: Any) -> None:
        calls = run.required_action.submit_tool_outputs.tool_calls
        for call in calls:
            if call.id in self.told.outputs:
                self.told.asked_again.append(call.id)
        await client.beta.threads.runs.submit_tool_outputs(
            run.id,
            thread_id=run.thread_id,
            tool_outputs=[{"tool_call_id": call.id, "output": "18 degrees"} for call in calls],
        )
        for call in calls:
            self.told.outputs[call.id] = run.id

    async def _bring(self, client: AsyncOpenAI, rng: random.Random) -> None:
        """Bring a file, at once or in parts."""
        data = rng.randbytes(rng.randrange(1, 1 << 20))
        if rng.random() < 0.5:
            file = await client.files.create(file=("data.bin", data), purpose="user_data")
            file_id = file.id
        else:
            upload = await client.uploads.create(
                filename="data.bin",
                bytes=len(data),
                mime_type="application/octet-stream",
                purpose="user_data",
            )
            middle = len(data) // 2 or 1
            parts = [
                (await client.uploads.parts.create(upload.id, data=part)).id
                for part in (data[:middle], data[middle:])
                if part
            ]
            done = await client.uploads.complete(upload.id, part_ids=parts)
            assert done.file is not None
            file_id = done.file.id
        self.told.files[file_id] = hashlib.sha256(data).hexdigest()
        await asyncio.sleep(rng.random())

    async def _batch(self, client: AsyncOpenAI, rng: random.Random) -> None:
        """Have a batch made, and wait for it for a while."""
        ids = {f"line-{number}" for number in range(rng.randrange(1, 30))}
        lines = [
            {
                "custom_id": each,
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {
                    "model": MODEL,
                    "messages": [{"role": "user", "content": f"What is {len(each)} + 1?"}],
                    "max_tokens": 30,
                },
            }
            for each in sorted(ids)
        ]
        data = "\n".join(json.dumps(line) for line in lines).encode()
        file = await client.files.create(file=("batch.jsonl", data), purpose="batch")
        batch = await client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        self.told.batches[batch.id] = ids
        for _ in range(100):
            if batch.status in ENDS or self.is_over:
                return
            await asyncio.sleep(0.2)
            batch = await client.batches.retrieve(batch.id)

    async def _respond(self, client: AsyncOpenAI, rng: random.Random) -> None:
        """Ask in the background, and follow the events, resuming wherever the stream breaks."""
        text = _sum(rng)
        stream = await client.responses.create(
            model=MODEL, input=text, background=True, stream=True, temperature=0
        )
        response_id, last = "", -1
        try:
            async for event in stream:
                last = self._follow(response_id, last, event.sequence_number)
                if event.type == "response.created":
                    response_id = event.response.id
                    self.told.responses[response_id] = text
            return
        except _AWAY as error:
            if not response_id:
                raise
            self.told.counts[f"streams broken: {type(error).__name__}"] += 1
        await self._resume(response_id, last)

    async def _resume(self, response_id: str, last: int) -> None:
        while not self.is_over:
            await asyncio.sleep(0.1)
            try:
                async with self.client() as client:
                    events = await client.responses.retrieve(
                        response_id, stream=True, starting_after=last
                    )
                    async for event in events:
                        last = self._follow(response_id, last, event.sequence_number)
                    self.told.counts["streams resumed to their end"] += 1
                    return
            except _AWAY:
                continue

    def _follow(self, response_id: str, last: int, number: int) -> int:
        if number != last + 1:
            self.told.gaps.append(f"{response_id}: {last} → {number}")
        return number


def _sum(rng: random.Random) -> str:
    return f"What is {rng.randrange(9)} + {rng.randrange(9)}?"
