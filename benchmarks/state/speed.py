"""How fast the stateful API is: a run's start, lists in large threads, many runs, many listeners.

    python -m benchmarks.state speed

The model is the embedded one on the batched engine, so that what is measured is mostly not it.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks import machine
from benchmarks.state.callers import MODEL
from benchmarks.state.servers import Server

_STARTS = 100
_MESSAGES = 10_000
_THREADS = 100_000
_LISTS = 300
_RUNS = 200
_LISTENERS = 500
_ROUNDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the table."""

    what: str
    measured: str
    goal: str


async def measure() -> list[Row]:
    """Measure everything on one server, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "data", {"CATALOG__ENGINE": "batched"})
        await asyncio.to_thread(_import_threads, server.data, Path(folder) / "threads.jsonl")
        await asyncio.to_thread(server.start)
        try:
            timeout = aiohttp.ClientTimeout(total=300)
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(
                f"{server.url}/v1/", timeout=timeout, connector=connector
            ) as session:
                load = Load(session, server, await _assistant(session))
                return [
                    row
                    for part in (load.starts, load.lists, load.many_runs, load.listeners)
                    for row in await part()
                ]
        finally:
            server.kill()


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of a server that holds a large thread among many."""

    session: aiohttp.ClientSession
    server: Server
    assistant_id: str

    async def starts(self) -> list[Row]:
        """From the POST of a run to its first word, against a chat completion's first word."""
        await self._run("What is 1 + 2?")  # loads the model
        runs, chats, created = [], [], []
        for _ in range(_STARTS):
            thread_id = await self._thread("What is 1 + 2?")
            created_ms, first_ms = await self._first_word(thread_id)
            created.append(created_ms)
            runs.append(first_ms)
            chats.append(await self._first_word_of_chat())
        start = [run - chat for run, chat in zip(runs, chats, strict=True)]
        return [
            Row(what="run created, as its stream says", measured=_times(created), goal=""),
            Row(what="first word of a chat completion", measured=_times(chats), goal=""),
            Row(what="first word of a run", measured=_times(runs), goal=""),
            Row(
                what="start of a run: what it adds to a chat completion",
                measured=_times(start),
                goal="20 ms to the model call",
            ),
        ]

    async def lists(self) -> list[Row]:
        """Pages of a thread of 10,000 messages, all over it; of an account of 100,000 threads."""
        rows = []
        for what, path in (
            (f"page of a thread of {_MESSAGES:,} messages", "threads/thread_large/messages"),
            (f"page of {_THREADS:,} threads", "threads"),
        ):
            after, took = "", []
            for _ in range(_LISTS):
                began_s = time.perf_counter()
                page = await self._get(f"{path}?limit=20{after}")
                took.append((time.perf_counter() - began_s) * 1000)
                after = f"&after={page['last_id']}"
            rows.append(Row(what=what, measured=_times(took), goal="p95 10 ms"))
        return rows

    async def many_runs(self) -> list[Row]:
        """200 runs at once, round after round, and the server's memory."""
        memory, took = [], []
        for _ in range(_ROUNDS):
            began_s = time.perf_counter()
            await asyncio.gather(*(self._run("What is 2 + 3?") for _ in range(_RUNS)))
            took.append(time.perf_counter() - began_s)
            memory.append(_resident_mib(self.server.pid))
        mib = " → ".join(f"{each:.0f}" for each in memory)
        return [
            Row(
                what=f"{_RUNS} runs at once, {_ROUNDS} rounds",
                measured=f"{_RUNS / statistics.median(took):.0f} runs a second",
                goal="",
            ),
            Row(what="the server's memory after each round", measured=f"{mib} MiB", goal="flat"),
        ]

    async def listeners(self) -> list[Row]:
        """500 listeners of one background response: how late the last one hears each event."""
        body = {"model": MODEL, "input": "Tell me a story.", "background": True, "stream": True}
        heard: dict[int, list[float]] = {}
        async with self.session.post("responses", json=body) as answer:
            first = await _next_event(answer)
            response_id = first["response"]["id"]
            await asyncio.gather(*(self._listen(response_id, heard) for _ in range(_LISTENERS)))
        live = {number: times for number, times in heard.items() if len(times) == _LISTENERS}
        assert len(live) == len(heard), "a listener has missed an event"
        spread = [(max(times) - min(times)) * 1000 for times in live.values()]
        return [
            Row(
                what=f"{_LISTENERS} listeners: from the first to the last that hears an event",
                measured=f"{_times(spread)}, {len(heard)} events",
                goal="",
            )
        ]

    async def _listen(self, response_id: str, heard: dict[int, list[float]]) -> None:
        async with self.session.get(f"responses/{response_id}?stream=true") as answer:
            while (event := await _next_event(answer)) != {}:
                heard.setdefault(event["sequence_number"], []).append(time.perf_counter())

    async def _run(self, text: str) -> None:
        thread_id = await self._thread(text)
        body = {"assistant_id": self.assistant_id, "stream": True}
        run: Any = {}
        async with self.session.post(f"threads/{thread_id}/runs", json=body) as answer:
            while (event := await _next_event(answer)) != {}:
                run = event if event["object"] == "thread.run" else run
        assert run["status"] == "completed", run

    async def _first_word(self, thread_id: str) -> tuple[float, float]:
        body = {"assistant_id": self.assistant_id, "stream": True}
        began_s = time.perf_counter()
        created_ms = 0.0
        async with self.session.post(f"threads/{thread_id}/runs", json=body) as answer:
            while True:
                event = await _next_event(answer)
                now_ms = (time.perf_counter() - began_s) * 1000
                created_ms = created_ms or now_ms
                if event.get("object") == "thread.message.delta":
                    await answer.read()
                    return created_ms, now_ms

    async def _first_word_of_chat(self) -> float:
        messages = [{"role": "user", "content": "What is 1 + 2?"}]
        body = {"model": MODEL, "messages": messages, "stream": True, "temperature": 0}
        began_s = time.perf_counter()
        async with self.session.post("chat/completions", json=body) as answer:
            while True:
                event = await _next_event(answer)
                if event["choices"][0]["delta"].get("content"):
                    took_ms = (time.perf_counter() - began_s) * 1000
                    await answer.read()
                    return took_ms

    async def _thread(self, text: str) -> str:
        body = {"messages": [{"role": "user", "content": text}]}
        async with self.session.post("threads", json=body) as answer:
            return str((await answer.json())["id"])

    async def _get(self, path: str) -> Any:
        async with self.session.get(path) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()


