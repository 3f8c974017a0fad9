"""Calls from before there were sums are added up when the database is brought up to date."""

from __future__ import annotations

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from openworks.core.ids import AccountId
from openworks.ports.logs import AnalyticsQuery
from openworks.storage.sql.records import SqlRecordStore
from openworks.storage.sql.rollups import SqlAnalytics
from openworks.storage.sql.versions import MIGRATIONS
from tests.contract.conftest import ADAPTERS, OpenDatabase
from tests.fakes import FakeClock

NOON_S = 1_790_078_400.0
INSERT = """
INSERT INTO call_records (
    id, created_at_s, day, account_id, key_id, route, model, deployment, stream, prompt_tokens,
    completion_tokens, cached_tokens, reasoning_tokens, cost_usd, first_token_ms, duration_ms,
    outcome, status, error_code
) VALUES (
    :id, :at_s, '2026-09-22', 'acct', :key, '/r', :model, 'm', false, 10, 5, 0, 0, 0.25, :first_ms,
    :ms, :outcome, 200, NULL
)
"""


def _migrate(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    if revision == "head":
        command.upgrade(config, revision)
    else:
        command.downgrade(config, revision)


@pytest.mark.parametrize("adapter", [name for name in ADAPTERS if name != "memory"])
async def test_calls_that_were_there_count(open_database: OpenDatabase, adapter: str) -> None:
    calls = [
        {
            "id": f"req-{number}",
            "at_s": NOON_S + number * 600 + 0.7,
            "key": "key-a" if number % 2 else None,
            "model": f"model-{number % 3}",
            "first_ms": None if number % 2 else 20.0,
            "ms": 100.0 + number,
            "outcome": "ok" if number else "error",
        }
        for number in range(12)
    ]
    async with open_database(adapter) as database:
        async with database.write() as connection:
            await connection.run_sync(_migrate, "0001")
            await connection.execute(text(INSERT), calls)
            await connection.run_sync(_migrate, "head")
        clock = FakeClock(NOON_S + 86_400)
        usage = await SqlRecordStore(database, clock=clock).summarise(group="model")
        keys = await SqlRecordStore(database, clock=clock).summarise(group="key")
        (hour, later) = await SqlAnalytics(database, clock=clock).query(
            AnalyticsQuery(
                account_id=AccountId("acct"), since_s=NOON_S, until_s=NOON_S + 7200, step_s=3600
            )
        )

    assert [(row.group, row.calls, row.errors) for row in usage] == [
        ("model-0", 4, 1),
        ("model-1", 4, 0),
        ("model-2", 4, 0),
    ]
    assert [(row.group, row.calls) for row in keys] == [("", 6), ("key-a", 6)]
    assert (hour.requests, later.requests) == (6, 6)
    assert hour.duration is not None
    assert hour.duration.p99_ms == pytest.approx(105, rel=0.5)
    assert hour.first_token is not None
    assert hour.mean_first_token_ms == pytest.approx(20.0)
