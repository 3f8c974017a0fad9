"""Slots of a gateway, and who is next for one: start-time fair queueing by the weights of keys."""

from __future__ import annotations

import asyncio
from collections import deque
from heapq import heappop, heappush
from itertools import count

from openworks.ports.gateways import Concurrency
from openworks.ports.limits import Refusal

_MAX_WEIGHT_RATIO = 1e6


class Turns:
    """Who runs and who waits, in one process.

    Every waiting call has a start tag: the virtual time at which its key has used up the earlier
    ones, counting each as 1 / weight. The lowest tag is next, so keys that compete get turns in
    proportion to their weights, and a key that was away neither saves up turns nor owes any.

    A full queue refuses the newest call of whoever has most waiting for their weight, which may
    be the call that just came: one key cannot keep the others out of the queue.
    """

    def __init__(self, policy: Concurrency) -> None:
        self._policy = policy
        self._running = 0
        self._running_by_key: dict[str, int] = {}
        self._waiting: dict[str, deque[_Waiter]] = {}
        self._num_waiting = 0
        self._finish: dict[str, float] = {}
        self._virtual = 0.0
        self._heap: list[tuple[float, int, str]] = []  # heads of keys that may run
        self._order = count()

    @property
    def running(self) -> int:
        return self._running

    @property
    def waiting(self) -> int:
        return self._num_waiting

    def set_policy(self, policy: Concurrency) -> None:
        """Follow an edit; calls that run keep their slots."""
        self._policy = policy
        for key in self._waiting:
            self._offer(key)
        self._hand_out()

    def is_idle(self) -> bool:
        """Whether nobody runs or waits."""
        return not self._running and not self._num_waiting

    def try_enter(self, key: str) -> bool:
        """Take a slot at once if there is one; `leave` gives it back."""
        if self._running >= self._policy.limit:
            return False
        cap = self._policy.per_key_limit
        if key in self._waiting or (cap is not None and self._running_by_key.get(key, 0) >= cap):
            return False
        self._start(key)
        return True

    async def enter(self, key: str) -> Refusal | None:
        """Wait for a slot; cancelling gives the place, or the slot, to the next.

        Returns:
            None once the slot is taken; a refusal when the queue is full or the wait too long.
        """
        if self.try_enter(key):
            return None
        if self._num_waiting >= self._policy.queue and not self._push_out(key):
            return self._refusal()
        waiter = self._join(key)
        try:
            async with asyncio.timeout(self._policy.wait_s):
                await waiter.turn
        except TimeoutError:
            self._give_up(waiter)
        except asyncio.CancelledError:
            self._give_up(waiter)
            if waiter.has_slot:
                self.leave(key)
            raise
        return None if waiter.has_slot else self._refusal()

    def leave(self, key: str) -> None:
        """Give a slot back."""
        self._running -= 1
        left = self._running_by_key[key] - 1
        if left:
            self._running_by_key[key] = left
        else:
            del self._running_by_key[key]
        if self._num_waiting:
            self._offer(key)
            self._hand_out()

    def _start(self, key: str) -> None:
        self._running += 1
        self._running_by_key[key] = self._running_by_key.get(key, 0) + 1

    def _join(self, key: str) -> _Waiter:
        start = max(self._virtual, self._finish.get(key, 0.0))
        self._finish[key] = start + 1.0 / self._weight(key)
        waiter = _Waiter(key, start, next(self._order))
        self._num_waiting += 1
        line = self._waiting.get(key)
        if line is None:
            self._waiting[key] = deque((waiter,))
            self._offer(key)
        else:
            line.append(waiter)
        return waiter

    def _offer(self, key: str) -> None:
        """Put the head of a key's line up for a slot, unless the key has all that it may."""
        line = self._waiting.get(key)
        cap = self._policy.per_key_limit
        if line and (cap is None or self._running_by_key.get(key, 0) < cap):
            head = line[0]
            if not head.is_offered:
                head.is_offered = True
                heappush(self._heap, (head.start, head.number, key))

    def _hand_out(self) -> None:
        heap = self._heap
        while heap and self._running < self._policy.limit:
            start, number, key = heappop(heap)
            line = self._waiting.get(key)
            if not line or line[0].number != number:
                continue  # it gave up
            cap = self._policy.per_key_limit
            if cap is not None and self._running_by_key.get(key, 0) >= cap:
                line[0].is_offered = False
                continue
            waiter = line[0]
            if waiter.turn.done():
                continue  # it was cancelled just now, and will take itself out
            self._virtual = max(self._virtual, start)
            self._remove(waiter)
            self._start(key)
            waiter.has_slot = True
            waiter.turn.set_result(None)

    def _give_up(self, waiter: _Waiter) -> None:
        """Take a waiter out, unless it has a slot by now or was pushed out."""
        if waiter.is_waiting:
            self._remove(waiter)
            self._hand_out()

    def _remove(self, waiter: _Waiter) -> None:
        waiter.is_waiting = False
        self._num_waiting -= 1
        line = self._waiting[waiter.key]
        line.remove(waiter)
        if line:
            self._offer(waiter.key)
        else:
            del self._waiting[waiter.key]
        if not self._num_waiting:
            # Nobody competes any more, so nobody owes anything.
            self._virtual = 0.0
            self._finish.clear()
            self._heap.clear()
        elif len(self._finish) > 2 * len(self._waiting) + 64:
            now = self._virtual
            self._finish = {k: v for k, v in self._finish.items() if v > now or k in self._waiting}

    def _push_out(self, key: str) -> bool:
        """Make room for a call of `key` at the cost of whoever waits with more for its weight."""
        longest = max(
            self._waiting,
            key=lambda each: len(self._waiting[each]) / self._weight(each),
            default=key,
        )
        mine = (len(self._waiting.get(key, ())) + 1) / self._weight(key)
        if longest == key or len(self._waiting[longest]) / self._weight(longest) <= mine:
            return False
        newest = self._waiting[longest][-1]
        self._finish[longest] = newest.start
        self._remove(newest)
        if not newest.turn.done():
            newest.turn.set_result(None)
        return True

    def _weight(self, key: str) -> float:
        return max(self._policy.weights.get(key, 1.0), 1.0 / _MAX_WEIGHT_RATIO)

    def _refusal(self) -> Refusal:
        return Refusal(
            kind="concurrency",
            bucket="concurrency",
            limit=self._policy.limit,
            used=self._running,
            retry_after_s=1.0,
        )


class _Waiter:
    """One call that waits."""

    __slots__ = ("has_slot", "is_offered", "is_waiting", "key", "number", "start", "turn")

    def __init__(self, key: str, start: float, number: int) -> None:
        self.key = key
        self.start = start
        self.number = number
        self.is_waiting = True
        self.is_offered = False
        self.has_slot = False
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
