"""What goes wrong around the server while it has work: it goes on, and tells what it did."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.gateway.gateway_server import TOKEN, GatewayServer, Place, chat_body
from tests.gateway.stand_in import StandIn

IS_SOAK = bool(os.environ.get("SOAK"))
LOCKED_S = 30.0 if IS_SOAK else 5.0
NUM_IDLE_STREAMS = 2000 if IS_SOAK else 500
MAX_RESIDENT_MIB = 250
"""Of the server with all of its idle streams; it is some 100 when it starts."""

pytestmark = pytest.mark.timeout(180)


class Load:
    """Calls from a few clients at once, until told to stop."""

    def __init__(self, place: Place, session: aiohttp.ClientSession) -> None:
        self.place = place
        self.statuses: Counter[int] = Counter()
        self.times_s: list[float] = []
        self._session = session
        self._is_over = False

    async def call(self, **body: object) -> int:
        """Make one call; return its status."""
        began_s = time.monotonic()
        async with self._session.post(
            self.place.url("openai/chat/completions"),
            json=chat_body("gpt-4o-mini", **body),
            headers=self.place.headers(),
        ) as response:
            await response.read()
        self.times_s.append(time.monotonic() - began_s)
        self.statuses[response.status] += 1
        return response.status

    async def _work(self, pause_s: float) -> None:
        while not self._is_over:
            await self.call()
            await asyncio.sleep(pause_s)

    async def run_during(
        self, what: Awaitable[Any], *, clients: int = 8, pause_s: float = 0.01
    ) -> None:
        """Keep calling until `what` is over."""
        tasks = [asyncio.create_task(self._work(pause_s)) for _ in range(clients)]
        try:
            await what
        finally:
            self._is_over = True
            await asyncio.gather(*tasks)

    @property
    def p99_s(self) -> float:
        return sorted(self.times_s)[int(len(self.times_s) * 0.99)]


@asynccontextmanager
async def loaded(folder: Path, **flags: object) -> AsyncIterator[Load]:
    """A server of its own, as its faults are no one else's."""
    timeout = aiohttp.ClientTimeout(total=120)
    async with (
        StandIn(keep_requests=10) as provider,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session,
    ):
        server = await asyncio.to_thread(GatewayServer, provider, folder, flags)
        try:
            yield Load(Place(server, "faulty"), session)
            await session.close()
            await asyncio.to_thread(server.stop)
        finally:
            if server.process.is_running():
                server.process.kill()


