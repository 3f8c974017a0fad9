"""Adapters brought, used and deleted under load, with callers that leave; and the memory meanwhile.

    python -m benchmarks.adapters.soak --minutes 10

A real server with the embedded chat model on the batched engine. Every answer has to be complete,
be left by its caller, or name an adapter that was just deleted; at the end nothing may be held.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from benchmarks import machine
from benchmarks.gateway.processes import free_port, wait_for_port
from benchmarks.hf_folder import write_random_adapter
from benchmarks.random_model import Shape

MODEL = "@openworks/tiny-chat"
SHAPE = Shape(layers=6, dim=192, ffn_dim=512, heads=6, kv_heads=6, vocab=1024)
"""Of the embedded chat model."""
CALLERS = 24
UPLOADERS = 2
MOST_ADAPTERS = 40
SAMPLE_EVERY_S = 5.0
_SETTLED_SHARE = 0.3
"""Of the time, in which caches and pools may still fill."""


@dataclass(slots=True)
class Soak:
    """What happened."""

    url: str
    ends_s: float
    live: list[str] = field(default_factory=list)
    """The adapters that can be asked for now."""
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    samples: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    """Minutes since the start, and MiB by kind of process."""

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self.ends_s

    async def call(self, session: aiohttp.ClientSession, rng: random.Random) -> None:
        """Ask until the end: half of the calls with an adapter, one in five left early."""
        while not self.is_over:
            adapter = rng.choice([None, *self.live]) if self.live else None
            model = MODEL if adapter is None else f"{MODEL}+{adapter}"
            body = {
                "model": model,
                "messages": [{"role": "user", "content": f"What is {rng.randrange(9)} + 1?"}],
                "max_tokens": rng.randrange(1, 60),
                "temperature": 1.0,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
            leaves = rng.random() < 0.2
            async with session.post(f"{self.url}/v1/chat/completions", json=body) as answer:
                if answer.status != 200:
                    self._refused(answer.status, await answer.text(), adapter)
                elif leaves:
                    await answer.content.readline()
                    answer.close()
                    self.counts["left by the caller"] += 1
                else:
                    self._ended(await answer.text(), adapter)

    async def bring(self, session: aiohttp.ClientSession, rng: random.Random, files: Path) -> None:
        """Upload adapters and delete others, until the end."""
        finetunes = f"{self.url}/client/v4/accounts/default/ai/finetunes"
        while not self.is_over:
            name = f"a{rng.randrange(1 << 40):x}"
            async with session.post(finetunes, json={"model": MODEL, "name": name}) as answer:
                made = (await answer.json())["result"]
            folder = files / str(rng.randrange(6))
            for file in sorted(folder.iterdir()):
                form = aiohttp.FormData()
                form.add_field("file_name", file.name)
                form.add_field("file", file.read_bytes(), filename=file.name)
                url = f"{finetunes}/{made['id']}/finetune-assets"
                async with session.post(url, data=form) as answer:
                    if answer.status != 200:
                        self.faults.append(f"upload: {answer.status} {await answer.text()}")
            self.live.append(name)
            self.counts["adapters brought"] += 1
            if len(self.live) > MOST_ADAPTERS:
                victim = self.live.pop(rng.randrange(len(self.live)))
                async with session.delete(f"{finetunes}/{victim}") as answer:
                    if answer.status != 200:
                        self.faults.append(f"delete: {answer.status} {await answer.text()}")
                self.counts["adapters deleted"] += 1
            await asyncio.sleep(0.2)

    async def watch(self, pid: int) -> None:
        """Note the memory of the server and its children."""
        started_s = time.monotonic()
        while not self.is_over:
            mib: dict[str, float] = {}
            for each in machine.family(pid):
                kind = _kind(each)
                mib[kind] = mib.get(kind, 0.0) + _resident_mib(each)
            self.samples.append(((time.monotonic() - started_s) / 60, mib))
            await asyncio.sleep(SAMPLE_EVERY_S)

    def _refused(self, status: int, text: str, adapter: str | None) -> None:
        if status == 404 and adapter is not None and adapter not in self.live:
            self.counts["refused: adapter deleted"] += 1
        else:
            self.faults.append(f"{status} {text[:300]}")

    def _ended(self, text: str, adapter: str | None) -> None:
        if text.rstrip().endswith("data: [DONE]") and '"finish_reason":"' in text:
            self.counts["answered, with an adapter" if adapter else "answered"] += 1
        elif adapter is not None and adapter not in self.live and '"error"' in text:
            self.counts["broken off: adapter deleted"] += 1
        else:
            self.faults.append(f"incomplete: {text[-300:]}")


def _kind(pid: int) -> str:
    command = Path(f"/proc/{pid}/cmdline").read_bytes()
    for kind, module in (("engines", b"engines.host"), ("log writer", b"logbook")):
        if module in command:
            return kind
    return "server"


def _resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


@contextmanager
def serving(data: Path) -> Iterator[tuple[str, int]]:
    """Run a server; yield its address and process id."""
    port = free_port()
    config = data / "openworks.toml"
    config.write_text('[catalog]\nengine = "batched"\n[engines]\nmax_queue = 256\n')
    command = [
        *(sys.executable, "-m", "openworks", "serve", "--port", str(port)),
        *("--data-dir", str(data), "--config", str(config)),
    ]
    with (data / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for_port(process, port)
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait(30)


@asynccontextmanager
async def _session() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield session


async def run(url: str, pid: int, files: Path, minutes: float) -> Soak:
    """Load a server; return what happened, after the last answer."""
    soak = Soak(url=url, ends_s=time.monotonic() + 60 * minutes)
    async with _session() as session, asyncio.TaskGroup() as group:
        group.create_task(soak.watch(pid))
        for number in range(CALLERS):
            group.create_task(soak.call(session, random.Random(number)))
        for number in range(UPLOADERS):
            group.create_task(soak.bring(session, random.Random(1000 + number), files))
    return soak


async def left_over(url: str) -> dict[str, float]:
    """What the engine still holds once its report has caught up."""
    await asyncio.sleep(2.0)
    async with _session() as session, session.get(f"{url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    wanted = ("openworks_engine_texts{", "openworks_engine_blocks{", "openworks_engine_adapters{")
    return {
        line.rpartition(" ")[0].replace(f'model="{MODEL}",', ""): float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith(wanted)
    }


def _growth(soak: Soak, kind: str) -> str:
    """The peak of a kind of process, and how fast it grew once settled."""
    settled = soak.samples[int(len(soak.samples) * _SETTLED_SHARE) :]
    line = statistics.linear_regression(
        [minutes for minutes, _ in settled], [mib.get(kind, 0.0) for _, mib in settled]
    )
    peak = max(mib.get(kind, 0.0) for _, mib in soak.samples)
    return f"peak {peak:.0f} MiB, {line.slope:+.2f} MiB a minute"


def main() -> None:
    """Soak and print the report as Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        files = Path(scratch) / "adapters"
        for seed in range(6):
            write_random_adapter(
                files / str(seed), SHAPE, rank=(4, 8, 16)[seed % 3], seed=seed, base=MODEL
            )
        data = Path(scratch) / "data"
        data.mkdir()
        with serving(data) as (url, pid):
            soak = asyncio.run(run(url, pid, files, options.minutes))
            held = asyncio.run(left_over(url))
    print(f"`python -m benchmarks.adapters.soak --minutes {options.minutes:g}`\n")
    print(f"{machine.describe()}\n")
    for what, count in sorted(soak.counts.items()):
        print(f"- {what}: {count:,}")
    print(f"- faults: {len(soak.faults)}")
    for kind in ("server", "engines", "log writer"):
        print(f"- {kind}: {_growth(soak, kind)}")
    print(f"- held afterwards: {json.dumps(held)}")
    for fault in soak.faults[:10]:
        print(f"  - {fault}")
    sys.exit(1 if soak.faults else 0)


if __name__ == "__main__":
    main()
