"""What the log writer wrote is found, read, changed, deleted and added up, on every database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from openworks.core.errors import InvalidRequestError, StorageError
from openworks.core.ids import AccountId, KeyId, RequestId
from openworks.ports.calls import CallBodies, CallRecord, Usage
from openworks.ports.logbook import Entry
from openworks.ports.logs import AnalyticsQuery, Dimension, LogChange, LogFilter, LogQuery
from openworks.storage.logbook.totals import OTHER_MODELS
from tests.contract.conftest import ADAPTERS, OpenDatabase
from tests.logbooks import Logbooks, open_logbooks

NOON_S = 1_790_078_400.0  # 2026-09-22 12:00 UTC
DAY_S = 86_400.0
ACCOUNT = AccountId("acct")
CALL = CallRecord(
    id=RequestId("log-1"),
    created_at_s=NOON_S,
    account_id=ACCOUNT,
    key_id=KeyId("key-a"),
    route="/gateway/v1/{account}/{gateway}/{provider}",
    model="gpt-4o-mini",
    deployment=None,
    stream=True,
    usage=Usage(prompt_tokens=10, completion_tokens=5, cached_tokens=4, reasoning_tokens=3),
    cost_usd=0.25,
    first_token_ms=100.0,
    duration_ms=400.0,
    outcome="ok",
    status=200,
    gateway_id="gw",
    provider="openai",
    endpoint="chat/completions",
    event_id="event-1",
    metadata={"team": "blue", "n": 3, "paid": True},
    cached=False,
    step=1,
    attempts=2,
    estimated=True,
    custom_cost=True,
    routed_by="route-1/3",
    guard_findings=("S1", "card"),
)
OTHER = CallRecord(
    id=RequestId("log-2"),
    created_at_s=NOON_S + 60,
    account_id=ACCOUNT,
    key_id=None,
    route=CALL.route,
    model="claude-haiku",
    deployment=None,
    stream=False,
    usage=Usage(prompt_tokens=100, completion_tokens=50),
    cost_usd=0.5,
    first_token_ms=None,
    duration_ms=2000.0,
    outcome="error",
    status=502,
    error_code="upstream_failed",
    gateway_id="gw",
    provider="anthropic",
    metadata={"team": "red", "n": 12},
    cached=True,
)
ALL = LogQuery(account_id=ACCOUNT, gateway_id="gw")


@pytest.fixture(params=[adapter for adapter in ADAPTERS if adapter != "memory"])
async def books(
    request: pytest.FixtureRequest, open_database: OpenDatabase, tmp_path: Path
) -> AsyncIterator[Logbooks]:
    async with open_database(request.param) as database:
        is_postgres = request.param == "postgres"
        url = request.getfixturevalue("postgres_url") if is_postgres else None
        now_s = NOON_S + DAY_S
        async with open_logbooks(database, tmp_path, postgres_url=url, now_s=now_s) as opened:
            yield opened


def numbered(number: int, **changes: Any) -> CallRecord:
    at_s = NOON_S + number
    return replace(CALL, id=RequestId(f"log-{number}"), created_at_s=at_s, **changes)


async def ids(books: Logbooks, **changes: Any) -> list[str]:
    fields = {"account_id": ACCOUNT, "gateway_id": "gw", **changes}
    return [item.call.id for item in (await books.logs.list(LogQuery(**fields))).items]


async def requests(books: Logbooks) -> int:
    rows = await books.analytics.query(
        AnalyticsQuery(account_id=ACCOUNT, since_s=NOON_S - 5 * DAY_S, until_s=NOON_S + DAY_S)
    )
    return sum(row.requests for row in rows)


async def test_log_comes_back_with_every_field(books: Logbooks) -> None:
    await books.insert_many([CALL, OTHER])

    stored = await books.logs.get(ACCOUNT, "gw", CALL.id)
    other = await books.logs.get(ACCOUNT, "gw", OTHER.id)

    assert stored is not None
    assert (stored.call, stored.feedback, stored.score, stored.bodies) == (CALL, None, None, None)
    assert other is not None
    assert other.call == OTHER


async def test_log_of_another_gateway_or_account_is_not_found(books: Logbooks) -> None:
    await books.insert_many([CALL])

    assert await books.logs.get(ACCOUNT, "other", CALL.id) is None
    assert await books.logs.get(AccountId("other"), "gw", CALL.id) is None
    assert await ids(books, gateway_id="other") == []


async def test_bodies_come_back_byte_for_byte(books: Logbooks) -> None:
    await books.insert(CALL, b"\x00request" * 1000, b"data: [DONE]\n\n")
    await books.insert(OTHER, b"", b"")

    bodies = await books.logs.get_bodies(ACCOUNT, "gw", CALL.id)
    empty = await books.logs.get_bodies(ACCOUNT, "gw", OTHER.id)

    assert bodies is not None
    assert (bodies.request, bodies.response) == (b"\x00request" * 1000, b"data: [DONE]\n\n")
    assert empty == CallBodies(request=b"", response=b"")


async def test_bodies_of_one_batch_share_a_blob(books: Logbooks) -> None:
    entries = [
        Entry(
            record=numbered(number),
            bodies=CallBodies(request=bytes([number]) * 60_000, response=b"%d" % number),
        )
        for number in range(7)
    ]
    entries.insert(3, Entry(record=OTHER))
    await books.write(entries)

    assert len(await books.blob_names()) == 1
    for number in range(7):
        bodies = await books.logs.get_bodies(ACCOUNT, "gw", RequestId(f"log-{number}"))
        assert bodies is not None
        assert (bodies.request, bodies.response) == (bytes([number]) * 60_000, b"%d" % number)


async def test_log_without_bodies_has_none(books: Logbooks) -> None:
    await books.insert_many([CALL])

    assert await books.logs.get_bodies(ACCOUNT, "gw", CALL.id) is None


async def test_bodies_whose_blob_is_gone_are_said_to_be_gone(books: Logbooks) -> None:
    await books.insert(CALL, b"a", b"b")
    for name in await books.blob_names():
        await books.blobs.delete(name)

    with pytest.raises(StorageError, match="log-1"):
        await books.logs.get_bodies(ACCOUNT, "gw", CALL.id)


async def test_batch_that_is_sent_twice_is_written_once(books: Logbooks) -> None:
    entries = [
        Entry(record=CALL, bodies=CallBodies(request=b"a", response=b"b")),
        Entry(record=OTHER, collect=False),
    ]
    for _ in range(3):
        await books.write(entries, number=10**9)

    assert await ids(books) == ["log-1"]
    assert await requests(books) == 2
    assert len(await books.blob_names()) == 1


async def test_call_without_a_row_still_counts(books: Logbooks) -> None:
    await books.write([Entry(record=CALL, collect=False)])

    assert await ids(books) == []
    assert await requests(books) == 1


async def test_call_that_no_database_takes_is_the_only_one_lost(books: Logbooks) -> None:
    huge = replace(OTHER, usage=Usage(prompt_tokens=10**18 * 10))

    lost = await books.write([Entry(record=CALL), Entry(record=huge), Entry(record=numbered(9))])

    assert lost == 1
    assert await ids(books) == ["log-9", "log-1"]
    assert await requests(books) == 2


async def test_gateway_that_deletes_its_oldest_keeps_its_limit(books: Logbooks) -> None:
    for first in range(0, 40, 4):
        await books.write(
            [
                Entry(
                    record=numbered(number),
                    bodies=CallBodies(request=b"a", response=b"b"),
                    limit=10,
                )
                for number in range(first, first + 4)
            ]
        )
    await books.care()

    assert await ids(books) == [f"log-{number}" for number in range(39, 29, -1)]
    assert (await books.logs.list(ALL)).total == 10
    assert await requests(books) == 40
    assert len(await books.blob_names()) == 3  # of ten batches; one holds rows of both kinds


async def test_gateway_that_stops_at_its_limit_keeps_the_oldest(books: Logbooks) -> None:
    for first in range(0, 40, 4):
        await books.write(
            [
                Entry(record=numbered(number), limit=10, stops_at_limit=True)
                for number in range(first, first + 4)
            ]
        )

    assert await ids(books) == [f"log-{number}" for number in range(9, -1, -1)]
    assert await requests(books) == 40


async def test_limit_of_one_gateway_leaves_the_others_alone(books: Logbooks) -> None:
    await books.write([Entry(record=numbered(number, gateway_id="busy")) for number in range(5)])
    await books.write([Entry(record=OTHER, limit=1), Entry(record=numbered(99), limit=1)])

    assert await ids(books) == ["log-99"]
    assert len(await ids(books, gateway_id="busy")) == 5


async def test_logs_that_are_too_old_go(books: Logbooks) -> None:
    old = replace(CALL, created_at_s=NOON_S - 3 * DAY_S)
    await books.write([Entry(record=old, bodies=CallBodies(request=b"a", response=b"b"))])
    await books.write([Entry(record=OTHER)])

    await books.care(max_age_s=2 * DAY_S)

    assert await ids(books) == ["log-2"]
    assert (await books.logs.list(ALL)).total == 1
    assert await books.blob_names() == []
    assert await requests(books) == 2


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, ["log-2", "log-1"]),
        ({"since_s": NOON_S + 60}, ["log-2"]),
        ({"until_s": NOON_S + 60}, ["log-1"]),
        ({"min_cost_usd": 0.3}, ["log-2"]),
        ({"max_cost_usd": 0.3}, ["log-1"]),
        ({"min_duration_ms": 400, "max_duration_ms": 400}, ["log-1"]),
        ({"min_tokens_in": 11}, ["log-2"]),
        ({"max_tokens_out": 5}, ["log-1"]),
        ({"min_total_tokens": 150}, ["log-2"]),
        ({"max_total_tokens": 149}, ["log-1"]),
        ({"search": "HAIKU"}, ["log-2"]),
        ({"search": "blue"}, ["log-1"]),
        ({"search": "upstream_f"}, ["log-2"]),
        ({"search": "log-"}, ["log-2", "log-1"]),
        ({"search": "%"}, []),
        ({"order_by": "cost", "descending": False}, ["log-1", "log-2"]),
        ({"order_by": "success"}, ["log-1", "log-2"]),
        ({"order_by": "provider", "descending": False}, ["log-2", "log-1"]),
    ],
)
async def test_query_finds(books: Logbooks, changes: dict[str, Any], found: list[str]) -> None:
    await books.insert_many([CALL, OTHER])

    assert await ids(books, **changes) == found


@pytest.mark.parametrize(
    ("key", "operator", "values", "found"),
    [
        ("id", "eq", ("log-1",), ["log-1"]),
        ("provider", "eq", ("openai", "anthropic"), ["log-2", "log-1"]),
        ("provider", "neq", ("openai",), ["log-2"]),
        ("model", "contains", ("GPT",), ["log-1"]),
        ("cached", "eq", (True,), ["log-2"]),
        ("success", "eq", (True,), ["log-1"]),
        ("success", "neq", (True,), ["log-2"]),
        ("cost", "gt", (0.3,), ["log-2"]),
        ("tokens", "lt", (16,), ["log-1"]),
        ("created_at", "gt", (NOON_S,), ["log-2"]),
        ("event_id", "eq", ("event-1",), ["log-1"]),
        ("event_id", "neq", ("event-1",), ["log-2"]),
        ("event_id", "eq", (None,), ["log-2"]),
        ("feedback", "eq", (1,), []),
        ("feedback", "eq", (None,), ["log-2", "log-1"]),
        ("metadata.key", "eq", ("paid",), ["log-1"]),
        ("metadata.value", "eq", ("red",), ["log-2"]),
        ("metadata.value", "eq", (3,), ["log-1"]),
        ("metadata.value", "eq", (True,), ["log-1"]),
        ("metadata.value", "gt", (5,), ["log-2"]),
        ("metadata.value", "contains", ("LU",), ["log-1"]),
        ("metadata.value", "neq", ("red",), ["log-1"]),
        ("status", "eq", (502,), ["log-2"]),
        ("key_id", "eq", ("key-a",), ["log-1"]),
        ("id", "eq", (), []),
    ],
)
async def test_filter_finds(
    books: Logbooks, key: Any, operator: Any, values: Any, found: list[str]
) -> None:
    await books.insert_many([CALL, OTHER])
    condition = LogFilter(key=key, operator=operator, values=values)

    assert await ids(books, filters=(condition,)) == found


async def test_pages_follow_each_other_and_end(books: Logbooks) -> None:
    await books.insert_many([numbered(number) for number in range(25)])

    pages = [await books.logs.list(ALL, page=page, per_page=10) for page in (1, 2, 3, 4)]

    assert [len(page.items) for page in pages] == [10, 10, 5, 0]
    assert {page.total for page in pages[:3]} == {25}
    assert [item.call.id for item in pages[2].items] == [f"log-{n}" for n in range(4, -1, -1)]


async def test_total_counts_what_matches(books: Logbooks) -> None:
    await books.insert_many([CALL, OTHER])
    blue = LogQuery(account_id=ACCOUNT, gateway_id="gw", search="blue")

    assert (await books.logs.list(blue)).total == 1


async def test_scan_yields_everything_once_oldest_first(books: Logbooks) -> None:
    # Some at one moment, which a cursor by time alone would skip or repeat.
    records = [replace(numbered(number), created_at_s=NOON_S + number // 4) for number in range(30)]
    await books.insert_many(records)

    found = [item.call.id async for batch in books.logs.scan(ALL, batch=7) for item in batch]

    assert sorted(found) == sorted(record.id for record in records)
    assert [int(log_id[4:]) // 4 for log_id in found] == [number // 4 for number in range(30)]


async def test_feedback_score_and_metadata_can_be_set(books: Logbooks) -> None:
    await books.insert_many([CALL])

    changed = await books.logs.change(
        ACCOUNT, "gw", CALL.id, LogChange(feedback=-1, score=0.5, metadata={"a": "b"})
    )
    again = await books.logs.change(ACCOUNT, "gw", CALL.id, LogChange(feedback=1))

    assert changed is not None
    assert (changed.feedback, changed.score, changed.call.metadata) == (-1, 0.5, {"a": "b"})
    assert again is not None
    assert (again.feedback, again.score, again.call.metadata) == (1, 0.5, {"a": "b"})
    assert await books.logs.change(ACCOUNT, "gw", RequestId("log-9"), LogChange(score=1)) is None


async def test_delete_takes_what_matches_and_the_sums_stay(books: Logbooks) -> None:
    await books.insert(CALL, b"a", b"b")
    await books.insert(OTHER, b"a", b"b")
    openai = LogFilter(key="provider", operator="eq", values=("openai",))

    query = LogQuery(account_id=ACCOUNT, gateway_id="gw", filters=(openai,))
    deleted = await books.logs.delete(query)
    await books.care()

    assert deleted == 1
    assert await ids(books) == ["log-2"]
    assert (await books.logs.list(ALL)).total == 1
    assert len(await books.blob_names()) == 1
    assert await requests(books) == 2


async def test_delete_stops_at_its_limit_in_the_order_asked_for(books: Logbooks) -> None:
    await books.insert_many([numbered(number) for number in range(1200)])

    query = LogQuery(account_id=ACCOUNT, gateway_id="gw", descending=False)
    deleted = await books.logs.delete(query, limit=1100)

    assert deleted == 1100
    assert (await books.logs.list(ALL)).total == 100
    assert await ids(books, descending=False) == [f"log-{number}" for number in range(1100, 1120)]


async def test_figures_add_up_by_what_is_asked(books: Logbooks) -> None:
    await books.insert_many([CALL, OTHER, numbered(3)])

    async def by(*names: Dimension, **more: Any) -> dict[tuple[object, ...], int]:
        rows = await books.analytics.query(
            AnalyticsQuery(
                account_id=ACCOUNT,
                since_s=NOON_S - DAY_S,
                until_s=NOON_S + DAY_S,
                group_by=names,
                **more,
            )
        )
        return {(*row.group.values(),): row.requests for row in rows}

    assert await by() == {(): 3}
    assert await by("model") == {("gpt-4o-mini",): 2, ("claude-haiku",): 1}
    assert await by("provider") == {("openai",): 2, ("anthropic",): 1}
    assert await by("key") == {("key-a",): 2, ("",): 1}
    assert await by("status", "cached") == {(200, False): 2, (502, True): 1}
    assert await by("gateway") == {("gw",): 3}
    assert await by("model", where={"provider": "openai"}) == {("gpt-4o-mini",): 2}
    assert await by("key", "model") == {("key-a", "gpt-4o-mini"): 2, ("", "claude-haiku"): 1}
    assert await by(gateway_id="other") == {}


async def test_figures_hold_sums_and_quantiles(books: Logbooks) -> None:
    calls = [numbered(n, duration_ms=float(n), first_token_ms=None) for n in range(1, 1001)]
    await books.insert_many([*calls, replace(OTHER, id=RequestId("log-x"))])

    ok, failed = await books.analytics.query(
        AnalyticsQuery(
            account_id=ACCOUNT, since_s=NOON_S, until_s=NOON_S + DAY_S, group_by=("status",)
        )
    )

    assert (ok.requests, ok.errors, ok.cached) == (1000, 0, 0)
    assert (failed.requests, failed.errors, failed.cached) == (1, 1, 1)
    assert ok.usage == Usage(
        prompt_tokens=10_000, completion_tokens=5000, cached_tokens=4000, reasoning_tokens=3000
    )
    assert ok.cost_usd == pytest.approx(250)
    assert ok.mean_duration_ms == pytest.approx(500.5)
    assert ok.duration is not None
    assert ok.duration.p50_ms == pytest.approx(500, rel=0.1)
    assert ok.duration.p95_ms == pytest.approx(950, rel=0.1)
    assert ok.duration.p99_ms == pytest.approx(990, rel=0.2)
    assert (ok.first_token, ok.mean_first_token_ms) == (None, None)


async def test_figures_come_in_buckets_of_time(books: Logbooks) -> None:
    await books.insert_many([CALL, OTHER, numbered(7200)])

    rows = await books.analytics.query(
        AnalyticsQuery(account_id=ACCOUNT, since_s=NOON_S, until_s=NOON_S + 3 * 3600, step_s=3600)
    )

    assert [(row.bucket_s, row.requests) for row in rows] == [(NOON_S, 2), (NOON_S + 7200, 1)]


async def test_range_is_kept_to_the_minute(books: Logbooks) -> None:
    await books.insert_many([numbered(60 * number) for number in range(180)])

    async def count(since_s: float, until_s: float) -> int:
        rows = await books.analytics.query(
            AnalyticsQuery(account_id=ACCOUNT, since_s=since_s, until_s=until_s)
        )
        return sum(row.requests for row in rows)

    for begin, end in ((0, 180), (5, 7), (59, 121), (0, 60), (61, 180), (90, 90)):
        assert await count(NOON_S + 60 * begin, NOON_S + 60 * end) == end - begin


@pytest.mark.parametrize(("step_s", "days"), [(90, 1.0), (0, 1.0), (60, 30.0), (60, 5.0)])
async def test_step_that_makes_no_sense_is_refused(
    books: Logbooks, step_s: int, days: float
) -> None:
    query = AnalyticsQuery(
        account_id=ACCOUNT, since_s=NOON_S - days * DAY_S, until_s=NOON_S, step_s=step_s
    )

    with pytest.raises(InvalidRequestError, match="step_s"):
        await books.analytics.query(query)


async def test_sums_by_the_minute_go_after_days_and_hours_stay(books: Logbooks) -> None:
    await books.insert_many([CALL])
    books.clock.advance(5 * DAY_S)
    await books.care()

    async def count(since_s: float) -> int:
        rows = await books.analytics.query(
            AnalyticsQuery(account_id=ACCOUNT, since_s=since_s, until_s=NOON_S + 9 * DAY_S)
        )
        return sum(row.requests for row in rows)

    assert await count(NOON_S - 1800) == 1
    assert await count(NOON_S + 1800) == 1  # rounded down to the hour
    assert await count(NOON_S + 3600) == 0


async def test_models_beyond_the_bound_are_added_up_together(books: Logbooks) -> None:
    await books.insert_many([numbered(number, model=f"made-up-{number}") for number in range(600)])

    rows = await books.records.summarise(group="model")

    assert len(rows) == 501
    assert (rows[0].group, rows[0].calls) == (OTHER_MODELS, 100)


@pytest.mark.parametrize(
    ("by", "found"),
    [
        ((), {(): (165, 0.75)}),
        (("model",), {("gpt-4o-mini",): (15, 0.25), ("claude-haiku",): (150, 0.5)}),
        (("key",), {("key-a",): (15, 0.25), ("",): (150, 0.5)}),
        (
            ("key", "provider"),
            {("key-a", "openai"): (15, 0.25), ("", "anthropic"): (150, 0.5)},
        ),
        (
            ("metadata.team", "metadata.paid"),
            {("blue", "true"): (15, 0.25), ("red", ""): (150, 0.5)},
        ),
    ],
)
async def test_spent_restores_budgets(books: Logbooks, by: tuple[str, ...], found: object) -> None:
    earlier = numbered(-120)
    await books.insert_many([CALL, OTHER, earlier])

    rows = await books.analytics.spent(ACCOUNT, "gw", since_s=NOON_S + 30, by=by)

    assert {row.values: (row.tokens, row.cost_usd) for row in rows} == found


async def test_writers_at_once_lose_nothing(books: Logbooks) -> None:
    """The server reads, changes and deletes while batches are written."""

    async def change() -> None:
        for _ in range(20):
            await books.logs.change(ACCOUNT, "gw", CALL.id, LogChange(score=1.0))
            await books.logs.list(ALL)

    await books.insert_many([CALL])
    changing = asyncio.create_task(change())
    for first in range(1000, 2000, 50):
        await books.insert_many([numbered(number) for number in range(first, first + 50)])
    await changing

    assert (await books.logs.list(ALL)).total == 1001
    assert await requests(books) == 1001
