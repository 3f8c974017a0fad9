"""Servers killed, databases locked, gone or full, under load; and what is found afterwards.

    python -m benchmarks.state faults --kills 50

Callers hold conversations with tool calls, bring files, have batches made and follow background
responses, and write down what was acknowledged. Afterwards all of it has to be there, once.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.state.callers import Callers
from benchmarks.state.check import Found, check
from benchmarks.state.servers import Server
from tests.postgres import made_postgres

TALKERS = 6
_GRACE_S = 20.0
"""Longer than a lease: what a dead server held is taken up by then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A case with what was done in it, and what was found."""

    case: str
    callers: Callers
    found: Found

    def lines(self) -> Iterator[str]:
        """Yield the report as Markdown."""
        told = self.callers.told
        acknowledged = {
            "messages": sum(map(len, told.messages.values())),
            "runs": len(told.runs),
            "tool outputs": len(told.outputs),
            "files": len(told.files),
            "batches": len(told.batches),
            "background responses": len(told.responses),
        }
        yield f"### {self.case}\n"
        yield f"- done: {_listed(told.counts)}"
        yield f"- acknowledged: {_listed(acknowledged)}"
        yield f"- found: {_listed(self.found.counts)}"
        yield f"- faults: {len(self.found.faults)}"
        yield from (f"  - {fault}" for fault in self.found.faults[:20])
        yield ""


async def kills(times: int) -> Outcome:
    """Kill the one server at random moments, and start it again."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "data")
        rng = random.Random(1)

        async def strike() -> None:
            for _ in range(times):
                await asyncio.sleep(rng.uniform(0.2, 4.0))
                server.kill()
                await asyncio.to_thread(server.start)

        return await _under_load(f"SIGKILL, {times} times", [server], strike)


async def pair(times: int) -> Outcome:
    """Kill one of two servers on one Postgres at random moments, in turn."""
    with tempfile.TemporaryDirectory() as folder, made_postgres() as postgres:
        postgres.start()
        shared = {"DATABASE__URL": postgres.url, "BLOBS__URL": str(Path(folder) / "blobs")}
        servers = [Server(Path(folder) / name, shared) for name in ("one", "two")]
        rng = random.Random(2)

        async def strike() -> None:
            for number in range(times):
                await asyncio.sleep(rng.uniform(0.5, 5.0))
                victim = servers[number % 2]
                victim.kill()
                await asyncio.sleep(rng.uniform(0.0, 15.0))  # now and then longer than a lease
                await asyncio.to_thread(victim.start)

        case = f"two servers on one Postgres, one of them killed, {times} times"
        return await _under_load(case, servers, strike)


async def gone(seconds: float) -> Outcome:
    """Take the database away for a while."""
    with tempfile.TemporaryDirectory() as folder, made_postgres() as postgres:
        postgres.start()
        server = Server(Path(folder) / "data", {"DATABASE__URL": postgres.url})

        async def strike() -> None:
            await asyncio.sleep(10.0)
            await asyncio.to_thread(postgres.stop)
            await asyncio.sleep(seconds)
            await asyncio.to_thread(postgres.start)
            await asyncio.sleep(15.0)

        return await _under_load(f"database gone for {seconds:g} s", [server], strike)


async def locked(times: int) -> Outcome:
    """Hold SQLite's lock for longer than the server waits for it."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "data")

        async def strike() -> None:
            for _ in range(times):
                await asyncio.sleep(5.0)
                connection = sqlite3.connect(server.data / "openworks.db", timeout=60.0)
                connection.execute("BEGIN IMMEDIATE")
                await asyncio.sleep(15.0)
                connection.close()
            await asyncio.sleep(5.0)

        return await _under_load(f"database locked for 15 s, {times} times", [server], strike)


async def full(times: int) -> Outcome:
    """Fill the disk under the server, and make room again."""
    with _small_disk(mib=256) as disk:
        server = Server(disk / "data")
        filler = disk / "filler"

        async def strike() -> None:
            for _ in range(times):
                await asyncio.sleep(5.0)
                with suppress(OSError), filler.open("wb") as file:
                    while True:
                        file.write(bytes(1 << 16))
                await asyncio.sleep(5.0)
                filler.unlink()
            await asyncio.sleep(5.0)

        return await _under_load(f"disk full for 5 s, {times} times", [server], strike)


async def _under_load(
    case: str, servers: list[Server], strike: Callable[[], Awaitable[None]]
) -> Outcome:
    async with _running(servers) as callers:
        await strike()
        callers.is_over = True
    # All callers have heard their last answer.
    for server in servers:
        if server.process is None:
            await asyncio.to_thread(server.start)
    await asyncio.sleep(_GRACE_S)
    try:
        found = await check(servers[0].url, callers.told)
    finally:
        for server in servers:
            server.kill()
    return Outcome(case=case, callers=callers, found=found)


@asynccontextmanager
async def _running(servers: list[Server]) -> AsyncIterator[Callers]:
    for server in servers:
        await asyncio.to_thread(server.start)
    callers = Callers([server.url for server in servers])
    await callers.prepare()
    task = asyncio.create_task(callers.work(talkers=TALKERS))
    try:
        yield callers
        await task
    except BaseException:
        task.cancel()
        for server in servers:
            server.kill()
        raise


@contextmanager
def _small_disk(*, mib: int) -> Iterator[Path]:
    """Mount a disk of so many MiB; for who may mount one."""
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", folder]
        subprocess.run(mount, check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items()) if count)
