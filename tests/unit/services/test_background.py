from __future__ import annotations

import asyncio

import pytest

from openworks.core.errors import StorageError
from openworks.services.background import Rounds


async def test_round_that_fails_is_not_the_last(caplog: pytest.LogCaptureFixture) -> None:
    done = asyncio.Event()
    failures = [StorageError("The database is away."), ValueError("a fault of ours")]

    async def work() -> None:
        if failures:
            raise failures.pop(0)
        done.set()

    rounds = Rounds("test", work, every_s=0.001)
    rounds.open()
    await asyncio.wait_for(done.wait(), 10)
    await rounds.close()

    assert [record.getMessage() for record in caplog.records] == ["round.failed", "round.failed"]


async def test_rounds_that_are_woken_begin_at_once_and_close_ends_them() -> None:
    begun: asyncio.Queue[int] = asyncio.Queue()
    never = asyncio.Event()
    count = 0

    async def work() -> None:
        nonlocal count
        count += 1
        begun.put_nowait(count)
        if count == 2:
            await never.wait()

    rounds = Rounds("test", work, every_s=3600)
    rounds.open()
    assert await asyncio.wait_for(begun.get(), 10) == 1
    rounds.wake()
    assert await asyncio.wait_for(begun.get(), 10) == 2
    await rounds.close()

    assert count == 2
