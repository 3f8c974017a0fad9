"""One database: its connections, its migrations, and all that differs between dialects."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import URL, Column, Connection, Table, TableValuedAlias, event, func, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from openworks.core.errors import ConflictError, StorageError
from openworks.storage.sql.versions import is_current

_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
_MIGRATION_LOCK = 0x6F70656E  # Postgres names its advisory locks by number
_WRITES = "openworks_writes"
_BUSY_PAUSE_S = 0.02
_CONFLICT = "It exists already."


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseConfig:
    """Which database, and how patient to be with it."""

    url: str = field(repr=False)  # it may hold a password
    """`sqlite:////var/lib/openworks/state.db` or `postgresql://user:password@host/name`."""
    busy_timeout_s: float = 10.0
    """Seconds to wait for another process to end its write (SQLite)."""


class Database:
    """A pool of connections; `read` and `write` are the only ways in.

    Library errors leave both as `StorageError`, a broken constraint as `ConflictError`.
    """

    def __init__(self, config: DatabaseConfig) -> None:
        self._config = config
        self._engine: AsyncEngine | None = None
        self._place = ""
        # SQLite has one writer. Those of this process queue here, in order of arrival; only another
        # process is waited for inside SQLite, which polls.
        self._sqlite_writer = asyncio.Lock()

    async def open(self) -> None:
        """Connect, making SQLite's file and folder if they are not there.

        Raises:
            StorageError: The URL is wrong, or nothing answers there.
        """
        url = _read_url(self._config.url)
        self._place = _place(url)
        with _translated(place=self._place):
            if url.get_backend_name() == "sqlite":
                await asyncio.to_thread(_use_wal, url.database, self._config.busy_timeout_s)
                self._engine = _sqlite_engine(url, busy_timeout_s=self._config.busy_timeout_s)
            else:
                self._engine = _server_engine(url)
            async with self._engine.connect() as connection:
                await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Close every connection."""
        if self._engine is not None:
            await self._engine.dispose()
            self._engine = None

    async def migrate(self) -> None:
        """Bring the tables to this version; servers that start together take turns.

        Raises:
            StorageError: The database was written by a newer version.
        """
        async with self._transaction(place=self._place) as connection:
            if connection.dialect.name == "postgresql":
                await connection.execute(func.pg_advisory_xact_lock(_MIGRATION_LOCK).select())
            if not await connection.run_sync(is_current):
                # Imported only where it has work: it takes a fifth of a second and 10 MB.
                from openworks.storage.sql.upgrade import upgrade

                await connection.run_sync(upgrade)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Lend a connection with one consistent view; what is written on it is not kept."""
        with _translated():
            async with self._open_engine().connect() as connection:
                yield connection

    @asynccontextmanager
    async def write(
        self, *, conflict: str = "It exists already."
    ) -> AsyncIterator[AsyncConnection]:
        """Lend a connection in a transaction that ends with the block: all of it or nothing.

        Args:
            conflict: What the caller is told when a constraint is broken.
        """
        async with self._transaction(conflict) as connection:
            yield connection

    @asynccontextmanager
    async def _transaction(
        self, conflict: str = _CONFLICT, *, place: str = ""
    ) -> AsyncIterator[AsyncConnection]:
        engine = self._open_engine()
        queue = self._sqlite_writer if engine.dialect.name == "sqlite" else nullcontext()
        with _translated(conflict, place=place):
            async with queue, engine.connect() as connection:
                await connection.execution_options(**{_WRITES: True})
                async with connection.begin():
                    yield connection

    def _open_engine(self) -> AsyncEngine:
        if self._engine is None:
            raise StorageError("The database is not open.")
        return self._engine


def sqlite_url(path: Path) -> str:
    """Return the URL of a file, whatever characters its path has."""
    return URL.create("sqlite", database=str(path)).render_as_string()


def plain_address(url: str) -> tuple[Literal["sqlite", "postgresql"], str]:
    """Return what a driver takes without SQLAlchemy: a file's path, or a DSN with its password.

    Raises:
        StorageError: The URL is wrong, or of a database that only one process can see.
    """
    read = _read_url(url)
    if read.get_backend_name() == "postgresql":
        plain = read.set(drivername="postgresql")
        return "postgresql", plain.render_as_string(hide_password=False)
    if read.database in (None, "", ":memory:"):
        raise StorageError("The database must be a file, as the logs have a process of their own.")
    return "sqlite", str(Path(str(read.database)).absolute())


def insert_or_ignore(
    connection: AsyncConnection, table: Table
) -> sqlite.Insert | postgresql.Insert:
    """Begin an INSERT that leaves rows alone whose key is there already."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


