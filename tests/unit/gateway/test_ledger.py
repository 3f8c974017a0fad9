from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from openworks.core.clock import SystemClock
from openworks.core.errors import ModelUnavailableError
from openworks.core.ids import AccountId, RequestId
from openworks.gateway.ledger import LedgerWriter
from openworks.ports.calls import CallRecord, Usage
from tests.fakes import FakeClock, MemoryRecordStore


class FlakyStore(MemoryRecordStore):
    """Fails as often as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = 0
        self.bug: Exception | None = None
        self.batches: list[int] = []

    async def insert_many(self, records: Sequence[CallRecord]) -> None:
        if self.bug is not None:
            raise self.bug
        if self.failures:
            self.failures -= 1
            raise ModelUnavailableError("The database is locked.")
        self.batches.append(len(records))
        await super().insert_many(records)


class YieldingClock(FakeClock):
    """A fake clock whose sleep lets the others run."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        await asyncio.sleep(0)


def record(number: int) -> CallRecord:
    return CallRecord(
        id=RequestId(f"req_{number}"),
        created_at_s=float(number),
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
    )


@pytest.fixture
def store() -> FlakyStore:
    return FlakyStore()


async def test_closing_writes_everything_that_was_recorded(store: FlakyStore) -> None:
    ledger = LedgerWriter(store, clock=YieldingClock())
    ledger.open()
    for number in range(1200):
        await ledger.record(record(number))
    await ledger.close()
    assert sum(store.batches) == 1200
    assert max(store.batches) <= 500
    assert len(store.batches) < 10


async def test_store_that_fails_for_a_while_loses_nothing(store: FlakyStore) -> None:
    store.failures = 3
    clock = YieldingClock()
    ledger = LedgerWriter(store, clock=clock)
    ledger.open()
    await ledger.record(record(1))
    await ledger.drain()
    await ledger.close()
    assert store.batches == [1]
    assert clock.slept_s.count(1.0) == 3


async def test_batch_that_can_never_be_written_does_not_stop_the_next(
    store: FlakyStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.bug = ValueError("a value that no database takes")
    ledger = LedgerWriter(store, clock=YieldingClock())
    ledger.open()
    await ledger.record(record(1))
    await ledger.drain()
    store.bug = None
    await ledger.record(record(2))
    await ledger.close()
    assert store.batches == [1]
    assert "ledger.lost" in caplog.text


async def test_closing_gives_up_on_a_store_that_never_answers(
    store: FlakyStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.failures = 10**9
    ledger = LedgerWriter(store, clock=SystemClock())
    ledger.open()
    for number in range(7):
        await ledger.record(record(number))
    await ledger.close(timeout_s=0.2)
    (lost,) = [entry for entry in caplog.records if entry.message == "ledger.lost"]
    assert lost.__dict__["records"] == 7
