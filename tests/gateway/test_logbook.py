"""The writer process: what it is sent is in the database, whatever happens in between."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
from msgspec.structs import replace

from openworks.core.clock import SystemClock
from openworks.core.ids import AccountId, RequestId
from openworks.gateway.ledger import Ledger
from openworks.ports.calls import CallBodies, CallRecord, Usage
from openworks.ports.gateways import LogPolicy
from openworks.ports.logbook import Entry
from openworks.storage.blobs.s3 import S3Config
from openworks.storage.blobs.store import ObjectBlobs
from openworks.storage.logbook.messages import encode_batch
from openworks.storage.logbook.process import LogbookPlaces, LogbookProcess, SpoolConfig
from openworks.storage.logbook.spool import Spool, SpoolFullError
from openworks.storage.sql.database import Database, DatabaseConfig, sqlite_url
from openworks.storage.sql.logs import SqlLogStore
from tests.s3_server import S3Server

RECORD = CallRecord(
    id=RequestId("log-1"),
    created_at_s=1_790_078_400.0,
    account_id=AccountId("acct"),
    key_id=None,
    route="/r",
    model="m",
    deployment=None,
    stream=False,
    usage=Usage(prompt_tokens=10, completion_tokens=5),
    cost_usd=0.25,
    first_token_ms=None,
    duration_ms=400.0,
    outcome="ok",
    status=200,
    gateway_id="gw",
    provider="openai",
)
SAID = CallBodies(request=b"question" * 50, response=b"answer" * 50)
PATIENCE_S = 30.0


class World:
    """A database, a writer process and a ledger before it."""

    def __init__(self, folder: Path, config: SpoolConfig, bucket: S3Server | None = None) -> None:
        self.folder = folder
        self.blobs = str(folder / "blobs") if bucket is None else bucket.url(uuid4().hex)
        self.s3 = S3Config() if bucket is None else bucket.config
        self.path = folder / "state.db"
        self.logbook = LogbookProcess(
            LogbookPlaces(
                dialect="sqlite",
                address=str(self.path),
                blobs=self.blobs,
                s3=self.s3,
                spool=folder / "spool",
            ),
            config,
            clock=SystemClock(),
        )
        self.ledger = Ledger(self.logbook, clock=SystemClock())

    def record(self, first: int, end: int) -> None:
        for number in range(first, end):
            self.ledger.record(replace(RECORD, id=RequestId(f"log-{number}")), SAID)

    def record_noise(self, first: int, end: int) -> None:
        """Calls that cannot be compressed."""
        for number in range(first, end):
            metadata = {"noise": os.urandom(200).hex()}
            record = replace(RECORD, id=RequestId(f"log-{number}"), metadata=metadata)
            self.ledger.record(record, CallBodies(request=os.urandom(300), response=b""))

    def counts(self) -> tuple[int, int]:
        """The rows, and the requests that the sums know of."""
        with closing(sqlite3.connect(self.path, timeout=PATIENCE_S)) as connection:
            (rows,) = connection.execute("SELECT COUNT(*) FROM call_records").fetchone()
            (requests,) = connection.execute(
                "SELECT SUM(requests) FROM call_rollups WHERE family = 'route' AND level_s = 3600"
            ).fetchone()
        return rows, requests or 0

    async def bodies_of(self, record_id: str) -> CallBodies | None:
        """The bodies of a call, as its reader finds them."""
        database = Database(DatabaseConfig(url=sqlite_url(self.path)))
        await database.open()
        try:
            logs = SqlLogStore(database, ObjectBlobs(self.blobs, self.s3))
            return await logs.get_bodies(AccountId("acct"), "gw", RequestId(record_id))
        finally:
            await database.close()

    def spool_bytes(self) -> int:
        return sum(file.stat().st_size for file in (self.folder / "spool").glob("*.spool"))

    def is_another(self, pid: int) -> bool:
        return self.logbook.pid != pid

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():  # noqa: ASYNC110  # another process's doing
                await asyncio.sleep(0.02)


async def migrate(path: Path) -> None:
    database = Database(DatabaseConfig(url=sqlite_url(path)))
    await database.open()
    await database.migrate()
    await database.close()


@asynccontextmanager
async def opened(
    folder: Path, config: SpoolConfig | None = None, bucket: S3Server | None = None
) -> AsyncIterator[World]:
    await migrate(folder / "state.db")
    world = World(folder, config or SpoolConfig(), bucket)
    await world.logbook.open()
    world.ledger.open()
    try:
        yield world
    finally:
        await world.ledger.close()
        await world.logbook.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with opened(tmp_path) as world:
        yield world


@asynccontextmanager
async def locked(path: Path) -> AsyncIterator[None]:
    """Another process's transaction, as far as SQLite can tell."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=PATIENCE_S)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            connection.execute("ROLLBACK")


