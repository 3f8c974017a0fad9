"""The writer's connection to Postgres, through asyncpg."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import cache
from typing import Any, TypeAlias

import asyncpg  # type: ignore[import-untyped]  # it ships none

from openworks.storage.logbook.database import DatabaseAwayError, UnacceptableError

_Ask: TypeAlias = Callable[[Any], Awaitable[Any]]

_CONNECT_TIMEOUT_S = 5.0
_COMMAND_TIMEOUT_S = 5.0
_CLOSE_TIMEOUT_S = 5.0


class PostgresLogDatabase:
    """Postgres through asyncpg, on an event loop that runs only while a statement does."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._loop = asyncio.new_event_loop()
        self._open: Any = None

    def begin(self) -> None:
        self._run(lambda connection: connection.execute("BEGIN"))

    def commit(self) -> None:
        self._run(lambda connection: connection.execute("COMMIT"))

    def rollback(self) -> None:
        try:
            self._run(lambda connection: connection.execute("ROLLBACK"))
        except (DatabaseAwayError, UnacceptableError):
            self._drop()

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[Sequence[Any]]:
        found = self._run(lambda connection: connection.fetch(_numbered(sql), *values))
        return [tuple(row) for row in found]

    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        listed = list(rows)
        self._run(lambda connection: connection.executemany(_numbered(sql), listed))

    def known_ids(self, ids: Sequence[str]) -> set[str]:
        sql = "SELECT id FROM call_records WHERE id = ANY(?)"
        return {row[0] for row in self.query(sql, (list(ids),))}

    def close(self) -> None:
        if self._open is not None:
            self._loop.run_until_complete(self._close())
        self._loop.close()

    async def _close(self) -> None:
        try:
            await self._open.close(timeout=_CLOSE_TIMEOUT_S)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            self._drop()

    def _drop(self) -> None:
        """Leave a connection that is of no use; the next statement opens another."""
        if self._open is not None:
            self._open.terminate()
            self._open = None

    def _run(self, ask: _Ask) -> Any:
        return self._loop.run_until_complete(self._asked(ask))

    async def _asked(self, ask: _Ask) -> Any:
        errors = asyncpg.exceptions
        try:
            if self._open is None or self._open.is_closed():
                self._open = await asyncpg.connect(
                    self._dsn, timeout=_CONNECT_TIMEOUT_S, command_timeout=_COMMAND_TIMEOUT_S
                )
            return await ask(self._open)
        except (
            errors.DataError,  # asyncpg's own, for values that it cannot encode
            errors.PostgresError,
            errors.InterfaceError,
            OSError,
            TimeoutError,
        ) as error:
            raise self._told(error) from error

    def _told(self, error: Exception) -> DatabaseAwayError | UnacceptableError:
        state = getattr(error, "sqlstate", None) or ""
        is_fault_of_data = isinstance(error, ValueError) or state[:2] in ("22", "23")
        if not is_fault_of_data:
            self._drop()
        kind = UnacceptableError if is_fault_of_data else DatabaseAwayError
        return kind(f"{type(error).__name__}: {error}")


@cache
def _numbered(sql: str) -> str:
    first, *others = sql.split("?")
    return first + "".join(f"${number}{part}" for number, part in enumerate(others, 1))
