"""Every RecordStore adds the same calls up to the same sums, however they were written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol

import pytest
from msgspec.structs import replace

from openworks.core.ids import AccountId, KeyId, RequestId
from openworks.ports.calls import CallRecord, RecordStore, Usage, UsageGroup, UsageRow
from tests.contract.conftest import OpenDatabase
from tests.fakes import MemoryRecordStore
from tests.logbooks import Logbooks, open_logbooks

NOON_S = 1_790_078_400.0  # 2026-09-22 12:00 UTC
DAY_S = 86_400.0
RECORD = CallRecord(
    id=RequestId("req-1"),
    created_at_s=NOON_S,
    account_id=AccountId("acct-a"),
    key_id=KeyId("key-a"),
    route="/v1/chat/completions",
    model="gpt-4o-mini",
    deployment="qwen3-0.6b",
    stream=True,
    usage=Usage(prompt_tokens=10, completion_tokens=5, cached_tokens=4, reasoning_tokens=3),
    cost_usd=0.25,
    first_token_ms=100.0,
    duration_ms=400.0,
    outcome="ok",
    status=200,
)
FAILED = replace(
    RECORD,
    id=RequestId("req-2"),
    created_at_s=NOON_S + DAY_S,
    account_id=AccountId("acct-b"),
    key_id=None,
    route="/v1/completions",
    model="nonsense",
    deployment=None,
    stream=False,
    usage=Usage(),
    cost_usd=0.0,
    first_token_ms=None,
    duration_ms=2.0,
    outcome="error",
    status=404,
    error_code="model_not_found",
)
SLOWER = replace(
    RECORD, id=RequestId("req-3"), first_token_ms=None, duration_ms=600.0, outcome="client_closed"
)


class Ledger(RecordStore, Protocol):
    """A store with what fills it."""

    async def insert_many(self, records: Sequence[CallRecord]) -> None: ...


class WrittenLedger:
    """The tables, filled by the log writer."""

    def __init__(self, books: Logbooks) -> None:
        self._books = books

    async def insert_many(self, records: Sequence[CallRecord]) -> None:
        await self._books.insert_many(records)

    async def summarise(
        self,
        *,
        group: UsageGroup,
        since_s: float | None = None,
        account_id: AccountId | None = None,
    ) -> Sequence[UsageRow]:
        return await self._books.records.summarise(
            group=group, since_s=since_s, account_id=account_id
        )

    async def list_recent(self, *, limit: int) -> Sequence[CallRecord]:
        return await self._books.records.list_recent(limit=limit)


@pytest.fixture
async def record_store(
    adapter: str, open_database: OpenDatabase, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Ledger]:
    if adapter == "memory":
        yield MemoryRecordStore()
        return
    async with open_database(adapter) as database:
        url = request.getfixturevalue("postgres_url") if adapter == "postgres" else None
        now_s = NOON_S + 2 * DAY_S
        async with open_logbooks(database, tmp_path, postgres_url=url, now_s=now_s) as books:
            yield WrittenLedger(books)


async def test_records_come_back_as_they_were_given_newest_first(record_store: Ledger) -> None:
    await record_store.insert_many([RECORD, FAILED])

    assert await record_store.list_recent(limit=10) == [FAILED, RECORD]


async def test_recent_records_stop_at_the_limit(record_store: Ledger) -> None:
    await record_store.insert_many([RECORD, FAILED])

    assert await record_store.list_recent(limit=1) == [FAILED]


async def test_record_that_is_there_already_is_left_alone(record_store: Ledger) -> None:
    await record_store.insert_many([RECORD])

    await record_store.insert_many([replace(RECORD, status=500), FAILED, FAILED])

    assert await record_store.list_recent(limit=10) == [FAILED, RECORD]


async def test_no_records_are_no_trouble(record_store: Ledger) -> None:
    await record_store.insert_many([])

    assert await record_store.list_recent(limit=10) == []
    assert await record_store.summarise(group="model") == []


async def test_summary_adds_tokens_cost_and_calls_up(record_store: Ledger) -> None:
    await record_store.insert_many([RECORD, SLOWER, FAILED])

    busiest, other = await record_store.summarise(group="model")

    assert (busiest.group, busiest.calls, busiest.errors) == ("gpt-4o-mini", 2, 0)
    assert busiest.usage == RECORD.usage + SLOWER.usage
    assert busiest.cost_usd == pytest.approx(0.5)
    assert (other.group, other.calls, other.errors) == ("nonsense", 1, 1)


async def test_mean_first_token_leaves_calls_without_tokens_out(record_store: Ledger) -> None:
    await record_store.insert_many([RECORD, SLOWER, FAILED])

    busiest, other = await record_store.summarise(group="model")

    assert busiest.mean_first_token_ms == pytest.approx(100.0)
    assert busiest.mean_duration_ms == pytest.approx(500.0)
    assert other.mean_first_token_ms is None


@pytest.mark.parametrize(
    ("group", "names"),
    [
        ("model", ["gpt-4o-mini", "nonsense"]),
        ("account", ["acct-a", "acct-b"]),
        ("key", ["", "key-a"]),
        ("day", ["2026-09-22", "2026-09-23"]),
        ("route", ["/v1/chat/completions", "/v1/completions"]),
    ],
)
async def test_summary_groups_by(record_store: Ledger, group: UsageGroup, names: list[str]) -> None:
    await record_store.insert_many([RECORD, FAILED])

    rows = await record_store.summarise(group=group)

    assert [row.group for row in rows] == names


async def test_day_ends_at_midnight_utc(record_store: Ledger) -> None:
    midnight_s = NOON_S + DAY_S / 2
    before = replace(RECORD, id=RequestId("req-4"), created_at_s=midnight_s - 0.001)
    after = replace(RECORD, id=RequestId("req-5"), created_at_s=midnight_s)
    await record_store.insert_many([before, after])

    rows = await record_store.summarise(group="day")

    assert [(row.group, row.calls) for row in rows] == [("2026-09-22", 1), ("2026-09-23", 1)]


async def test_summary_begins_at_since(record_store: Ledger) -> None:
    await record_store.insert_many([RECORD, FAILED])

    rows = await record_store.summarise(group="model", since_s=FAILED.created_at_s)

    assert [row.group for row in rows] == ["nonsense"]


async def test_summary_of_one_account_leaves_the_others_out(record_store: Ledger) -> None:
    await record_store.insert_many([RECORD, FAILED])

    rows = await record_store.summarise(group="model", account_id=AccountId("acct-a"))

    assert [row.group for row in rows] == ["gpt-4o-mini"]
