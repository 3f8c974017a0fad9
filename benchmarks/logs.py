"""Logs and analytics: what a record costs, how fast rows are written and questions answered.

    python -m benchmarks.logs [--calls 10000000] [--rows 200000] [--folder DIR]

Makes `--calls` calls spread over 30 days and adds them up with the log writer's own code, then asks
what a dashboard asks. Then writes `--rows` calls with bodies of 1 KB each through the whole path
(ledger, pipe, writer process, pack, SQLite), and lists and searches them. Run by hand.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import uvloop

from benchmarks.machine import describe, peak_memory_mib
from openworks.core.clock import SystemClock
from openworks.core.ids import AccountId, KeyId, RequestId
from openworks.gateway.ledger import Ledger, LedgerConfig
from openworks.gateway.observe import CallMetrics
from openworks.ports.calls import CallBodies, CallRecord, Usage
from openworks.ports.logs import AnalyticsQuery, LogQuery, Metric
from openworks.storage.blobs.store import ObjectBlobs
from openworks.storage.logbook.database import SqliteLogDatabase
from openworks.storage.logbook.process import LogbookPlaces, LogbookProcess
from openworks.storage.logbook.shapes import DAY_S, HOUR_S, MINUTE_S, MINUTES_KEPT_S
from openworks.storage.logbook.totals import ModelNames, Totals
from openworks.storage.logbook.writer import ADD_ROLLUP, ADD_SUMS
from openworks.storage.sql.database import Database, DatabaseConfig, sqlite_url
from openworks.storage.sql.logs import SqlLogStore
from openworks.storage.sql.records import SqlRecordStore
from openworks.storage.sql.rollups import SqlAnalytics

ACCOUNT = AccountId("default")
GATEWAYS = ("production", "staging")
MODELS = tuple((f"provider-{number % 4}", f"model-{number}") for number in range(12))
KEYS = tuple(KeyId(f"key-{number}") for number in range(20))
ROUTES = ("/gateway/v1/{account}/{gateway}/{provider}", "/v1/chat/completions", "/v1/embeddings")
ENDINGS = (200,) * 93 + (429, 429, 499, 400, 500, 502, 503)
DAYS = 30
_HEAD = "\n| question | rows | median ms | worst ms | CPU ms |\n|---|--:|--:|--:|--:|"
PROMPT = b'{"model":"model-1","messages":[{"role":"user","content":"' + b"Tell me more of it. " * 47
REQUEST = (PROMPT + b'"}]}')[:1024]


def make_record(number: int, at_s: float) -> CallRecord:
    """A call like any other."""
    chance = random.random()
    status = ENDINGS[int(chance * 100)]
    provider, model = MODELS[int(chance * 7919) % len(MODELS)]
    is_stream = number % 5 < 2
    duration_ms = random.lognormvariate(6.5, 1.0)
    return CallRecord(
        id=RequestId(f"log_{number:020}"),
        created_at_s=at_s,
        account_id=ACCOUNT,
        key_id=KEYS[int(chance * 104_729) % len(KEYS)],
        route=ROUTES[number % len(ROUTES)],
        model=model,
        deployment=None,
        stream=is_stream,
        usage=Usage(prompt_tokens=200 + number % 800, completion_tokens=number % 500),
        cost_usd=0.0001 * (number % 100),
        first_token_ms=duration_ms / 5 if is_stream else None,
        duration_ms=duration_ms,
        outcome="ok" if status == 200 else "client_closed" if status == 499 else "error",
        status=status,
        gateway_id=GATEWAYS[number % 7 == 0],
        provider=provider,
        endpoint="v1/chat/completions",
        metadata={"team": f"team-{number % 9}", "user": number % 1000},
        cached=number % 10 == 0,
    )


def add_calls_up(path: Path, num_calls: int, now_s: float) -> None:
    """Fill the sums as the writer would have: a day at a time, minutes only while they are kept."""
    database = SqliteLogDatabase(str(path))
    names = ModelNames()
    per_day = num_calls // DAYS
    oldest_minute_s = now_s - MINUTES_KEPT_S
    for day in range(DAYS):
        totals = Totals(names)
        begin_s = now_s - (DAYS - day) * DAY_S
        for number in range(per_day):
            at_s = begin_s + number * DAY_S / per_day
            totals.add(make_record(day * per_day + number, at_s))
        database.begin()
        database.execute_many(ADD_ROLLUP, _kept(totals.rollup_rows(), 1, oldest_minute_s))
        database.execute_many(ADD_SUMS, _kept(totals.sum_rows(), 0, oldest_minute_s))
        database.commit()
    database.close()


def _kept(rows: Iterator[list[object]], level_at: int, oldest_s: float) -> Iterator[list[object]]:
    for row in rows:
        bucket_s = row[level_at + 2]
        assert isinstance(bucket_s, int)
        if row[level_at] != MINUTE_S or bucket_s >= oldest_s:
            yield row


async def timed(name: str, ask: Callable[[], Awaitable[object]], times: int = 7) -> None:
    """Print the median and the worst of some runs, the first (cold) one among them.

    The time on the processor is what remains where others use the machine too.
    """
    took_ms, cpu_ms = [], []
    rows = 0
    for _ in range(times):
        begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
        found = await ask()
        took_ms.append((time.perf_counter() - begin_s) * 1000)
        cpu_ms.append((time.process_time() - begin_cpu_s) * 1000)
        rows = len(found) if isinstance(found, Sequence) else 1
    print(
        f"| {name} | {rows:,} | {statistics.median(took_ms):.1f} | {max(took_ms):.1f} | "
        f"{statistics.median(cpu_ms):.1f} |"
    )


async def ask_analytics(database: Database, now_s: float) -> None:
    """Ask what a dashboard asks."""
    clock = SystemClock()
    analytics = SqlAnalytics(database, clock=clock)

    def query(days: float, **more: object) -> Callable[[], Awaitable[object]]:
        fields = {"account_id": ACCOUNT, "since_s": now_s - days * DAY_S, "until_s": now_s, **more}
        return lambda: analytics.query(AnalyticsQuery(**fields))  # type: ignore[arg-type]  # by name

    print(_HEAD)
    sums = frozenset[Metric]()
    latency = frozenset[Metric]({"duration"})
    for name, ask in {
        "30 days, total": query(30),
        "30 days by model": query(30, group_by=("model",)),
        "30 days by provider": query(30, group_by=("provider",)),
        "30 days by key": query(30, group_by=("key",)),
        "30 days by status and cache": query(30, group_by=("status", "cached")),
        "30 days by day": query(30, step_s=DAY_S),
        "30 days by day and model": query(30, step_s=DAY_S, group_by=("model",)),
        "30 days by hour": query(30, step_s=HOUR_S),
        "30 days by hour, one gateway": query(30, step_s=HOUR_S, gateway_id="production"),
        "7 days by hour and model": query(7, step_s=HOUR_S, group_by=("model",)),
        "the same, durations only": query(7, step_s=HOUR_S, group_by=("model",), metrics=latency),
        "the same, sums only": query(7, step_s=HOUR_S, group_by=("model",), metrics=sums),
        "7 days by hour and key, sums only": query(
            7, step_s=HOUR_S, group_by=("key",), metrics=sums
        ),
        "1 day by 5 minutes": query(1, step_s=300),
        "1 day by 15 minutes and model": query(1, step_s=900, group_by=("model",)),
        "7 days by model and status of one key": query(
            7, group_by=("model", "status"), where={"key": "key-3"}
        ),
    }.items():
        await timed(name, ask)
    await timed(
        "spent in 30 days by model",
        lambda: analytics.spent(ACCOUNT, "production", since_s=now_s - 30 * DAY_S, by=("model",)),
    )
    await timed(
        "spent in a day by key and model",
        lambda: analytics.spent(ACCOUNT, "production", since_s=now_s - DAY_S, by=("key", "model")),
    )
    records = SqlRecordStore(database, clock=clock)
    await timed("openworks usage", lambda: records.summarise(group="model"))
    await timed(
        "openworks usage --since 7d",
        lambda: records.summarise(group="model", since_s=now_s - 7 * DAY_S),
    )


async def write_rows(folder: Path, num_rows: int, now_s: float) -> None:
    """Push calls through the whole path as fast as it takes them."""
    clock = SystemClock()
    places = LogbookPlaces(
        dialect="sqlite",
        address=str(folder / "logs.db"),
        blobs=str(folder / "blobs"),
        spool=folder / "spool",
    )
    logbook = LogbookProcess(places, clock=clock)
    ledger = Ledger(logbook, clock=clock, config=LedgerConfig(max_bytes=1 << 30))
    await logbook.open()
    ledger.open()
    in_record_s = 0.0
    begin_s = time.perf_counter()
    for first in range(0, num_rows, 1000):
        calls = [
            (
                make_record(10**12 + number, now_s + number / 12_000),
                CallBodies(request=REQUEST, response=REQUEST[:-12] + b"%012d" % number),
            )
            for number in range(first, first + 1000)
        ]
        before_s = time.perf_counter()
        for record, bodies in calls:
            ledger.record(record, bodies)
        in_record_s += time.perf_counter() - before_s
        if ledger.waiting_bytes > 4 << 20:
            await ledger.drain()
    await ledger.drain()
    took_s = time.perf_counter() - begin_s
    assert logbook.pid is not None
    peak_mib, cpu_s = _used_by(logbook.pid)
    await ledger.close()
    await logbook.close()
    print(f"\nrecord() with 2 KB of bodies: {in_record_s / num_rows * 1e6:.2f} µs")
    print(
        f"whole path: {num_rows / took_s:,.0f} rows/s with bodies, the calls made as they go; "
        f"writer: {cpu_s / num_rows * 1e6:.1f} µs of CPU per row, peak {peak_mib:.1f} MiB"
    )
    assert (ledger.lost_rows, ledger.lost_bodies) == (0, 0)


def _used_by(pid: int) -> tuple[float, float]:
    """Return a process's greatest resident set in MiB, and its seconds on a processor."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return peak_memory_mib([pid]), (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def ask_logs(database: Database, folder: Path) -> None:
    """Page through rows and search them."""
    logs = SqlLogStore(database, ObjectBlobs(str(folder / "blobs")))
    all_logs = LogQuery(account_id=ACCOUNT, gateway_id="production")
    newest = (await logs.list(all_logs)).items[0].call.id

    print(_HEAD)
    await timed("newest 20 logs", lambda: logs.list(all_logs))
    await timed("page 500 of 20", lambda: logs.list(all_logs, page=500))
    failed = LogQuery(account_id=ACCOUNT, gateway_id="production", min_cost_usd=0.0098)
    await timed("newest 20 of the dearest", lambda: logs.list(failed))
    searched = LogQuery(account_id=ACCOUNT, gateway_id="production", search="team-7")
    await timed("newest 20 by a search", lambda: logs.list(searched))
    await timed("the bodies of one", lambda: logs.get_bodies(ACCOUNT, "production", newest))