def family(load: Load) -> list[int]:
    """The server's process and its children."""
    server = load.place.server.process._process.pid
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    return [server, *map(int, children)]


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def log_writer(load: Load) -> int:
    """The process that writes logs down."""
    (found,) = [
        pid for pid in family(load)[1:] if b"logbook" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return found


async def metric(load: Load, name: str) -> float:
    url = f"{load.place.server.url}/metrics"
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        lines = (await response.text()).splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


async def until(true: Callable[[], bool], what: str, within_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline_s, f"still no {what}"
        await asyncio.sleep(0.05)


async def all_recorded(load: Load) -> None:
    """Every call that was answered has its one record."""
    count = load.statuses.total()
    records = await asyncio.to_thread(load.place.records, count)
    assert len(records) == len({record.id for record in records}) == count
    tokens = load.place.provider.counters.prompt_tokens["gpt-4o-mini"]
    assert sum(record.usage.prompt_tokens for record in records) == tokens


async def test_calls_go_on_while_the_database_is_locked_and_none_is_lost(tmp_path: Path) -> None:
    async with loaded(tmp_path / "s") as load:
        await load.call()
        database = sqlite3.connect(
            load.place.server.process.settings.folder / "openworks.db", isolation_level=None
        )
        database.execute("BEGIN EXCLUSIVE")
        await load.run_during(asyncio.sleep(LOCKED_S))
        database.execute("ROLLBACK")
        database.close()

        assert set(load.statuses) == {200}
        assert load.p99_s < 1.0
        assert len(load.times_s) > 100 * LOCKED_S
        await all_recorded(load)


async def test_calls_go_on_while_the_disk_is_full_and_none_is_lost(tmp_path: Path) -> None:
    """No file may grow: what a full disk is to those who write."""
    async with loaded(tmp_path / "s") as load:
        for _ in range(20):
            await load.call()
        await all_recorded(load)
        processes = family(load)
        for pid in processes:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        try:
            await load.run_during(asyncio.sleep(4.0))
        finally:
            for pid in processes:
                if is_running(pid):
                    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)

        assert set(load.statuses) == {200}
        assert load.p99_s < 1.0
        await all_recorded(load)


async def test_a_log_writer_that_hangs_costs_bodies_and_rows_which_are_counted(
    tmp_path: Path,
) -> None:
    async with loaded(tmp_path / "s", **{"ledger.max_bytes": 1 << 20}) as load:
        await load.call()
        writer = log_writer(load)
        os.kill(writer, signal.SIGSTOP)
        try:

            async def until_lost() -> None:
                deadline_s = time.monotonic() + 60
                while await metric(load, "openworks_log_lost_records_total") < 50:
                    assert time.monotonic() < deadline_s, "no row was lost"
                    await asyncio.sleep(0.2)

            await load.run_during(until_lost(), clients=32, pause_s=0)
            assert await metric(load, "openworks_log_waiting_bytes") < 3 << 20
        finally:
            os.kill(writer, signal.SIGCONT)

        assert set(load.statuses) == {200}
        lost = int(await metric(load, "openworks_log_lost_records_total"))
        records = await asyncio.to_thread(load.place.records, load.statuses.total() - lost)
        assert len(records) + lost == load.statuses.total()
        await load.call()
        assert len(await asyncio.to_thread(load.place.records, len(records) + 1))


async def test_a_log_writer_that_is_killed_under_load_loses_nothing(tmp_path: Path) -> None:
    async with loaded(tmp_path / "s") as load:
        await load.call()

        async def kill_again_and_again() -> None:
            for _ in range(3):
                await asyncio.sleep(1.0)
                os.kill(log_writer(load), signal.SIGKILL)

        await load.run_during(kill_again_and_again())

        assert set(load.statuses) == {200}
        await all_recorded(load)


async def _idle_stream(load: Load) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a stream that says one token and then nothing for a minute."""
    reader, writer = await asyncio.open_connection(*load.place.server.process.address)
    body = str(chat_body("mock-t9-c60000", stream=True)).replace("'", '"').replace("True", "true")
    writer.write(
        f"POST /gateway/v1/faulty/default/openai/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        f"cf-aig-authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    assert b" 200 " in await reader.readline()
    await reader.readuntil(b"tok0")
    return reader, writer


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


async def test_calls_are_quick_beside_many_idle_streams(tmp_path: Path) -> None:
    flags = {"gateway.http.max_connections": 4096, "server.max_requests": 8192}
    async with loaded(tmp_path / "s", **flags) as load:
        await load.call()
        before_mib = resident_mib(family(load)[0])
        opened = []
        for _ in range(NUM_IDLE_STREAMS // 50):
            opened += await asyncio.gather(*(_idle_stream(load) for _ in range(50)))
        await load.run_during(asyncio.sleep(2.0), clients=4)

        assert set(load.statuses) == {200}
        assert load.p99_s < 0.5
        after_mib = resident_mib(family(load)[0])
        assert after_mib < MAX_RESIDENT_MIB, (before_mib, after_mib)
        for _, writer in opened:
            writer.close()
        counters = load.place.provider.counters
        await until(lambda: counters.aborted == NUM_IDLE_STREAMS, "end at the provider")
        total = load.statuses.total() + NUM_IDLE_STREAMS
        records = await asyncio.to_thread(load.place.records, total)
        assert Counter(record.outcome for record in records) == {
            "ok": load.statuses.total(),
            "client_closed": NUM_IDLE_STREAMS,
        }
        print(
            f"\n{NUM_IDLE_STREAMS} idle streams: {before_mib:.0f} → {after_mib:.0f} MiB, "
            f"p99 beside them {load.p99_s * 1000:.1f} ms"
        )


async def test_more_streams_than_connections_wait_their_turn_and_are_refused_in_the_end(
    tmp_path: Path,
) -> None:
    flags = {"gateway.http.max_connections": 4, "gateway.http.max_waiting": 4}
    async with loaded(tmp_path / "s", **flags) as load:

        async def ask() -> int:
            url = load.place.url("openai/chat/completions")
            body = chat_body("mock-d500")
            async with (
                aiohttp.ClientSession() as session,
                session.post(url, json=body, headers=load.place.headers()) as response,
            ):
                await response.read()
                return response.status

        statuses = Counter(await asyncio.gather(*(ask() for _ in range(20))))

        assert statuses == {200: 8, 502: 12} or statuses == {200: 8, 503: 12}
        assert await load.call() == 200
