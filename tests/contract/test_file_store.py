"""Every FileStore and UploadStore keeps files and their parts alike, within what an account has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from openworks.core.errors import ConflictError, InvalidRequestError, PayloadTooLargeError
from openworks.core.ids import AccountId
from openworks.core.pages import Page, PageRequest
from openworks.ports.files import File, FileStore
from openworks.ports.uploads import Part, Upload, UploadStore
from openworks.storage.sql.database import Database
from openworks.storage.sql.files import SqlFileStore
from openworks.storage.sql.uploads import SqlUploadStore
from openworks.storage.sql.versions import MIGRATIONS
from tests.contract.conftest import ADAPTERS, OpenDatabase

MINE, THEIRS = AccountId("acct-mine"), AccountId("acct-theirs")
NOW_S = 1_790_000_000
ROOM = 10**13


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    database: Database
    files: FileStore
    uploads: UploadStore


@pytest.fixture(params=[name for name in ADAPTERS if name != "memory"])
async def stores(
    request: pytest.FixtureRequest, open_database: OpenDatabase
) -> AsyncIterator[Stores]:
    async with open_database(request.param) as database:
        yield Stores(
            database=database, files=SqlFileStore(database), uploads=SqlUploadStore(database)
        )


def a_file(
    file_id: str,
    *,
    account_id: AccountId = MINE,
    created_at_s: int = NOW_S,
    purpose: str = "user_data",
    size_bytes: int = 10_000_000_000,
    expires_at_s: int | None = None,
) -> File:
    return File(
        id=file_id,
        account_id=account_id,
        created_at_s=created_at_s,
        filename="Grüße 🌍.txt",
        media_type="text/plain",
        purpose=purpose,
        size_bytes=size_bytes,
        expires_at_s=expires_at_s,
    )


def an_upload(upload_id: str = "upload_1", *, expires_at_s: int = NOW_S + 3600) -> Upload:
    return Upload(
        id=upload_id,
        account_id=MINE,
        created_at_s=NOW_S,
        expires_at_s=expires_at_s,
        filename="a.bin",
        media_type="",
        purpose="user_data",
        size_bytes=20_000_000_000,
        file_ttl_s=3600,
        status="pending",
    )


def a_part(
    part_id: str, *, upload_id: str = "upload_1", size_bytes: int = 10, account: AccountId = MINE
) -> Part:
    return Part(
        id=part_id,
        upload_id=upload_id,
        account_id=account,
        created_at_s=NOW_S,
        size_bytes=size_bytes,
    )


def completed(upload: Upload, file: File, *part_ids: str) -> Upload:
    return replace(
        upload, status="completed", file_id=file.id, part_ids=part_ids, md5="0123456789abcdef"
    )


async def add(
    store: UploadStore,
    part: Part,
    *,
    max_parts: int = 10,
    max_upload_bytes: int = ROOM,
    max_total_bytes: int = ROOM,
) -> bool:
    return await store.add_part(
        part,
        max_parts=max_parts,
        max_upload_bytes=max_upload_bytes,
        max_total_bytes=max_total_bytes,
    )


def ids(page: Page[File]) -> list[str]:
    return [file.id for file in page.items]


async def test_file_comes_back_as_it_was_kept(stores: Stores) -> None:
    file = a_file("file-1", expires_at_s=NOW_S + 1)

    await stores.files.insert(file, max_total_bytes=ROOM)

    assert await stores.files.get(MINE, "file-1") == file


async def test_second_file_with_the_same_id_is_refused(stores: Stores) -> None:
    await stores.files.insert(a_file("file-1"), max_total_bytes=ROOM)

    with pytest.raises(ConflictError, match="'file-1'"):
        await stores.files.insert(a_file("file-1", account_id=THEIRS), max_total_bytes=ROOM)


async def test_file_of_another_account_is_not_there(stores: Stores) -> None:
    await stores.files.insert(a_file("file-1"), max_total_bytes=ROOM)

    assert await stores.files.get(THEIRS, "file-1") is None
    assert not await stores.files.delete(THEIRS, "file-1")
    assert ids(await stores.files.list(THEIRS, PageRequest(), now_s=NOW_S)) == []
    with pytest.raises(InvalidRequestError, match="after"):
        await stores.files.list(THEIRS, PageRequest(after="file-1"), now_s=NOW_S)


async def test_list_has_the_purpose_and_leaves_out_what_has_expired(stores: Stores) -> None:
    for file in (
        a_file("file-1", purpose="vision"),
        a_file("file-2", purpose="vision", expires_at_s=NOW_S),
        a_file("file-3", purpose="vision", expires_at_s=NOW_S + 1),
        a_file("file-4"),
    ):
        await stores.files.insert(file, max_total_bytes=ROOM)

    everything = await stores.files.list(MINE, PageRequest(), now_s=NOW_S)
    vision = await stores.files.list(MINE, PageRequest(order="asc"), now_s=NOW_S, purpose="vision")
    after_expired = await stores.files.list(
        MINE, PageRequest(order="asc", after="file-2"), now_s=NOW_S
    )

    assert ids(everything) == ["file-4", "file-3", "file-1"]
    assert ids(vision) == ["file-1", "file-3"]
    assert ids(after_expired) == ["file-3", "file-4"]


async def test_one_of_many_deletions_at_once_is_told_that_it_was_the_one(stores: Stores) -> None:
    await stores.files.insert(a_file("file-1"), max_total_bytes=ROOM)

    told = await asyncio.gather(*(stores.files.delete(MINE, "file-1") for _ in range(5)))

    assert sorted(told) == [False, False, False, False, True]


async def test_expired_files_are_forgotten_some_at_a_time(stores: Stores) -> None:
    for number in range(5):
        due = a_file(f"file-{number}", expires_at_s=NOW_S - number)
        await stores.files.insert(due, max_total_bytes=ROOM)
    for kept in (a_file("file-later", expires_at_s=NOW_S + 1), a_file("file-for-ever")):
        await stores.files.insert(kept, max_total_bytes=ROOM)

    first = await stores.files.delete_expired(now_s=NOW_S, limit=3)
    second = await stores.files.delete_expired(now_s=NOW_S, limit=3)

    assert (len(first), len(second)) == (3, 2)
    assert {*first, *second} == {f"file-{number}" for number in range(5)}
    assert not await stores.files.delete_expired(now_s=NOW_S, limit=3)
    left = await stores.files.known([*first, *second, "file-later", "file-for-ever"])
    assert left == {"file-later", "file-for-ever"}


async def test_account_keeps_no_more_than_it_may_in_files_and_parts(stores: Stores) -> None:
    await stores.files.insert(a_file("file-1", size_bytes=50), max_total_bytes=100)
    await stores.files.insert(
        a_file("file-2", size_bytes=100, account_id=THEIRS), max_total_bytes=100
    )
    await stores.uploads.insert(an_upload())
    await add(stores.uploads, a_part("part_1", size_bytes=40), max_total_bytes=100)

    with pytest.raises(PayloadTooLargeError, match=r"keeps 90 bytes.*11 more") as raised:
        await stores.files.insert(a_file("file-3", size_bytes=11), max_total_bytes=100)
    with pytest.raises(PayloadTooLargeError, match="90 bytes"):
        await add(stores.uploads, a_part("part_2", size_bytes=11), max_total_bytes=100)
    await stores.files.insert(a_file("file-4", size_bytes=10), max_total_bytes=100)

    assert raised.value.code == "storage_limit_exceeded"
    assert await stores.files.get(MINE, "file-3") is None


async def test_many_files_at_once_keep_within_the_limit(stores: Stores) -> None:
    files = [a_file(f"file-{number}", size_bytes=30) for number in range(8)]

    results = await asyncio.gather(
        *(stores.files.insert(file, max_total_bytes=100) for file in files),
        return_exceptions=True,
    )

    assert sum(result is None for result in results) == 3
    assert len(ids(await stores.files.list(MINE, PageRequest(), now_s=NOW_S))) == 3


async def test_upload_comes_back_as_it_was_kept(stores: Stores) -> None:
    await stores.uploads.insert(an_upload())

    assert await stores.uploads.get(MINE, "upload_1") == an_upload()
    assert await stores.uploads.get(THEIRS, "upload_1") is None


async def test_parts_are_those_of_their_upload(stores: Stores) -> None:
    for upload_id in ("upload_1", "upload_2"):
        await stores.uploads.insert(an_upload(upload_id))
    mine = [a_part("part_1"), a_part("part_2", size_bytes=5_000_000_000)]

    assert all([await add(stores.uploads, part) for part in mine])
    assert await add(stores.uploads, a_part("part_3", upload_id="upload_2"))

    listed = await stores.uploads.list_parts("upload_1")
    assert sorted(listed, key=lambda part: part.id) == mine


async def test_upload_takes_so_many_parts_and_bytes(stores: Stores) -> None:
    await stores.uploads.insert(an_upload())
    await add(stores.uploads, a_part("part_1"))

    with pytest.raises(PayloadTooLargeError, match="1 parts"):
        await add(stores.uploads, a_part("part_2"), max_parts=1)
    with pytest.raises(PayloadTooLargeError, match="10 bytes"):
        await add(stores.uploads, a_part("part_2"), max_upload_bytes=19)
    assert await add(stores.uploads, a_part("part_2"), max_upload_bytes=20)


async def test_upload_of_nobody_or_another_account_takes_no_part(stores: Stores) -> None:
    await stores.uploads.insert(an_upload())

    assert not await add(stores.uploads, a_part("part_1", upload_id="upload_9"))
    assert not await add(stores.uploads, a_part("part_1", account=THEIRS))


async def test_completed_upload_is_a_file_without_parts(stores: Stores) -> None:
    await stores.uploads.insert(an_upload())
    for part_id in ("part_1", "part_2"):
        await add(stores.uploads, a_part(part_id, size_bytes=50))
    file = a_file("file-1", size_bytes=100)
    done = completed(an_upload(), file, "part_2", "part_1")

    # Its own parts make room for it.
    forgotten = await stores.uploads.complete(done, file, max_total_bytes=100)

    assert set(forgotten or ()) == {"part_1", "part_2"}
    assert await stores.uploads.get(MINE, "upload_1") == done
    assert await stores.files.get(MINE, "file-1") == file
    assert await stores.uploads.list_parts("upload_1") == []
    assert not await stores.uploads.known_parts(["part_1", "part_2"])
    assert not await add(stores.uploads, a_part("part_3"))
    assert await stores.uploads.cancel(MINE, "upload_1") is None


async def test_completion_that_is_refused_changes_nothing(stores: Stores) -> None:
    await stores.uploads.insert(an_upload())
    await add(stores.uploads, a_part("part_1"))
    file = a_file("file-1", size_bytes=100)

    with pytest.raises(PayloadTooLargeError):
        await stores.uploads.complete(completed(an_upload(), file), file, max_total_bytes=99)

    assert await stores.uploads.get(MINE, "upload_1") == an_upload()
    assert await stores.uploads.known_parts(["part_1"]) == {"part_1"}


async def test_one_of_many_completions_at_once_makes_the_file(stores: Stores) -> None:
    await stores.uploads.insert(an_upload())
    await add(stores.uploads, a_part("part_1"))
    files = [a_file(f"file-{number}") for number in range(5)]

    done = await asyncio.gather(
        *(
            stores.uploads.complete(completed(an_upload(), file), file, max_total_bytes=ROOM)
            for file in files
        )
    )

    assert sum(forgotten is not None for forgotten in done) == 1
    assert len(ids(await stores.files.list(MINE, PageRequest(), now_s=NOW_S))) == 1


async def test_cancelled_upload_has_no_parts_and_takes_none(stores: Stores) -> None:
    await stores.uploads.insert(an_upload())
    await add(stores.uploads, a_part("part_1"))

    assert await stores.uploads.cancel(THEIRS, "upload_1") is None
    assert await stores.uploads.cancel(MINE, "upload_1") == ["part_1"]

    found = await stores.uploads.get(MINE, "upload_1")
    assert found is not None
    assert found.status == "cancelled"
    assert not await add(stores.uploads, a_part("part_2"))


async def test_uploads_expire_when_they_are_due(stores: Stores) -> None:
    for number in range(3):
        await stores.uploads.insert(an_upload(f"upload_{number}", expires_at_s=NOW_S - number))
        await add(stores.uploads, a_part(f"part_{number}", upload_id=f"upload_{number}"))
    await stores.uploads.insert(an_upload("upload_later", expires_at_s=NOW_S + 1))

    first = await stores.uploads.expire(now_s=NOW_S, limit=2)
    second = await stores.uploads.expire(now_s=NOW_S, limit=2)

    assert (first[0], second[0]) == (2, 1)
    assert {*first[1], *second[1]} == {"part_0", "part_1", "part_2"}
    found = [await stores.uploads.get(MINE, f"upload_{name}") for name in (0, 1, 2, "later")]
    assert [upload.status for upload in found if upload] == ["expired"] * 3 + ["pending"]


async def test_uploads_that_ended_long_ago_are_forgotten(stores: Stores) -> None:
    for upload_id in ("upload_1", "upload_2"):
        await stores.uploads.insert(an_upload(upload_id, expires_at_s=NOW_S))
    await stores.uploads.cancel(MINE, "upload_1")

    await stores.uploads.delete_ended(before_s=NOW_S)
    assert await stores.uploads.get(MINE, "upload_1") is not None
    await stores.uploads.delete_ended(before_s=NOW_S + 1)

    assert await stores.uploads.get(MINE, "upload_1") is None
    assert await stores.uploads.get(MINE, "upload_2") is not None


async def test_database_of_the_version_before_gains_files_and_keeps_the_rest(
    stores: Stores,
) -> None:
    async with stores.database.write() as connection:
        await connection.run_sync(_migrate, "0003")
        await connection.execute(
            text("INSERT INTO accounts (id, created_at_s) VALUES ('acct-mine', 1)")
        )
    await stores.database.migrate()

    await stores.files.insert(a_file("file-1"), max_total_bytes=ROOM)

    async with stores.database.read() as connection:
        kept = (await connection.execute(text("SELECT id FROM accounts"))).scalars().all()
    assert kept == ["acct-mine"]
    assert await stores.files.get(MINE, "file-1") is not None


def _migrate(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.downgrade(config, revision)
