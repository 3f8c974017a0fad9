"""The adapters that every contract suite runs over."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import pytest
from sqlalchemy import text

from openworks.ports.keys import KeyStore
from openworks.ports.stored_completions import StoredCompletionStore
from openworks.storage.sql.database import Database, DatabaseConfig
from openworks.storage.sql.events import SqlEventStore
from openworks.storage.sql.jobs import SqlJobStore
from openworks.storage.sql.keys import SqlKeyStore
from openworks.storage.sql.stored_completions import SqlStoredCompletionStore
from tests.contract.work_stores import SqlTransactions, WorkStores
from tests.fake_work import MemoryEventStore, MemoryJobStore
from tests.fakes import MemoryKeyStore, MemoryStoredCompletionStore
from tests.postgres import is_installed, running_postgres

# A database that the tests may empty, as `postgresql://user:password@host/name`.
POSTGRES_URL = os.environ.get("OPENWORKS_TEST_POSTGRES_URL")
ADAPTERS = ("memory", "sqlite", *(("postgres",) if POSTGRES_URL or is_installed() else ()))
SQL_ADAPTERS = tuple(name for name in ADAPTERS if name != "memory")

OpenDatabase: TypeAlias = Callable[[str], AbstractAsyncContextManager[Database]]


@pytest.fixture(params=ADAPTERS)
def adapter(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A database that the tests may empty: the one they are given, or one of their own."""
    if POSTGRES_URL:
        yield POSTGRES_URL
        return
    with running_postgres() as url:
        yield url


@pytest.fixture
def open_database(tmp_path: Path, request: pytest.FixtureRequest) -> OpenDatabase:
    """Open an empty database with all its tables."""

    @asynccontextmanager
    async def opened(adapter: str) -> AsyncIterator[Database]:
        url = f"sqlite:///{tmp_path / 'state.db'}"
        if adapter == "postgres":
            url = request.getfixturevalue("postgres_url")
        database = Database(DatabaseConfig(url=url))
        await database.open()
        try:
            if adapter == "postgres":
                async with database.write() as connection:
                    await connection.execute(text("DROP SCHEMA public CASCADE"))
                    await connection.execute(text("CREATE SCHEMA public"))
            await database.migrate()
            yield database
        finally:
            await database.close()

    return opened


@pytest.fixture
async def key_store(adapter: str, open_database: OpenDatabase) -> AsyncIterator[KeyStore]:
    if adapter == "memory":
        yield MemoryKeyStore()
        return
    async with open_database(adapter) as database:
        yield SqlKeyStore(database)


@pytest.fixture
async def stored_completion_store(
    adapter: str, open_database: OpenDatabase
) -> AsyncIterator[StoredCompletionStore]:
    if adapter == "memory":
        yield MemoryStoredCompletionStore()
        return
    async with open_database(adapter) as database:
        yield SqlStoredCompletionStore(database)


@pytest.fixture
async def work_stores(adapter: str, open_database: OpenDatabase) -> AsyncIterator[WorkStores]:
    if adapter == "memory":
        jobs = MemoryJobStore()
        yield WorkStores(jobs=jobs, events=MemoryEventStore(jobs), transactions=jobs)
        return
    async with open_database(adapter) as database:
        yield WorkStores(
            jobs=SqlJobStore(database),
            events=SqlEventStore(database),
            transactions=SqlTransactions(database),
        )
