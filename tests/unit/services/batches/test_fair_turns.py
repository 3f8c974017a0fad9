from __future__ import annotations

import asyncio

import pytest

from openworks.core.ids import AccountId
from openworks.services.batches.fair_turns import FairTurns

A, B, C = AccountId("a"), AccountId("b"), AccountId("c")


class Crowd:
    """Those who want turns, in the order in which they get them."""

    def __init__(self, number: int) -> None:
        self.turns = FairTurns(number)
        self.came: list[str] = []
        self.leave: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def want(self, account: AccountId, batch: str, name: str) -> None:
        self.leave[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._hold(account, batch, name))
        await self.settle()

    async def end(self, name: str) -> None:
        self.leave[name].set()
        await self.settle()

    async def give_up(self, name: str) -> None:
        self._tasks[name].cancel()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def _hold(self, account: AccountId, batch: str, name: str) -> None:
        async with self.turns.turn(account, batch):
            self.came.append(name)
            await self.leave[name].wait()


async def test_turns_are_given_in_order_as_long_as_there_are_some() -> None:
    crowd = Crowd(2)
    for name in ("1", "2", "3"):
        await crowd.want(A, "x", name)
    assert crowd.came == ["1", "2"]

    await crowd.end("2")

    assert crowd.came == ["1", "2", "3"]


async def test_account_with_the_fewest_turns_comes_next() -> None:
    crowd = Crowd(3)
    for name in ("a1", "a2", "a3", "a4", "a5"):
        await crowd.want(A, "x", name)
    await crowd.want(B, "y", "b1")
    await crowd.want(B, "y", "b2")
    await crowd.want(C, "z", "c1")

    await crowd.end("a1")
    await crowd.end("a2")
    await crowd.end("a3")

    assert crowd.came[3:] == ["b1", "c1", "a4"]


async def test_batches_of_one_account_share_its_turns() -> None:
    crowd = Crowd(2)
    for name in ("x1", "x2", "x3", "x4"):
        await crowd.want(A, "x", name)
    await crowd.want(A, "y", "y1")

    await crowd.end("x1")

    assert crowd.came == ["x1", "x2", "y1"]


async def test_turn_of_one_who_gave_up_goes_to_the_next() -> None:
    crowd = Crowd(1)
    for name in ("1", "2", "3"):
        await crowd.want(A, "x", name)

    await crowd.give_up("2")
    await crowd.give_up("1")

    assert crowd.came == ["1", "3"]


async def test_all_may_leave_in_one_moment() -> None:
    turns = FairTurns(2)

    async def take() -> None:
        async with turns.turn(A, "x"):
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(take()) for _ in range(9)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()

    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(end) for end in ends} == {asyncio.CancelledError}
    async with asyncio.timeout(1), turns.turn(A, "x"), turns.turn(A, "x"):
        pass


async def test_turn_is_not_lost_with_one_who_gives_up_as_it_is_called() -> None:
    turns = FairTurns(1)

    async def take() -> None:
        async with turns.turn(A, "x"):
            pass

    holding = turns.turn(A, "x")
    await holding.__aenter__()
    unlucky, next_ = asyncio.create_task(take()), asyncio.create_task(take())
    await asyncio.sleep(0)
    await holding.__aexit__(None, None, None)  # calls the first, which is told later
    unlucky.cancel()

    with pytest.raises(asyncio.CancelledError):
        await unlucky
    await asyncio.wait_for(next_, 1)
