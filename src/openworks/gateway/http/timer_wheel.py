"""All timeouts of a transport on one timer, because a timer per request costs more than reading."""

from __future__ import annotations

import asyncio
import math
from typing import Protocol

TICK_S = 0.05
SLOTS = 128
"""The wheel reaches 6.4 s; whoever is due later is looked at again then."""

NEVER_S = math.inf


class Timed(Protocol):
    """Something that may come too late; both numbers start as `NEVER_S`."""

    deadline_s: float
    """In the loop's time. Move it back or set it to `NEVER_S` at will: that costs nothing."""
    check_s: float
    """When the wheel looks next; the wheel's to write."""

    def expire(self) -> None:
        """The deadline has passed; must not raise."""
        ...


class TimerWheel:
    """Expires what is armed, at its deadline or up to about two ticks later.

    An armed thing stands in one slot. Moving its deadline only writes a number: when its slot
    comes up and the deadline has moved, it goes to a later slot.
    """

    __slots__ = ("_handle", "_loop", "_slots", "_standing", "_tick")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: list[list[Timed]] = [[] for _ in range(SLOTS)]
        self._standing = 0
        self._tick = 0
        self._handle: asyncio.TimerHandle | None = None

    def arm(self, timed: Timed, delay_s: float) -> None:
        """Expire it `delay_s` from now, unless its deadline moves again."""
        timed.deadline_s = deadline_s = self._loop.time() + delay_s
        if deadline_s < timed.check_s:
            self._stand(timed, deadline_s)

    def close(self) -> None:
        """Forget everything."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        for slot in self._slots:
            slot.clear()
        self._standing = 0

    def _stand(self, timed: Timed, deadline_s: float) -> None:
        if self._handle is None:
            self._tick = int(self._loop.time() / TICK_S)
            self._handle = self._loop.call_later(TICK_S, self._turn)
        tick = self._tick
        due = min(max(math.ceil(deadline_s / TICK_S), tick + 1), tick + SLOTS - 1)
        timed.check_s = due * TICK_S
        self._slots[due % SLOTS].append(timed)
        self._standing += 1

    def _turn(self) -> None:
        now_s = self._loop.time()
        last, now = self._tick, int(now_s / TICK_S)
        self._tick = max(last, now)
        self._handle = self._loop.call_later(TICK_S, self._turn)
        for tick in range(last + 1, min(now, last + SLOTS) + 1):
            due, self._slots[tick % SLOTS] = self._slots[tick % SLOTS], []
            self._standing -= len(due)
            for timed in due:
                self._look_at(timed, tick * TICK_S, now_s)
        if not self._standing and self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _look_at(self, timed: Timed, check_s: float, now_s: float) -> None:
        if timed.check_s != check_s:
            return  # it stands in an earlier slot too, or has been seen there
        timed.check_s = NEVER_S
        if timed.deadline_s <= now_s:
            timed.deadline_s = NEVER_S
            timed.expire()
        elif timed.deadline_s < NEVER_S:
            self._stand(timed, timed.deadline_s)