async def _assistant(session: aiohttp.ClientSession) -> str:
    body = {"model": MODEL, "temperature": 0}
    async with session.post("assistants", json=body) as answer:
        return str((await answer.json())["id"])


async def _next_event(answer: aiohttp.ClientResponse) -> Any:
    """Return the data of the next event; {} at the end."""
    while line := await answer.content.readline():
        if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
            return json.loads(line[6:])
    return {}


def _import_threads(data: Path, file: Path) -> None:
    """Put a large thread among many into a database, as a user would."""
    data.mkdir(parents=True)
    with file.open("w") as output:
        for found in _objects():
            output.write(json.dumps(found) + "\n")
    command = [sys.executable, "-m", "openworks", "threads", "import", str(file)]
    subprocess.run([*command, "--data-dir", str(data)], check=True, capture_output=True)


def _objects() -> Iterator[dict[str, Any]]:
    yield {"object": "thread", "id": "thread_large", "created_at": 1}
    for number in range(_MESSAGES):
        yield {
            "object": "thread.message",
            "thread_id": "thread_large",
            "id": f"msg_{number}",
            "created_at": number,
            "role": "user",
            "content": f"Message {number}, which says something of about this length.",
        }
    for number in range(_THREADS):
        yield {"object": "thread", "id": f"thread_{number}", "created_at": number}


def _resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def _times(took_ms: list[float]) -> str:
    p95 = statistics.quantiles(took_ms, n=20)[-1]
    return f"p50 {statistics.median(took_ms):.1f} ms, p95 {p95:.1f} ms"


def print_table(rows: list[Row]) -> None:
    """Print what was measured as Markdown."""
    print(f"{machine.describe()}\n\n| | measured | goal |\n|---|---|---|")
    for row in rows:
        print(f"| {row.what} | {row.measured} | {row.goal} |")
