"""Rows on their way into a file of columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias


class TableWriter(Protocol):
    """Makes one file, piece by piece. It blocks: call it on a thread."""

    def write(self, rows: Sequence[Mapping[str, object]]) -> bytes:
        """Add rows; return the next bytes of the file, perhaps none."""
        ...

    def finish(self) -> bytes:
        """Return the last bytes of the file."""
        ...


OpenTable: TypeAlias = Callable[[], TableWriter]
