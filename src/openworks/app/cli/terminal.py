"""What the commands write with: consoles, tables, sizes and times for people, progress bars."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID
    from rich.table import Table

_PLAIN_STEP = 0.1
"""Without a terminal, a download says so each time it came this much further."""


def stdout() -> Console:
    """A console for results; lines stay whole when they go into a file or a pipe."""
    from rich.console import Console

    console = Console(highlight=False)
    console.soft_wrap = not console.is_terminal
    return console


def stderr() -> Console:
    """A console for everything that is not a result."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    console.soft_wrap = not console.is_terminal
    return console


def print_error(message: str) -> None:
    """Say in red why a command failed."""
    from rich.text import Text

    stderr().print(Text.assemble(("Error: ", "bold red"), (message, "red")))


def table(*columns: str, right: tuple[str, ...] = (), cut: tuple[str, ...] = ()) -> Table:
    """Make a table without borders.

    Args:
        columns: Their titles.
        right: Those that hold numbers.
        cut: Those that a narrow terminal may shorten.
    """
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(
            column,
            justify="right" if column in right else "left",
            overflow="ellipsis" if column in cut else "fold",
            no_wrap=column not in cut,  # rich narrows first what it may wrap
        )
    return made


def print_table(rows: Table) -> None:
    """Print a table: to the width of a terminal, and of its content elsewhere."""
    console = stdout()
    if console.is_terminal:
        console.print(rows)
        return
    console.width = 10_000
    with console.capture() as text:
        console.print(rows)
    for line in text.get().splitlines():
        print(line.rstrip())


def print_json(value: object) -> None:
    """Print a document for other programs."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def bytes_text(size_bytes: float) -> str:
    """`1.2 GB`: decimal units, as the Hub and disks are labelled."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000 or unit == "GB":
            break
        size_bytes /= 1000
    return f"{size_bytes:.0f} {unit}" if unit in ("B", "kB") else f"{size_bytes:.1f} {unit}"


def time_text(at_s: float | None, *, never: str = "never") -> str:
    """Write a point in time as `2026-08-01 14:05`, in UTC."""
    if at_s is None:
        return never
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M")


class Downloads:
    """Shows how downloads go on; `on_progress` is a `ports.weights.Progress`."""

    def __init__(self, console: Console) -> None:
        self.seen = False
        """Whether anything was fetched."""
        self._console = console
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, float] = {}

    def on_progress(self, file: str, size_bytes: int, total_bytes: int) -> None:
        """Show that `size_bytes` of a file are here."""
        self.seen = True
        if self._bars is None:
            self._say(file, size_bytes, total_bytes)
        elif file not in self._tasks:
            # What an earlier attempt brought belongs to the start: it was not fetched now.
            self._tasks[file] = self._bars.add_task(file, completed=size_bytes, total=total_bytes)
        else:
            self._bars.update(self._tasks[file], completed=size_bytes)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Draw bars on a terminal, print lines elsewhere, until the block ends."""
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.table import Column

        if not self._console.is_terminal:
            yield
            return
        bars = Progress(
            TextColumn(
                "{task.description}",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis"),
            ),
            BarColumn(bar_width=30),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(compact=True),
            console=self._console,
        )
        with bars, logs_above():
            self._bars = bars
            try:
                yield
            finally:
                self._bars = None

    def _say(self, file: str, size_bytes: int, total_bytes: int) -> None:
        share = size_bytes / total_bytes if total_bytes else 1.0
        if file in self._said and share < 1.0 and share - self._said[file] < _PLAIN_STEP:
            return
        if self._said.get(file) == 1.0:
            return
        self._said[file] = share
        self._console.print(f"Fetching {file}: {share:.0%} of {bytes_text(total_bytes)}")


@contextmanager
def logs_above() -> Iterator[None]:
    """Let warnings appear above a live display, which has taken the place of `sys.stderr`.

    What is logged for information says no more than the display, so it waits; details for
    debugging do not.
    """
    root = logging.getLogger()
    handlers = [h for h in root.handlers if isinstance(h, logging.StreamHandler)]
    before = [(handler, handler.stream, handler.level) for handler in handlers]
    for handler in handlers:
        handler.setStream(sys.stderr)
        if root.level > logging.DEBUG:
            handler.setLevel(max(handler.level, logging.WARNING))
    try:
        yield
    finally:
        for handler, stream, level in before:
            handler.setStream(stream)
            handler.setLevel(level)


def hide_logs() -> None:
    """Keep what the parts log off the terminal, for commands that tell every error themselves."""
    logging.getLogger().addHandler(logging.NullHandler())


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._started_s = time.perf_counter()

    @property
    def elapsed_s(self) -> float:
        return time.perf_counter() - self._started_s
