"""What an interactive request waits because a batch runs: both in one run, by turns.

    python -m benchmarks.batches                     # both engines, the model that ships
    python -m benchmarks.batches --engine llamacpp --model build/random-1.1b-q4_0.gguf

Requests come back to back, when the batch never gets the machine, and now and then, when it has
had it for a while and is stopped by each of them. The load generator shares the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final
from urllib.parse import urlsplit

from openai import AsyncOpenAI
from openai.types import Batch

from benchmarks import machine
from benchmarks.load import END_OF_TEXT, WORDS, Timing, ask_over_http
from benchmarks.serving import child, first_line

ENGINES: Final = ("llamacpp", "batched")
TINY: Final = "@openworks/tiny-chat"
_TINY_ENDS: Final = (0, 2)
PATTERNS: Final = {"back to back": 0.0, "now and then": 0.6}
"""How long callers think between two requests, in seconds."""
_LINES: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server and what it is asked."""

    url: str
    model: str
    client: AsyncOpenAI
    ends: tuple[int, ...]
    """The tokens that end an answer."""
    tokens: int

    async def ask(self, number: int) -> Timing:
        """Ask as somebody does who waits."""
        address = urlsplit(self.url)
        assert address.hostname is not None
        assert address.port is not None
        return await ask_over_http(
            address.hostname, address.port, {**self.body(number), "stream": True}
        )

    def body(self, number: int) -> dict[str, Any]:
        """Return a request whose prompt is its own."""
        words = " ".join(WORDS[(number * step) % len(WORDS)] for step in (1, 2, 4))
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": f"{number} {words}"}],
            "max_tokens": self.tokens,
            "temperature": 0,
            "logit_bias": {str(end): -100 for end in self.ends},  # so that lengths are equal
        }

    async def keep_lines(self) -> str:
        """Upload more lines than are answered while it is measured; return the file's id."""
        lines = [
            {
                "custom_id": f"line-{number}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": self.body(number),
            }
            for number in range(_LINES)
        ]
        data = "\n".join(map(json.dumps, lines)).encode()
        return (await self.client.files.create(file=("lines.jsonl", data), purpose="batch")).id

    @asynccontextmanager
    async def batch(self, file_id: str) -> AsyncIterator[str]:
        """Let a batch run, which has answered something, until the block ends."""
        batch = await self.client.batches.create(
            completion_window="24h", endpoint="/v1/chat/completions", input_file_id=file_id
        )
        while not done_of(batch):
            await asyncio.sleep(0.1)
            batch = await self.client.batches.retrieve(batch.id)
        yield batch.id
        batch = await self.client.batches.cancel(batch.id)
        while batch.status != "cancelled":
            await asyncio.sleep(0.1)
            batch = await self.client.batches.retrieve(batch.id)

    async def lines_per_s(self, batch_id: str, seconds: float) -> float:
        """Measure what a batch gets done while nobody asks."""
        begun_s = time.perf_counter()
        before = done_of(await self.client.batches.retrieve(batch_id))
        await asyncio.sleep(seconds)
        after = done_of(await self.client.batches.retrieve(batch_id))
        return (after - before) / (time.perf_counter() - begun_s)


def done_of(batch: Batch) -> int:
    """Return how many lines have an answer."""
    return batch.request_counts.completed if batch.request_counts else 0


@asynccontextmanager
async def serving(engine: str, model: str, tokens: int) -> AsyncIterator[Server]:
    """Start a server; a model that does not ship is one of `benchmarks.random_model`."""
    folder = tempfile.mkdtemp(prefix="openworks-bench-")
    options = ["--port", "0", "--data-dir", folder]
    name = model
    ends: tuple[int, ...] = _TINY_ENDS
    if model != TINY:
        options += ["--model", model]
        name = model.rpartition("/")[2].removesuffix(".gguf")
        ends = (END_OF_TEXT,)
    try:
        async with child(
            "openworks",
            "serve",
            *options,
            OPENWORKS_CATALOG__ENGINE=engine,
            OPENWORKS_LOG__LEVEL="warning",
        ) as process:
            url = await first_line(process, b"http")
            url = url.removesuffix("/v1")
            async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
                yield Server(url=url, model=name, client=client, ends=ends, tokens=tokens)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(slots=True)
class Figures:
    """Milliseconds of one pattern in one state."""

    first: list[float]
    whole: list[float]


async def run(server: Server, think_s: float, requests: int, at: int) -> Figures:
    """Ask one request after another."""
    figures = Figures([], [])
    for number in range(requests):
        await asyncio.sleep(think_s)
        timing = await server.ask(at + number)
        figures.first.append(timing.first_token_s * 1000)
        figures.whole.append(timing.ended_s * 1000)
    return figures


async def measure(engine: str, options: argparse.Namespace) -> None:
    """Take turns with and without a batch; print a row for each pattern."""
    found: dict[tuple[str, bool], list[Figures]] = {}
    rates: list[float] = []
    at = 1_000_000
    async with serving(engine, options.model, options.tokens) as server:
        file_id = await server.keep_lines()
        await run(server, 0.0, 10, 0)
        for round_ in range(options.rounds):
            for is_busy in (False, True) if round_ % 2 else (True, False):
                for pattern, think_s in PATTERNS.items():
                    at += options.requests
                    if is_busy:
                        async with server.batch(file_id) as batch_id:
                            rates.append(await server.lines_per_s(batch_id, 2.0))
                            figures = await run(server, think_s, options.requests, at)
                    else:
                        figures = await run(server, think_s, options.requests, at)
                    found.setdefault((pattern, is_busy), []).append(figures)
    for pattern in PATTERNS:
        alone, busy = found[pattern, False], found[pattern, True]
        print(
            f"| {engine} | {pattern} "
            f"| {row([each.first for each in alone], [each.first for each in busy])} "
            f"| {row([each.whole for each in alone], [each.whole for each in busy])} |",
            flush=True,
        )
    print(f"# {engine}: {statistics.median(rates):.0f} lines a second while nobody asks")


def row(alone: list[list[float]], busy: list[list[float]]) -> str:
    """Return medians over all rounds, their ratio, and that of the 95th percentiles."""
    one, other = sorted(chain.from_iterable(alone)), sorted(chain.from_iterable(busy))
    tail = int(len(one) * 0.95)
    return (
        f"{statistics.median(one):.1f} | {statistics.median(other):.1f} "
        f"| {statistics.median(other) / statistics.median(one):.3f} "
        f"| {other[tail] / one[tail]:.3f}"
    )


async def measure_all(options: argparse.Namespace) -> None:
    """Measure one engine after another."""
    print("| engine | requests come | first token ms | with a batch | ratio | p95 ratio ", end="")
    print("| whole answer ms | with a batch | ratio | p95 ratio |")
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|", flush=True)
    for engine in options.engine or ENGINES:
        await measure(engine, options)


def main() -> None:
    """Print the head, then measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", choices=ENGINES, action="append")
    parser.add_argument("--model", default=TINY)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--requests", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=64)
    options = parser.parse_args()
    print(machine.describe())
    print(
        f"python -m benchmarks.batches --model {options.model} --rounds {options.rounds} "
        f"--requests {options.requests} --tokens {options.tokens}"
    )
    asyncio.run(measure_all(options))


if __name__ == "__main__":
    main()
