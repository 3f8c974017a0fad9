"""The same chat load for every target: streamed requests, each with a prompt of its own."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

WORDS = ("river", "stone", "paper", "cloud", "window", "garden", "yellow", "seven", "train")
END_OF_TEXT = 31_999
"""The end token of `random_model`'s vocabulary; the load forbids it, so that lengths are equal."""


@dataclass(frozen=True, slots=True)
class Timing:
    """One stream: when its first token came, how many chunks with text, when it ended."""

    first_token_s: float
    chunks: int
    ended_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One round of one target."""

    tokens_per_s: float
    first_token_p50_ms: float
    first_token_p99_ms: float


def bodies(streams: int, *, tokens: int, seed: int) -> list[dict[str, Any]]:
    """Return one request body for each stream; the same seed makes the same bodies."""
    rng = random.Random(seed)
    return [
        {
            "model": "bench",
            "messages": [{"role": "user", "content": " ".join(rng.choices(WORDS, k=3))}],
            "max_tokens": tokens,
            "temperature": 0,
            "logit_bias": {str(END_OF_TEXT): -100},
            "stream": True,
        }
        for _ in range(streams)
    ]


def summarise(timings: list[Timing], *, tokens: int, took_s: float) -> Result:
    """Turn the timings of one round into figures; every stream made `tokens` tokens."""
    first_ms = sorted(timing.first_token_s * 1000 for timing in timings)
    return Result(
        tokens_per_s=len(timings) * tokens / took_s,
        first_token_p50_ms=statistics.median(first_ms),
        first_token_p99_ms=first_ms[min(len(first_ms) - 1, int(len(first_ms) * 0.99))],
    )


async def run_round(
    ask: Callable[[dict[str, Any]], Awaitable[Timing]],
    streams: int,
    *,
    tokens: int,
    seed: int,
) -> Result:
    """Start all streams at once and wait for the last."""
    started_s = time.perf_counter()
    timings = await asyncio.gather(
        *(ask(body) for body in bodies(streams, tokens=tokens, seed=seed))
    )
    return summarise(list(timings), tokens=tokens, took_s=time.perf_counter() - started_s)


async def ask_over_http(host: str, port: int, body: dict[str, Any]) -> Timing:
    """Send one request on a connection of its own and read its events."""
    started_s = time.perf_counter()
    reader, writer = await asyncio.open_connection(host, port)
    payload = json.dumps(body).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(payload), payload)
    )
    await writer.drain()
    first_s, chunks = 0.0, 0
    status = await reader.readline()
    if b" 200 " not in status:
        raise RuntimeError(f"{status!r}: {await reader.read()!r}")
    async for line in reader:
        if has_text(line):
            chunks += 1
            first_s = first_s or time.perf_counter() - started_s
    writer.close()
    return Timing(first_s, chunks, time.perf_counter() - started_s)


def has_text(line: bytes) -> bool:
    """Whether an event carries text; cheap, since the load must not take the engine's cores."""
    return b'"content":"' in line and b'"content":""' not in line
