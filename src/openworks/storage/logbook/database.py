"""The writer's own connection: plain drivers, as the process is small and does nothing else."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import msgspec

BUSY_TIMEOUT_S = 0.25
"""How long a batch waits for another process's transaction before it goes to the spool file."""


class DatabaseAwayError(Exception):
    """It does not take writes now: locked, full, restarting. The same write may succeed later."""


class UnacceptableError(Exception):
    """It will never take this write, such as a number beyond 64 bits."""


class LogDatabase(Protocol):
    """SQL that both databases speak, with `?` for a value; one transaction at a time.

    Every method raises `DatabaseAwayError` or `UnacceptableError`.
    """

    def begin(self) -> None:
        """Open a transaction that writes."""
        ...

    def commit(self) -> None:
        """Keep it."""
        ...

    def rollback(self) -> None:
        """Forget it; never raises."""
        ...

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[Sequence[Any]]:
        """Return all rows."""
        ...

    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement once for each row."""
        ...

    def known_ids(self, ids: Sequence[str]) -> set[str]:
        """Return those of `ids` that have a row in `call_records`."""
        ...

    def close(self) -> None:
        """Disconnect."""
        ...


@contextmanager
def transaction(database: LogDatabase) -> Iterator[None]:
    """Keep all of a block's writes, or, when it raises, none."""
    database.begin()
    is_kept = False
    try:
        yield
        database.commit()
        is_kept = True
    finally:
        if not is_kept:
            database.rollback()


class SqliteLogDatabase:
    """A file of SQLite, which the server has made and migrated."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._open: sqlite3.Connection | None = None

    def begin(self) -> None:
        self._run("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._run("COMMIT")

    def rollback(self) -> None:
        try:
            if self._open is not None and self._open.in_transaction:
                self._open.execute("ROLLBACK")
        except sqlite3.Error:
            self.close()

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[Sequence[Any]]:
        return self._run(sql, values).fetchall()

    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        try:
            self._connection().executemany(sql, rows)
        except (sqlite3.Error, OverflowError, ValueError) as error:
            raise _told(error) from error

    def known_ids(self, ids: Sequence[str]) -> set[str]:
        sql = "SELECT id FROM call_records WHERE id IN (SELECT value FROM json_each(?))"
        return {row[0] for row in self.query(sql, (msgspec.json.encode(ids).decode(),))}

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def _run(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        try:
            return self._connection().execute(sql, values)
        except (sqlite3.Error, OverflowError, ValueError) as error:
            raise _told(error) from error

    def _connection(self) -> sqlite3.Connection:
        if self._open is None:
            connection = sqlite3.connect(
                self._path,
                isolation_level=None,
                timeout=BUSY_TIMEOUT_S,
                cached_statements=64,
                check_same_thread=False,  # one at a time is all that is asked of the caller
            )
            for pragma in (
                "synchronous = NORMAL",
                "cache_size = -8000",  # KiB
                "wal_autocheckpoint = 4000",  # pages: 16 MB of new rows between two syncs
            ):
                connection.execute(f"PRAGMA {pragma}")
            self._open = connection
        return self._open


def _told(error: Exception) -> DatabaseAwayError | UnacceptableError:
    is_fault_of_data = isinstance(
        error,
        sqlite3.IntegrityError
        | sqlite3.DataError
        | sqlite3.InterfaceError
        | sqlite3.ProgrammingError
        | OverflowError
        | ValueError,
    )
    kind = UnacceptableError if is_fault_of_data else DatabaseAwayError
    return kind(f"{type(error).__name__}: {error}")
