"""Chat serving: bare llama.cpp, llama.cpp's own HTTP server and openworks, in one run.

    make bench            # or: python -m benchmarks.serving --preset 1.1b --rounds 3

All three hold the same generated GGUF with the same slots, context and threads; each runs alone,
in interleaved rounds; the figures are medians. The load generator shares the machine with them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from benchmarks import machine
from benchmarks.load import Result, Timing, ask_over_http, run_round
from benchmarks.random_model import PRESETS, write_random_llama

SLOTS = 32
CONTEXT = 512
STREAMS = (1, 8, 32)
THREADS = len(os.sched_getaffinity(0))


class Target(Protocol):
    """Something that answers chat requests."""

    @property
    def pid(self) -> int:
        """Of the process whose memory counts, with its children."""
        ...

    async def run(self, streams: int, *, tokens: int, seed: int) -> Result:
        """Run one round."""
        ...


@dataclass(frozen=True, slots=True)
class BareEngine:
    """The `xllamacpp` object, fed by threads of its own process."""

    pid: int
    process: asyncio.subprocess.Process

    async def run(self, streams: int, *, tokens: int, seed: int) -> Result:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([streams, tokens, seed]).encode() + b"\n")
        return Result(**json.loads(await self.process.stdout.readline()))


@dataclass(frozen=True, slots=True)
class HttpServer:
    """A server that speaks OpenAI's chat completions."""

    pid: int
    url: str

    async def run(self, streams: int, *, tokens: int, seed: int) -> Result:
        address = urlsplit(self.url)
        assert address.hostname is not None
        assert address.port is not None
        host, port = address.hostname, address.port

        async def ask(body: dict[str, object]) -> Timing:
            return await ask_over_http(host, port, body)

        return await run_round(ask, streams, tokens=tokens, seed=seed)


@asynccontextmanager
async def child(*arguments: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a Python module; it is ended with the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 15)
        except TimeoutError:
            process.kill()
            await process.wait()


async def first_line(process: asyncio.subprocess.Process, start: bytes) -> str:
    """Read the process's output up to the line that contains `start`; return from there on."""
    assert process.stdout is not None
    async for line in process.stdout:
        if start in line:
            return line[line.index(start) :].split()[0].decode().strip()
    raise RuntimeError(f"{start!r} never came; exit status {process.returncode}")


async def targets(model: Path, data_dir: str, stack: AsyncExitStack) -> dict[str, Target]:
    """Start all three, one after another."""
    limits = ("--slots", str(SLOTS), "--context", str(CONTEXT), "--threads", str(THREADS))
    engine = ("benchmarks.bare_engine", str(model), *limits)
    bare = await stack.enter_async_context(child(*engine, "rounds"))
    await first_line(bare, b"http")
    peer = await stack.enter_async_context(child(*engine, "serve"))
    peer_url = await first_line(peer, b"http")
    ours = await stack.enter_async_context(
        child(
            "openworks",
            "serve",
            "--port",
            "0",
            "--model",
            str(model),
            "--data-dir",
            data_dir,
            OPENWORKS_CATALOG__PARALLEL=str(SLOTS),
            OPENWORKS_CATALOG__CONTEXT_TOKENS=str(CONTEXT),
            OPENWORKS_CATALOG__ALIASES=json.dumps({"bench": model.stem}),
        )
    )
    our_url = await first_line(ours, b"http")
    return {
        "bare xllamacpp": BareEngine(bare.pid, bare),
        "llama.cpp's own HTTP server": HttpServer(peer.pid, peer_url),
        "openworks": HttpServer(ours.pid, our_url),
    }


async def measure(options: argparse.Namespace, model: Path) -> None:
    """Warm up, run the rounds, print the table."""
    data_dir = tempfile.mkdtemp(prefix="openworks-bench-")
    results: dict[tuple[str, int], list[Result]] = {}
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, data_dir, ignore_errors=True)
        found = await targets(model, data_dir, stack)
        for target in found.values():
            await target.run(2, tokens=8, seed=0)
        for streams in STREAMS:
            # A single stream is over soon and differs most from time to time: it is asked more.
            for number in range(options.rounds * max(1, 8 // streams)):
                for name, target in found.items():
                    result = await target.run(streams, tokens=options.tokens, seed=number + 1)
                    results.setdefault((name, streams), []).append(result)
                    print(f"# {streams} streams, round {number + 1}, {name}: {result}", flush=True)
        memory = {
            name: machine.peak_memory_mib(machine.family(target.pid))
            for name, target in found.items()
        }
    print_table(list(found), results, memory)


def print_table(
    names: list[str], results: dict[tuple[str, int], list[Result]], memory: dict[str, float]
) -> None:
    """Print medians; what is compared with the first target is compared round by round."""

    def figures(name: str, streams: int, figure: str) -> list[float]:
        return [float(getattr(result, figure)) for result in results[name, streams]]

    def median(name: str, streams: int, figure: str) -> float:
        return statistics.median(figures(name, streams, figure))

    def paired(name: str, streams: int, figure: str) -> list[tuple[float, float]]:
        bare = figures(names[0], streams, figure)
        return list(zip(figures(name, streams, figure), bare, strict=True))

    print()
    print("| streams | target | tokens/s | of bare | first token p50 ms | added | p99 ms |")
    print("|--:|---|--:|--:|--:|--:|--:|")
    for streams in STREAMS:
        for name in names:
            rate = median(name, streams, "tokens_per_s")
            first_ms = median(name, streams, "first_token_p50_ms")
            ratio = statistics.median(a / b for a, b in paired(name, streams, "tokens_per_s"))
            added_ms = statistics.median(
                a - b for a, b in paired(name, streams, "first_token_p50_ms")
            )
            print(
                f"| {streams} | {name} | {rate:.1f} | {ratio:.3f} "
                f"| {first_ms:.1f} | {added_ms:+.1f} "
                f"| {median(name, streams, 'first_token_p99_ms'):.1f} |"
            )
    print()
    for name in names:
        print(f"Peak resident memory, {name}: {memory[name]:.0f} MiB (all its processes)")


def main() -> None:
    """Make the model if it is not there, print the head, measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", choices=sorted(PRESETS), default="1.1b")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--folder", type=Path, default=Path("build"))
    options = parser.parse_args()
    model = options.folder / f"random-{options.preset}-q4_0.gguf"
    if not model.exists():
        options.folder.mkdir(parents=True, exist_ok=True)
        write_random_llama(model, PRESETS[options.preset])
    print(f"{machine.describe()}, {THREADS} threads")
    print(
        f"python -m benchmarks.serving --preset {options.preset} --rounds {options.rounds} "
        f"--tokens {options.tokens}; {SLOTS} slots of {CONTEXT} tokens, Q4_0, random weights"
    )
    asyncio.run(measure(options, model))


if __name__ == "__main__":
    main()
