"""An array that rows are added to at its end."""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item", bound=np.generic)


class Growing(Generic[Item]):
    """Its room doubles when it is full. A view that was taken before keeps its length."""

    def __init__(self, dtype: type[Item]) -> None:
        self._room: NDArray[Item] = np.zeros(1024, dtype)
        self._count = 0

    @property
    def view(self) -> NDArray[Item]:
        """All rows, not copied: what is written through it is kept."""
        return self._room[: self._count]

    def extend(self, items: NDArray[Item]) -> None:
        """Add rows at the end."""
        count = self._count + len(items)
        if count > len(self._room):
            room = np.zeros(max(count, 2 * len(self._room)), self._room.dtype)
            room[: self._count] = self.view
            self._room = room
        self._room[self._count : count] = items
        self._count = count
