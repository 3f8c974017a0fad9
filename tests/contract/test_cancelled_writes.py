"""Writers that are cancelled, at every place where they wait."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from sqlalchemy import insert

from openworks.storage.sql.database import Database, DatabaseConfig, sqlite_url
from openworks.storage.sql.tables import accounts


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Awaits `work`, which is cancelled where it waits for the `at`th time."""

    work: Coroutine[object, None, None]
    at: int

    def __await__(self) -> Generator[object, None, None]:
        for number in count():
            try:
                waits_for = self.work.send(None)
                if number == self.at:
                    waits_for = self.work.throw(asyncio.CancelledError())
            except StopIteration:
                return
            yield waits_for


async def test_writer_that_is_cancelled_lets_the_next_one_write(tmp_path: Path) -> None:
    config = DatabaseConfig(url=sqlite_url(tmp_path / "state.db"), busy_timeout_s=0.2)
    database = Database(config)
    await database.open()
    await database.migrate()

    async def write(id_: str) -> None:
        async with database.write() as connection:
            row = insert(accounts).values(id=id_, created_at_s=1.0).returning(accounts.c.id)
            await connection.execute(row)

    kept = []  # with their tracebacks, which refer to cursors
    for at in count():
        try:
            await Cancelled(write(f"cancelled-{at}"), at)
        except asyncio.CancelledError as error:
            kept.append(error)
        else:
            break
        await write(f"next-{at}")

    assert len(kept) > 5
    await database.close()
