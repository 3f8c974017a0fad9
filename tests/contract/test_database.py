"""A database is migrated to what the tables say, and its failures come out as ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, func, insert, select, text

from openworks.core.errors import ConflictError, StorageError
from openworks.storage.sql.database import Database, DatabaseConfig, sqlite_url
from openworks.storage.sql.keys import SqlKeyStore
from openworks.storage.sql.tables import accounts, metadata
from tests.contract.conftest import ADAPTERS, OpenDatabase


@pytest.fixture(params=[adapter for adapter in ADAPTERS if adapter != "memory"])
def sql_adapter(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def a_database(path: Path) -> Database:
    return Database(DatabaseConfig(url=sqlite_url(path)))


def _differences(connection: Connection) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, metadata))


async def test_migrations_make_exactly_the_tables(
    open_database: OpenDatabase, sql_adapter: str
) -> None:
    async with open_database(sql_adapter) as database, database.read() as connection:
        assert await connection.run_sync(_differences) == []


async def test_migrating_again_changes_nothing(
    open_database: OpenDatabase, sql_adapter: str
) -> None:
    async with open_database(sql_adapter) as database:
        async with database.write() as connection:
            await connection.execute(insert(accounts).values(id="acct-1", created_at_s=1.0))

        await database.migrate()

        async with database.read() as connection:
            assert (await connection.execute(select(accounts.c.id))).scalars().all() == ["acct-1"]


async def test_servers_that_start_together_migrate_once(tmp_path: Path) -> None:
    databases = [a_database(tmp_path / "state.db") for _ in range(4)]

    async def start(database: Database) -> None:
        await database.open()
        await database.migrate()

    try:
        await asyncio.gather(*(start(database) for database in databases))
        async with databases[0].read() as connection:
            assert await connection.run_sync(_differences) == []
    finally:
        for database in databases:
            await database.close()


async def test_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    database = a_database(tmp_path / "state.db")
    await database.open()
    await database.migrate()
    async with database.write() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    try:
        with pytest.raises(StorageError, match="9999"):
            await database.migrate()
    finally:
        await database.close()


async def test_missing_folder_is_made(tmp_path: Path) -> None:
    database = a_database(tmp_path / "new" / "folder" / "state.db")

    await database.open()
    await database.close()

    assert (tmp_path / "new" / "folder" / "state.db").exists()


@pytest.mark.parametrize("name", ["q?x", "a#b", "50%", "%41", "me@home: ü", "a&b+c"])
async def test_path_may_have_any_characters(tmp_path: Path, name: str) -> None:
    database = a_database(tmp_path / name / "state.db")

    await database.open()
    await database.close()

    assert (tmp_path / name / "state.db").is_file()


async def test_memory_database_keeps_its_tables_between_transactions() -> None:
    database = Database(DatabaseConfig(url="sqlite://"))
    await database.open()
    try:
        await database.migrate()
        async with database.read() as connection:
            assert await connection.run_sync(_differences) == []
    finally:
        await database.close()


async def test_sqlite_writes_ahead_and_checks_foreign_keys(tmp_path: Path) -> None:
    database = a_database(tmp_path / "state.db")
    await database.open()
    try:
        async with database.read() as connection:
            values = [
                (await connection.execute(text(f"PRAGMA {name}"))).scalar_one()
                for name in ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
            ]
    finally:
        await database.close()

    assert values == ["wal", 1, 10_000, 1]


async def test_failed_write_leaves_nothing_behind(
    open_database: OpenDatabase, sql_adapter: str
) -> None:
    async with open_database(sql_adapter) as database:

        async def write_twice() -> None:
            async with database.write(conflict="It is here twice.") as connection:
                for _ in range(2):
                    await connection.execute(insert(accounts).values(id="a", created_at_s=1.0))

        with pytest.raises(ConflictError, match="twice"):
            await write_twice()

        async with database.read() as connection:
            query = select(func.count()).select_from(accounts)
            assert (await connection.execute(query)).scalar_one() == 0


async def test_writers_that_read_first_wait_for_each_other(
    open_database: OpenDatabase, sql_adapter: str
) -> None:
    query = select(func.count()).select_from(accounts)
    async with open_database(sql_adapter) as database:

        async def write(number: int) -> None:
            async with database.write() as connection:
                await connection.execute(query)
                await connection.execute(
                    insert(accounts).values(id=f"acct-{number}", created_at_s=1.0)
                )

        await asyncio.gather(*(write(number) for number in range(20)))

        async with database.read() as connection:
            assert (await connection.execute(query)).scalar_one() == 20


def _folder(path: Path) -> str:
    path.mkdir()
    return f"sqlite:///{path}"


def _no_database(path: Path) -> str:
    path.write_bytes(b"not a database, " * 500)
    return f"sqlite:///{path}"


@pytest.mark.parametrize("broken", [_folder, _no_database, lambda _path: "nonsense"])
async def test_database_that_cannot_be_opened_is_unavailable(
    tmp_path: Path, broken: Callable[[Path], str]
) -> None:
    database = Database(DatabaseConfig(url=broken(tmp_path / "state.db")))

    try:
        with pytest.raises(StorageError):
            await database.open()
    finally:
        await database.close()


async def test_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    _no_database(path)

    with pytest.raises(StorageError, match=r"state\.db failed: file is not a database") as caught:
        await a_database(path).open()

    assert str(path) in caught.value.message


async def test_database_that_cannot_be_migrated_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    database = a_database(path)
    await database.open()
    try:
        async with database.write() as connection:
            await connection.execute(text("CREATE TABLE accounts (other TEXT)"))
        with pytest.raises(StorageError, match="table accounts already exists") as caught:
            await database.migrate()
    finally:
        await database.close()

    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("postgresql://me:hunter2@127.0.0.1:9/state?password=hunter2", "state on 127.0.0.1:9"),
        ("postgresql://me:pass@hunter2@127.0.0.1:9/state", "127.0.0.1:9"),
        ("postgresql://me:pass@127.0.0.1:hunter2/state", "port is not a number"),
    ],
)
async def test_server_that_does_not_answer_is_named_without_the_password(
    url: str, named: str
) -> None:
    database = Database(DatabaseConfig(url=url))
    try:
        with pytest.raises(StorageError) as caught:
            await database.open()
    finally:
        await database.close()

    is_installed = find_spec("asyncpg") is not None
    assert (named if is_installed or "port" in named else "'asyncpg'") in caught.value.message
    assert "hunter2" not in caught.value.message


async def test_failure_while_serving_does_not_tell_callers_the_path(tmp_path: Path) -> None:
    database = a_database(tmp_path / "state.db")
    await database.open()
    try:
        with pytest.raises(StorageError, match="no such table") as caught:
            await SqlKeyStore(database).count_unrevoked()
    finally:
        await database.close()

    assert str(tmp_path) not in caught.value.message


async def test_database_that_is_not_open_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="not open"):
        async with a_database(tmp_path / "state.db").read():
            pass


async def test_failure_tells_neither_statement_nor_values(tmp_path: Path) -> None:
    database = a_database(tmp_path / "state.db")
    await database.open()
    try:
        with pytest.raises(StorageError) as raised:
            await SqlKeyStore(database).get_by_hash("secret")
    finally:
        await database.close()

    assert "no such table" in raised.value.message
    assert "secret" not in raised.value.message
    assert "SELECT" not in raised.value.message


def test_config_hides_the_password() -> None:
    assert "hunter2" not in repr(DatabaseConfig(url="postgresql://me:hunter2@db/openworks"))