async def test_drained_calls_can_be_queried_with_their_bodies(world: World) -> None:
    world.record(0, 3000)
    await world.ledger.drain()

    assert world.counts() == (3000, 3000)
    assert await world.bodies_of("log-2999") == SAID


async def test_bodies_are_kept_in_a_bucket(tmp_path: Path, s3_server: S3Server) -> None:
    async with opened(tmp_path, bucket=s3_server) as world:
        world.record(0, 100)
        await world.ledger.drain()

        assert await world.bodies_of("log-99") == SAID
    assert not (tmp_path / "blobs").exists()


async def test_closing_leaves_nothing_behind(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        world.record(0, 500)

    assert world.counts() == (500, 500)
    assert world.spool_bytes() == 0


async def test_process_that_is_killed_again_and_again_loses_and_doubles_nothing(
    world: World,
) -> None:
    for round_ in range(4):
        world.record(1000 * round_, 1000 * (round_ + 1))
        await asyncio.sleep(0.06 + 0.01 * round_)  # in the middle of a batch, more or less
        pid = world.logbook.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await world.until(partial(world.is_another, pid))
    await world.ledger.drain()

    assert world.counts() == (4000, 4000)


async def test_locked_database_fills_the_spool_and_empties_it_again(world: World) -> None:
    world.record(0, 10)
    await world.ledger.drain()
    async with locked(world.path):
        for first in range(10, 2010, 500):
            world.record(first, first + 500)
            await asyncio.sleep(0.1)
        await world.until(lambda: world.logbook.last.spooled_bytes > 0)
        await world.until(lambda: world.ledger.waiting_bytes == 0)  # safe, though not yet written
        assert world.ledger.spooled_bytes > 0
    await world.ledger.drain()

    assert world.counts() == (2010, 2010)
    assert world.spool_bytes() == 0
    assert (world.ledger.lost_rows, world.ledger.lost_bodies) == (0, 0)


async def test_spool_of_a_server_that_ended_is_replayed_by_the_next(tmp_path: Path) -> None:
    async with opened(tmp_path) as first:
        first.record(0, 1)
        await first.ledger.drain()
        async with locked(first.path):
            first.record(1, 300)
            await first.until(lambda: first.logbook.last.spooled_bytes > 0)
            pid = first.logbook.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await first.ledger.close()
            await first.logbook.close()
            assert first.spool_bytes() > 0
    async with opened(tmp_path) as second:
        await second.logbook.replayed()

        assert second.counts() == (300, 300)


async def test_full_spool_costs_bodies_and_then_waits(tmp_path: Path) -> None:
    async with opened(tmp_path, SpoolConfig(spool_max_bytes=1 << 20)) as world:
        world.record(0, 1)
        await world.ledger.drain()
        async with locked(world.path):
            for first in range(1, 8001, 500):
                world.record_noise(first, first + 500)
                await asyncio.sleep(0.06)
            await world.until(lambda: "spool" in str(world.logbook.last.error))
            assert world.spool_bytes() <= 1 << 20
            assert world.ledger.waiting_bytes > 0
        await world.ledger.drain()

        assert world.counts() == (8001, 8001)
        assert world.ledger.lost_bodies > 0
        assert world.ledger.lost_rows == 0


async def test_record_of_the_wrong_type_is_the_only_one_lost(world: World) -> None:
    world.ledger.record(replace(RECORD, status="two hundred"))
    world.record(1, 3)
    await world.ledger.drain()

    assert world.counts() == (2, 2)
    assert world.ledger.lost_rows == 1


async def test_limit_is_kept_while_thousands_come(world: World) -> None:
    policy = LogPolicy(limit=100)
    for number in range(5000):
        world.ledger.record(
            replace(RECORD, id=RequestId(f"log-{number:05}"), created_at_s=float(number)),
            SAID,
            policy=policy,
        )
    await world.ledger.drain()

    await world.until(lambda: world.counts() == (100, 5000))
    await world.until(lambda: len(list((world.folder / "blobs").rglob("*.z"))) <= 2)


def test_process_ends_with_a_server_that_is_killed(tmp_path: Path) -> None:
    """And writes what was on its way."""
    asyncio.run(migrate(tmp_path / "state.db"))
    program = f"""
import asyncio, sys
from tests.gateway.test_logbook import *
async def main():
    world = World(Path({str(tmp_path)!r}), SpoolConfig())
    await world.logbook.open()
    world.ledger.open()
    world.record(0, 2000)
    await world.ledger.drain()
    world.record(2000, 2001)
    print(world.logbook.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    server = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    with server.stdout:
        pid = int(server.stdout.readline())
        server.kill()
        server.wait()

    deadline_s = time.monotonic() + PATIENCE_S
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists()
    assert World(tmp_path, SpoolConfig()).counts()[0] >= 2000


async def test_process_outlives_the_signals_of_a_terminal(world: World) -> None:
    world.record(0, 1)
    await world.ledger.drain()
    pid = world.logbook.pid
    assert pid is not None
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGTERM)
    world.record(1, 2)
    await world.ledger.drain()

    assert world.logbook.pid == pid
    assert world.counts() == (2, 2)


BATCH = encode_batch([Entry(record=RECORD)])
WRITER = "0123456789abcdef"


def test_spool_gives_batches_back_in_order(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=1 << 20)
    for number in range(3):
        spool.append(WRITER, number, b"%d" % number * 100)
    found = []
    while batch := spool.first():
        found.append(batch)
        spool.passed(batch[2])
    spool.close()

    assert found == [(WRITER, number, b"%d" % number * 100) for number in range(3)]
    assert (tmp_path / "calls-1.spool").stat().st_size == 0


def test_spool_that_was_cut_off_keeps_what_is_whole(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=1 << 20)
    spool.append(WRITER, 1, BATCH)
    spool.append(WRITER, 2, BATCH)
    spool.close()
    file = tmp_path / "calls-1.spool"
    os.truncate(file, file.stat().st_size - 1)

    again = Spool(tmp_path, max_bytes=1 << 20)
    assert again.first() == (WRITER, 1, BATCH)
    again.passed(BATCH)
    assert again.first() is None
    again.close()


def test_damaged_batch_is_passed_over(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=1 << 20)
    spool.append(WRITER, 1, BATCH)
    spool.append(WRITER, 2, BATCH)
    with (tmp_path / "calls-1.spool").open("r+b") as file:
        file.seek(50)
        file.write(b"\xff\xff")

    assert spool.first() == (WRITER, 2, BATCH)
    spool.close()


def test_spool_stops_at_its_bound(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=1000)
    assert spool.has_room_for(b"x" * 400)
    assert not spool.has_room_for(b"x" * 500)
    spool.append(WRITER, 1, b"x" * 600)
    with pytest.raises(SpoolFullError):
        spool.append(WRITER, 2, b"x" * 600)
    assert spool.first() == (WRITER, 1, b"x" * 600)
    spool.close()


def test_disk_that_is_full_leaves_the_spool_as_it_was(tmp_path: Path) -> None:
    code = f"""
import resource, signal
from pathlib import Path
from openworks.storage.logbook.spool import *
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
spool = Spool(Path({str(tmp_path)!r}), max_bytes=1 << 20)
spool.append({WRITER!r}, 1, b"x" * 6000)
try:
    spool.append({WRITER!r}, 2, b"x" * 6000)
except SpoolFullError:
    print(spool.first()[:2], spool.waiting_bytes)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout.split() == ["('0123456789abcdef',", "1)", "6032"]


def test_two_processes_have_two_spools(tmp_path: Path) -> None:
    one, two = (Spool(tmp_path, max_bytes=1000) for _ in range(2))
    one.append(WRITER, 1, b"one")

    assert two.first() is None
    one.close()
    two.close()