def json_pairs(connection: AsyncConnection, column: Column[Any]) -> TableValuedAlias:
    """Read a column's JSON object as rows of `key` and `value`, whatever characters a key has."""
    if connection.dialect.name == "postgresql":
        return func.json_each_text(column).table_valued("key", "value")
    return func.json_each(column).table_valued("key", "value")


def _read_url(text: str) -> URL:
    try:
        with _translated():
            return _with_async_driver(make_url(text))
    except ValueError:  # its words would repeat a part of the URL, which may hold a password
        raise StorageError("The database's URL is wrong: its port is not a number.") from None


def _place(url: URL) -> str:
    """Say where a database is, without what opens it; callers of the API are not told."""
    if url.get_backend_name() == "sqlite":
        return f" {url.database}" if url.database else ""
    port = "" if url.port is None else f":{url.port}"
    host = (url.host or "this machine").rpartition("@")[2]  # a password may have an @ of its own
    return f" {url.database} on {host}{port}"


def _with_async_driver(url: URL) -> URL:
    driver = _DRIVERS.get(url.drivername)
    return url if driver is None else url.set(drivername=driver)


def _server_engine(url: URL) -> AsyncEngine:
    try:
        return create_async_engine(url, json_serializer=_dump_json, pool_pre_ping=True)
    except ModuleNotFoundError as error:
        raise StorageError(
            f"The database needs the Python package {error.name!r}, which is not installed."
        ) from error


def _sqlite_engine(url: URL, *, busy_timeout_s: float) -> AsyncEngine:
    options: dict[str, Any] = {}
    if url.database in (None, "", ":memory:"):
        # A database in memory lives in its connection; sharing it would mix transactions up.
        options = {"poolclass": AsyncAdaptedQueuePool, "pool_size": 1, "max_overflow": 0}
    engine = create_async_engine(url, json_serializer=_dump_json, **options)

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: DBAPIConnection, _record: object) -> None:
        # The driver would begin transactions late, and never for SELECT or CREATE TABLE; see
        # https://docs.sqlalchemy.org/en/21/dialects/sqlite.html#sqlite-transactions
        connection.isolation_level = None
        with ExitStack() as undo:
            undo.callback(connection.close)  # the pool would leave its thread to the collector
            cursor = connection.cursor()
            for pragma in (
                f"busy_timeout = {int(busy_timeout_s * 1000)}",
                "synchronous = NORMAL",
                "foreign_keys = ON",
            ):
                cursor.execute(f"PRAGMA {pragma}")
            cursor.close()
            undo.pop_all()

    @event.listens_for(engine.sync_engine, "invalidate")
    def roll_back(connection: DBAPIConnection, *_: object) -> None:
        # A caller who was cancelled. SQLite keeps a closed connection's transaction, and the lock
        # that comes with it, for as long as a cursor of it is referred to, as by a traceback.
        connection.rollback()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads first and writes later fails at once if another wrote between.
        writes = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _use_wal(path: str | None, patience_s: float) -> None:
    """Make the file and switch it to a write-ahead log, which it then keeps.

    SQLite does not wait for others at this switch, however long its busy timeout is.
    """
    if path in (None, "", ":memory:"):
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    deadline_s = time.monotonic() + patience_s
    with closing(sqlite3.connect(path)) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                is_busy = error.sqlite_errorcode == sqlite3.SQLITE_BUSY
                if not is_busy or time.monotonic() > deadline_s:
                    raise
                time.sleep(_BUSY_PAUSE_S)
            else:
                return


def _dump_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@contextmanager
def _translated(conflict: str = _CONFLICT, *, place: str = "") -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        raise ConflictError(conflict) from error
    except SQLAlchemyError as error:
        # The driver's own words: SQLAlchemy's would carry the statement and its values.
        reason = error.orig if isinstance(error, DBAPIError) else error
        raise StorageError(f"The database{place} failed: {reason}.") from error
    except sqlite3.Error as error:
        raise StorageError(f"The database{place} failed: {error}.") from error
    except OSError as error:  # asyncpg's, when nothing answers
        raise StorageError(f"The database{place} cannot be reached: {error}.") from error
