"""Which row is in which slot, whether it is there, and its namespace: what every search needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from openworks.storage.vectors.columns import Mask
from openworks.storage.vectors.growing import Growing
from openworks.storage.vectors.raw import Slots


class Places:
    """Arrays by slot: thirteen bytes a row. Numbers rise with slots."""

    def __init__(self, rows: Iterable[Sequence[tuple[int, int, str | None]]], slots: int) -> None:
        """Take number, slot and namespace of what is there; the other slots are hidden."""
        alive = np.zeros(slots, np.bool_)
        numbers = np.zeros(slots, np.int64)
        namespaces = np.zeros(slots, np.int32)
        self._namespace_of: dict[str, int] = {}
        for block in rows:
            places = [slot for _, slot, _ in block]
            alive[places] = True
            numbers[places] = [number for number, _, _ in block]
            namespaces[places] = self._codes([name for _, _, name in block])
        np.maximum.accumulate(numbers, out=numbers)  # they rise past hidden slots too
        self.count = int(np.count_nonzero(alive))
        self._alive, self._numbers = Growing(np.bool_), Growing(np.int64)
        self._namespaces = Growing(np.int32)
        self._alive.extend(alive)
        self._numbers.extend(numbers)
        self._namespaces.extend(namespaces)

    def __len__(self) -> int:
        """How many slots there are, with the hidden ones."""
        return len(self._alive.view)

    @property
    def alive(self) -> Mask:
        """Which slots have a row that is there."""
        return self._alive.view

    def add(self, first_number: int, namespaces: Sequence[str | None]) -> None:
        """Put rows in the next slots."""
        count = len(namespaces)
        self._alive.extend(np.ones(count, np.bool_))
        self._numbers.extend(np.arange(first_number, first_number + count))
        self._namespaces.extend(self._codes(namespaces))
        self.count += count

    def hide(self, numbers: Sequence[int]) -> None:
        """Rows that were there are not."""
        self._alive.view[self.slots_of(numbers)] = False
        self.count -= len(numbers)

    def slots_of(self, numbers: Sequence[int]) -> Slots:
        """Where rows are that are there."""
        slots: Slots = np.searchsorted(self._numbers.view, np.asarray(numbers, np.int64))
        return slots

    def numbers_in(self, slots: Slots) -> list[int]:
        """Which rows are there."""
        numbers: list[int] = self._numbers.view[slots].tolist()
        return numbers

    def allows(self, number: int, allowed: Mask) -> bool:
        """Whether a row is one of those in the slots that are allowed."""
        slot = int(np.searchsorted(self._numbers.view, number))
        return slot < len(allowed) and self._numbers.view[slot] == number and bool(allowed[slot])

    def in_namespace(self, name: str) -> Mask:
        """Which slots have, or had, a row of this namespace."""
        return np.equal(self._namespaces.view, self._namespace_of.get(name, -1))

    def _codes(self, names: Sequence[str | None]) -> NDArray[np.int32]:
        known = self._namespace_of
        return np.array(
            [0 if name is None else known.setdefault(name, len(known) + 1) for name in names],
            np.int32,
        )
