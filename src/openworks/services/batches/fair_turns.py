"""Turns that are shared out evenly: between accounts first, between their batches next."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

from openworks.core.ids import AccountId


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    account_id: AccountId
    batch_id: str
    arrival: int
    called: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class FairTurns:
    """So many at once. Of those who wait, the one comes next whose account has the fewest turns."""

    def __init__(self, number: int) -> None:
        self._number_free = number
        self._of_account: Counter[AccountId] = Counter()
        self._of_batch: Counter[str] = Counter()
        self._waiting: list[_Waiting] = []
        self._arrivals = count()

    @asynccontextmanager
    async def turn(self, account_id: AccountId, batch_id: str) -> AsyncIterator[None]:
        """Hold a turn while the block lasts."""
        await self._come(account_id, batch_id)
        try:
            yield
        finally:
            self._of_account[account_id] -= 1
            self._of_batch[batch_id] -= 1
            self._number_free += 1
            self._call_next()

    async def _come(self, account_id: AccountId, batch_id: str) -> None:
        one = _Waiting(account_id, batch_id, next(self._arrivals))
        self._waiting.append(one)
        self._call_next()
        try:
            await one.called
        except asyncio.CancelledError:
            if one.called.cancelled():
                self._waiting = [each for each in self._waiting if each is not one]
            else:  # it was called and left in the same moment
                self._of_account[account_id] -= 1
                self._of_batch[batch_id] -= 1
                self._number_free += 1
                self._call_next()
            raise

    def _call_next(self) -> None:
        while self._number_free:
            # Those that have left in this moment are still there.
            waiting = [each for each in self._waiting if not each.called.done()]
            if not waiting:
                return
            first = min(waiting, key=self._rank)
            self._waiting.remove(first)
            self._number_free -= 1
            self._of_account[first.account_id] += 1
            self._of_batch[first.batch_id] += 1
            first.called.set_result(None)

    def _rank(self, one: _Waiting) -> tuple[int, int, int]:
        return self._of_account[one.account_id], self._of_batch[one.batch_id], one.arrival