def time_metrics() -> None:
    """Print what the metrics cost for each call."""
    from prometheus_client import CollectorRegistry

    metrics = CallMetrics(CollectorRegistry())
    records = [make_record(number, 0.0) for number in range(10_000)]
    begin_s = time.perf_counter()
    for _ in range(10):
        for record in records:
            metrics.record(record)
    took_s = time.perf_counter() - begin_s
    print(f"CallMetrics.record(): {took_s / 100_000 * 1e6:.2f} µs")


async def main(num_calls: int, num_rows: int, folder: Path) -> None:
    """Run all of it."""
    print(describe())
    time_metrics()
    now_s = SystemClock().now_s()
    path = folder / "logs.db"
    database = Database(DatabaseConfig(url=sqlite_url(path)))
    await database.open()
    await database.migrate()
    begin_s = time.perf_counter()
    await asyncio.to_thread(add_calls_up, path, num_calls, now_s)
    print(
        f"{num_calls:,} calls over {DAYS} days added up in {time.perf_counter() - begin_s:.0f} s, "
        f"{path.stat().st_size / 2**20:.0f} MiB"
    )
    await ask_analytics(database, now_s)
    if num_rows:
        await write_rows(folder, num_rows, now_s)
        await ask_logs(database, folder)
    await database.close()
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory of this process: {peak_mib:.0f} MiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000_000)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        uvloop.run(main(arguments.calls, arguments.rows, arguments.folder or Path(made)))
