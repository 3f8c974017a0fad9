"""Counts over time: a fixed window, an exact log, and slices, none of which ever lets too many in.

Amounts are whole numbers (requests, tokens, billionths of a dollar), so that what is given back
leaves no residue. `now_s` may go back: a window then moves with it and keeps what it counted, as
forgetting would hand out the same budget twice, and waiting for the future to come back would
close it.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol, TypeAlias

SLICES = 60
"""How many slices make a sliding window; the oldest counts whole, so a call may have to wait a
sixtieth of the window longer than it strictly must, and never passes too early."""

Slot: TypeAlias = "int | list[int]"
"""Where an amount was counted, for giving some of it back."""


class Bucket(Protocol):
    """One count of one rule."""

    def room(self, now_s: float, limit: int) -> int:
        """How much may be taken now; may be negative after a limit was lowered."""
        ...

    def take(self, now_s: float, amount: int) -> Slot:
        """Count `amount`; `room` with the same `now_s` comes before it."""
        ...

    def settle(self, slot: Slot, reserved: int, used: int) -> None:
        """Replace what `take` counted; without effect once its time is over."""
        ...

    def used(self, now_s: float) -> int:
        """Spent and reserved."""
        ...

    def held(self) -> int:
        """The reserved part of it."""
        ...

    def left(self, limit: int, room: int) -> int:
        """How much is left over all processes, after `room` told what is left for this one."""
        ...

    def retry_after_s(self, now_s: float, amount: int, limit: int) -> float:
        """When `amount` could fit if nothing else came; for more than `limit`, when all is free."""
        ...

    def reset_s(self, now_s: float) -> float:
        """When everything counted so far is forgotten."""
        ...

    def is_idle(self, now_s: float) -> bool:
        """Whether forgetting this bucket would change nothing."""
        ...


class FixedWindow:
    """Counts from one multiple of `span_s` to the next, on the epoch: days are days in UTC."""

    __slots__ = ("_end_s", "_round", "_span_s", "_start_s", "reserved", "taken")

    def __init__(self, span_s: int) -> None:
        self._span_s = span_s
        self._start_s = self._end_s = 0.0
        self._round = 0
        self.taken = 0
        self.reserved = 0

    def _move(self, now_s: float) -> None:
        if now_s >= self._end_s:  # else time went back: same round, new place
            self._round += 1
            self.taken = self.reserved = 0
        self._start_s = now_s // self._span_s * self._span_s
        self._end_s = self._start_s + self._span_s

    def room(self, now_s: float, limit: int) -> int:
        if not self._start_s <= now_s < self._end_s:
            self._move(now_s)
        return limit - self.taken

    def take(self, now_s: float, amount: int) -> Slot:
        self.taken += amount
        self.reserved += amount
        return self._round

    def settle(self, slot: Slot, reserved: int, used: int) -> None:
        if slot == self._round:
            self.taken += used - reserved
            self.reserved -= reserved

    def used(self, now_s: float) -> int:
        return -self.room(now_s, 0)

    def held(self) -> int:
        return self.reserved

    def left(self, limit: int, room: int) -> int:
        return room

    def retry_after_s(self, now_s: float, amount: int, limit: int) -> float:
        return self.reset_s(now_s)

    def reset_s(self, now_s: float) -> float:
        return max(self._end_s - now_s, 0.0)

    def is_idle(self, now_s: float) -> bool:
        return now_s >= self._end_s or self.taken == 0


class LogWindow:
    """Remembers when each request came: exact, for at most some thousands."""

    __slots__ = ("_span_s", "_stamps_s", "capacity")

    def __init__(self, span_s: int, *, capacity: int) -> None:
        self._span_s = span_s
        self.capacity = capacity
        self._stamps_s: deque[float] = deque()

    def room(self, now_s: float, limit: int) -> int:
        stamps_s = self._stamps_s
        gone_s = now_s - self._span_s
        while stamps_s and stamps_s[0] <= gone_s:
            stamps_s.popleft()
        return limit - len(stamps_s)

    def take(self, now_s: float, amount: int) -> Slot:
        self._stamps_s.append(now_s)
        return 0

    def settle(self, slot: Slot, reserved: int, used: int) -> None:
        """Nothing: a request counts once it passed."""

    def used(self, now_s: float) -> int:
        return -self.room(now_s, 0)

    def held(self) -> int:
        return 0

    def left(self, limit: int, room: int) -> int:
        return room

    def retry_after_s(self, now_s: float, amount: int, limit: int) -> float:
        excess = self.used(now_s) + amount - limit
        if excess <= 0 or not self._stamps_s:
            return 0.0
        stamp_s = self._stamps_s[min(excess, len(self._stamps_s)) - 1]
        return stamp_s + self._span_s - now_s

    def reset_s(self, now_s: float) -> float:
        return self._stamps_s[-1] + self._span_s - now_s if self._stamps_s else 0.0

    def is_idle(self, now_s: float) -> bool:
        return self.used(now_s) == 0


class SlicedWindow:
    """Counts any amount in any interval of `span_s`, to a sixtieth of it, on the safe side."""

    __slots__ = ("_cells", "_width_s", "reserved", "taken")

    def __init__(self, span_s: int) -> None:
        self._width_s = span_s / SLICES
        # [number of the slice, taken, reserved, whether it still counts]
        self._cells: deque[list[int]] = deque()
        self.taken = 0
        self.reserved = 0

    def room(self, now_s: float, limit: int) -> int:
        cells = self._cells
        if cells:
            number = int(now_s // self._width_s)
            if cells[-1][0] > number:
                back = cells[-1][0] - number
                for cell in cells:
                    cell[0] -= back
            while cells and cells[0][0] < number - SLICES:
                cell = cells.popleft()
                cell[3] = 0
                self.taken -= cell[1]
                self.reserved -= cell[2]
        return limit - self.taken

    def take(self, now_s: float, amount: int) -> Slot:
        number = int(now_s // self._width_s)
        cells = self._cells
        if not cells or cells[-1][0] != number:
            cells.append([number, 0, 0, 1])
        cell = cells[-1]
        cell[1] += amount
        cell[2] += amount
        self.taken += amount
        self.reserved += amount
        return cell

    def settle(self, slot: Slot, reserved: int, used: int) -> None:
        assert isinstance(slot, list)
        if slot[3]:
            slot[1] += used - reserved
            slot[2] -= reserved
            self.taken += used - reserved
            self.reserved -= reserved

    def add_past(self, at_s: float, amount: int) -> None:
        """Count what was spent before, in the slice of its time."""
        number = int(at_s // self._width_s)
        cells = self._cells
        place = len(cells)
        while place and cells[place - 1][0] > number:
            place -= 1
        if place and cells[place - 1][0] == number:
            cells[place - 1][1] += amount
        else:
            cells.insert(place, [number, amount, 0, 1])
        self.taken += amount

    def used(self, now_s: float) -> int:
        return -self.room(now_s, 0)

    def held(self) -> int:
        return self.reserved

    def left(self, limit: int, room: int) -> int:
        return room

    def retry_after_s(self, now_s: float, amount: int, limit: int) -> float:
        excess = self.used(now_s) + amount - limit
        freed_s = 0.0
        for number, taken, _, _ in self._cells:
            if excess <= 0:
                break
            excess -= taken
            freed_s = self._gone_s(number) - now_s
        return max(freed_s, 0.0)

    def reset_s(self, now_s: float) -> float:
        return self._gone_s(self._cells[-1][0]) - now_s if self._cells else 0.0

    def is_idle(self, now_s: float) -> bool:
        return self.used(now_s) == 0 and not self._cells

    def _gone_s(self, number: int) -> float:
        return (number + 1 + SLICES) * self._width_s
