from __future__ import annotations

import asyncio

import pytest

from openworks.engines.idle import IdleTime, Places
from tests.fakes import FakeClock


class Work:
    """Something that takes until it is told to end."""

    def __init__(self) -> None:
        self.num_begun = self.num_stopped = 0
        self.ends = asyncio.Event()

    async def __call__(self) -> str:
        self.num_begun += 1
        try:
            await self.ends.wait()
        except asyncio.CancelledError:
            self.num_stopped += 1
            raise
        return "done"


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_work_runs_while_nobody_needs_the_machine() -> None:
    idle, work = IdleTime(quiet_s=1, clock=FakeClock()), Work()
    work.ends.set()

    assert await idle.run(work) == "done"
    assert work.num_begun == 1


async def test_work_is_stopped_before_others_begin_and_is_begun_anew_after_them() -> None:
    idle, work = IdleTime(quiet_s=1, clock=FakeClock()), Work()
    task = asyncio.create_task(idle.run(work))
    await settle()

    async with idle.suspended():
        assert work.num_stopped == 1
        await settle()
        assert work.num_begun == 1
    work.ends.set()

    assert await task == "done"
    assert work.num_begun == 2


async def test_work_waits_for_the_last_of_those_who_need_the_machine() -> None:
    idle, work = IdleTime(quiet_s=1, clock=FakeClock()), Work()
    work.ends.set()
    async with idle.suspended():
        async with idle.suspended():
            task = asyncio.create_task(idle.run(work))
            await settle()
        await settle()
        assert not work.num_begun

    assert await task == "done"


async def test_work_waits_until_it_has_been_quiet_for_a_while() -> None:
    clock = FakeClock()
    idle, work = IdleTime(quiet_s=3, clock=clock), Work()
    work.ends.set()
    async with idle.suspended():
        pass

    await idle.run(work)

    assert clock.slept_s == [3]


async def test_work_that_fails_says_so_and_is_not_begun_again() -> None:
    idle = IdleTime(quiet_s=1, clock=FakeClock())

    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await idle.run(fail)


async def test_who_no_longer_waits_for_work_stops_it() -> None:
    idle, work = IdleTime(quiet_s=1, clock=FakeClock()), Work()
    task = asyncio.create_task(idle.run(work))
    await settle()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.num_stopped == 1
    async with idle.suspended():  # it is not there to be stopped again
        pass
    assert work.num_stopped == 1


async def test_places_are_taken_together_and_given_back() -> None:
    places, log = Places(3), list[str]()

    async def hold(name: str, number: int, end: asyncio.Event) -> None:
        async with places.taken(number):
            log.append(name)
            await end.wait()

    first, second, third = asyncio.Event(), asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(hold("two", 2, first))
        await settle()
        group.create_task(hold("all", 9, second))
        await settle()
        group.create_task(hold("one", 1, third))
        await settle()
        assert log == ["two"]
        first.set()
        await settle()
        assert log == ["two", "all"]
        second.set()
        third.set()
    assert log == ["two", "all", "one"]


async def test_places_of_one_who_gave_up_waiting_are_free() -> None:
    places = Places(2)
    async with places.taken(1):
        waiting = asyncio.create_task(places.taken(2).__aenter__())
        await settle()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    async with asyncio.timeout(1), places.taken(2):
        pass
