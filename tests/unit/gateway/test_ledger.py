from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from openworks.core.clock import SystemClock
from openworks.core.ids import AccountId, RequestId
from openworks.gateway.ledger import Ledger, LedgerConfig
from openworks.ports.calls import CallBodies, CallRecord, Usage
from openworks.ports.gateways import LogPolicy
from openworks.ports.logbook import Report
from tests.fakes import FakeClock, MemoryLogSink

RECORD = CallRecord(
    id=RequestId("log-1"),
    created_at_s=1.0,
    account_id=AccountId("default"),
    key_id=None,
    route="/v1/chat/completions",
    model="m",
    deployment="m",
    stream=False,
    usage=Usage(prompt_tokens=1),
    cost_usd=0.0,
    first_token_ms=None,
    duration_ms=1.0,
    outcome="ok",
    status=200,
    metadata={"team": "blue", "n": 3, "ratio": 0.5, "paid": True},
    guard_findings=("S1",),
)
MIB = 1 << 20

Opened: TypeAlias = Callable[..., AbstractAsyncContextManager[Ledger]]


class YieldingClock(FakeClock):
    """A fake clock whose sleep lets the others run."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        await asyncio.sleep(0)


class GatedSink(MemoryLogSink):
    """Takes a batch only while its gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.bug: Exception | None = None

    async def write(self, batch: bytes | bytearray) -> Report:
        await self.gate.wait()
        if self.bug is not None:
            raise self.bug
        return await super().write(batch)


@pytest.fixture
def sink() -> GatedSink:
    sink = GatedSink()
    sink.gate.set()
    return sink


@pytest.fixture
def opened(sink: GatedSink) -> Opened:
    @asynccontextmanager
    async def opened(**config: int) -> AsyncIterator[Ledger]:
        ledger = Ledger(sink, clock=YieldingClock(), config=LedgerConfig(**config))
        ledger.open()
        try:
            yield ledger
        finally:
            sink.gate.set()
            await ledger.close()

    return opened


def numbered(number: int) -> CallRecord:
    return replace(RECORD, id=RequestId(f"log-{number}"))


def bodies(size: int, response: bytes = b"") -> CallBodies:
    return CallBodies(request=b"x" * size, response=response)


async def test_record_and_bodies_arrive_as_they_were_given(opened: Opened, sink: GatedSink) -> None:
    said = CallBodies(request=b"\x00a", response=b"b", response_type="text/event-stream")
    async with opened() as ledger:
        ledger.record(RECORD, said)
        await ledger.drain()

    (entry,) = sink.entries
    assert entry.record == RECORD
    assert entry.bodies == said
    assert (entry.collect, entry.limit, entry.stops_at_limit) == (True, None, False)


async def test_policy_travels_with_its_record(opened: Opened, sink: GatedSink) -> None:
    async with opened() as ledger:
        ledger.record(RECORD, bodies(3), policy=LogPolicy(payloads=False, limit=7))
        ledger.record(RECORD, bodies(3), policy=LogPolicy(collect=False))
        ledger.record(RECORD, bodies(3), policy=LogPolicy(strategy="STOP_INSERTING", limit=9))

    shown = [(e.bodies is None, e.collect, e.limit, e.stops_at_limit) for e in sink.entries]
    assert shown == [
        (True, True, 7, False),
        (True, False, None, False),
        (False, True, 9, True),
    ]


async def test_closing_writes_everything_in_few_batches(opened: Opened, sink: GatedSink) -> None:
    async with opened() as ledger:
        for number in range(1200):
            ledger.record(numbered(number))

    assert [record.id for record in sink.records] == [f"log-{number}" for number in range(1200)]
    assert len(sink.batches) < 5


async def test_large_records_go_in_batches_of_about_a_mebibyte(
    opened: Opened, sink: GatedSink
) -> None:
    async with opened() as ledger:
        for number in range(40):
            ledger.record(numbered(number), bodies(100_000))

    assert len(sink.entries) == 40
    assert 3 <= len(sink.batches) <= 6


async def test_sink_that_stands_still_costs_bodies_first_and_records_last(
    opened: Opened, sink: GatedSink, caplog: pytest.LogCaptureFixture
) -> None:
    sink.gate.clear()
    async with opened(max_bytes=MIB) as ledger:
        for number in range(10_000):
            ledger.record(numbered(number), bodies(10_000))
        assert ledger.waiting_bytes < 1.1 * MIB
        lost_rows, lost_bodies = ledger.lost_rows, ledger.lost_bodies

    with_bodies = [entry.bodies is not None for entry in sink.entries]
    assert with_bodies == sorted(with_bodies, reverse=True)
    assert with_bodies.count(True) == 10_000 - lost_bodies
    assert len(with_bodies) == 10_000 - lost_rows
    assert 0 < lost_rows < lost_bodies
    assert [entry.message for entry in caplog.records].count("ledger.full") == 1


async def test_room_that_comes_back_is_used_again(opened: Opened, sink: GatedSink) -> None:
    sink.gate.clear()
    async with opened(max_bytes=MIB) as ledger:
        for number in range(100):
            ledger.record(numbered(number), bodies(20_000))
        sink.gate.set()
        await ledger.drain()
        assert ledger.waiting_bytes == 0
        ledger.record(numbered(100), bodies(20_000))

    assert sink.entries[-1].bodies is not None


async def test_bodies_beyond_the_limit_are_cut_and_marked(opened: Opened, sink: GatedSink) -> None:
    async with opened(max_body_bytes=100) as ledger:
        ledger.record(RECORD, bodies(30, b"y" * 200))
        ledger.record(RECORD, bodies(200, b"y" * 30))
        ledger.record(RECORD, bodies(200, b"y" * 200))
        ledger.record(RECORD, bodies(60, b"y" * 40))

    kept = [entry.bodies for entry in sink.entries if entry.bodies is not None]
    assert [(len(both.request), len(both.response)) for both in kept] == [
        (30, 70),
        (70, 30),
        (50, 50),
        (60, 40),
    ]
    assert [both.is_partial for both in kept] == [True, True, True, False]


@pytest.mark.parametrize("broken", [replace(RECORD, model="\ud800"), replace(RECORD, status=2**70)])
async def test_record_that_cannot_be_written_spoils_no_other(
    opened: Opened, sink: GatedSink, broken: CallRecord
) -> None:
    async with opened() as ledger:
        ledger.record(numbered(1))
        ledger.record(broken)
        ledger.record(numbered(2))
        assert ledger.lost_rows == 1

    assert [record.id for record in sink.records] == ["log-1", "log-2"]


async def test_batch_that_the_sink_chokes_on_does_not_stop_the_next(
    opened: Opened, sink: GatedSink, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened() as ledger:
        sink.bug = ValueError("a fault of ours")
        ledger.record(numbered(1))
        await ledger.drain()
        sink.bug = None
        ledger.record(numbered(2))
        await ledger.drain()
        assert ledger.lost_rows == 1

    assert [record.id for record in sink.records] == ["log-2"]
    assert "ledger.lost" in caplog.text


async def test_closing_gives_up_on_a_sink_that_never_answers(
    sink: GatedSink, caplog: pytest.LogCaptureFixture
) -> None:
    sink.gate.clear()
    ledger = Ledger(sink, clock=SystemClock())
    ledger.open()
    for number in range(7):
        ledger.record(numbered(number))

    await ledger.close(timeout_s=0.2)

    (lost,) = [entry for entry in caplog.records if entry.message == "ledger.lost"]
    assert lost.__dict__["records"] == 7


@given(sizes=st.lists(st.integers(0, 300_000), max_size=40), max_mib=st.integers(1, 3))
def test_every_record_arrives_or_is_counted(sizes: list[int], max_mib: int) -> None:
    async def run() -> None:
        sink = GatedSink()
        ledger = Ledger(sink, clock=YieldingClock(), config=LedgerConfig(max_bytes=max_mib * MIB))
        ledger.open()
        for number, size in enumerate(sizes):
            ledger.record(numbered(number), bodies(size))
            assert ledger.waiting_bytes < max_mib * MIB + 301_000
        sink.gate.set()
        await ledger.close()
        assert len(sink.entries) + ledger.lost_rows == len(sizes)
        arrived = sum(entry.bodies is not None for entry in sink.entries)
        assert arrived + ledger.lost_bodies == len(sizes)

    asyncio.run(run())
