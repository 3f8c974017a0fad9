"""Files and uploads over real stores: bytes first, rows second, and a sweep that harms nothing."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from hashlib import md5, sha256
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from openworks.core.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    PayloadTooLargeError,
    StorageError,
)
from openworks.core.ids import AccountId, new_id
from openworks.core.pages import PageRequest
from openworks.ports.blobs import UploadedFile
from openworks.ports.files import File
from openworks.services.file_sweep import FileSweep
from openworks.services.files import Files, FilesConfig, NewFile, Purpose, clean_name
from openworks.services.uploads import Uploads
from openworks.storage.blobs.store import ObjectBlobs
from openworks.storage.sql.files import SqlFileStore
from openworks.storage.sql.uploads import SqlUploadStore
from tests.contract.conftest import ADAPTERS, OpenDatabase
from tests.fakes import FakeClock

MINE, THEIRS = AccountId("mine"), AccountId("theirs")
HOUR_S = 3600
DAY_S = 24 * HOUR_S
CONFIG = FilesConfig(
    max_batch_bytes=1000, max_total_bytes=100_000, max_upload_bytes=50_000, max_parts=5
)


class Blobs(ObjectBlobs):
    """Blobs in a folder; something may happen when one has been put, as a crash would."""

    def __init__(self, folder: Path, clock: FakeClock) -> None:
        super().__init__(str(folder))
        self.folder = folder
        self.on_put: Callable[[], None] = lambda: None
        self.refuses_deletes = False
        self._clock = clock

    async def put_file(self, name: str, file: BinaryIO) -> None:
        await super().put_file(name, file)
        self._stamp(name)
        self.on_put()

    async def put_stream(self, name: str, pieces: AsyncIterator[bytes]) -> None:
        await super().put_stream(name, pieces)
        self._stamp(name)
        self.on_put()

    async def delete(self, name: str) -> None:
        if self.refuses_deletes:
            raise StorageError("The store is away.")
        await super().delete(name)

    def names(self) -> set[str]:
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)) for path in found}

    def _stamp(self, name: str) -> None:
        os.utime(self.folder / name, (self._clock.now_s(),) * 2)


class SimulatedCrash(BaseException):
    """The process ends here, as far as the service can tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    clock: FakeClock
    blobs: Blobs
    files: Files
    uploads: Uploads
    sweep: FileSweep

    async def create(self, data: bytes = b"hello", **fields: Any) -> File:
        return await self.files.create(a_new(**fields), received(data))

    async def content(self, file: File) -> bytes:
        return b"".join([piece async for piece in self.files.read(file)])

    async def announce(self, size_bytes: int, **fields: Any) -> str:
        return (await self.uploads.create(a_new(**fields), size_bytes)).id

    async def add(self, upload_id: str, data: bytes) -> str:
        return (await self.uploads.add_part(MINE, upload_id, received(data))).id

    async def complete(self, upload_id: str, *part_ids: str, checksum: str | None = None) -> File:
        done = await self.uploads.complete(MINE, upload_id, part_ids, checksum)
        assert done.file is not None
        return done.file


@pytest.fixture(params=[name for name in ADAPTERS if name != "memory"])
async def world(
    request: pytest.FixtureRequest, open_database: OpenDatabase, tmp_path: Path
) -> AsyncIterator[World]:
    clock = FakeClock()
    blobs = Blobs(tmp_path / "blobs", clock)
    async with open_database(request.param) as database:
        store, upload_store = SqlFileStore(database), SqlUploadStore(database)
        files = Files(store, blobs, CONFIG, clock=clock, new_id=new_id)
        yield World(
            clock=clock,
            blobs=blobs,
            files=files,
            uploads=Uploads(upload_store, files, blobs, CONFIG, clock=clock, new_id=new_id),
            sweep=FileSweep(
                store, upload_store, blobs, orphan_after_s=CONFIG.orphan_after_s, clock=clock
            ),
        )


def a_new(
    *, filename: str = "a.bin", purpose: Purpose = "user_data", ttl_s: int | None = None
) -> NewFile:
    return NewFile(account_id=MINE, filename=filename, media_type="", purpose=purpose, ttl_s=ttl_s)


def received(data: bytes) -> UploadedFile:
    return UploadedFile(
        file=io.BytesIO(data), size_bytes=len(data), sha256=sha256(data).hexdigest()
    )


async def test_file_is_read_as_it_came(world: World) -> None:
    data = bytes(range(256)) * 300

    file = await world.create(data)

    assert await world.files.get(MINE, file.id) == file
    assert await world.content(file) == data
    part = [piece async for piece in world.files.read(file, start=255, length=3)]
    assert b"".join(part) == b"\xff\x00\x01"


async def test_file_of_another_account_is_not_found(world: World) -> None:
    file = await world.create()

    with pytest.raises(NotFoundError, match=file.id):
        await world.files.get(THEIRS, file.id)
    with pytest.raises(NotFoundError):
        await world.files.delete(THEIRS, file.id)
    assert await world.content(file) == b"hello"


async def test_deleted_file_leaves_nothing(world: World) -> None:
    file = await world.create()

    await world.files.delete(MINE, file.id)

    assert world.blobs.names() == set()
    with pytest.raises(NotFoundError):
        await world.files.delete(MINE, file.id)


async def test_one_of_many_who_delete_a_file_at_once_succeeds(world: World) -> None:
    file = await world.create()

    results = await asyncio.gather(
        *(world.files.delete(MINE, file.id) for _ in range(5)), return_exceptions=True
    )

    assert results.count(None) == 1
    assert all(isinstance(result, NotFoundError) for result in results if result is not None)


async def test_who_reads_a_file_that_is_deleted_hears_of_it(world: World) -> None:
    file = await world.create()
    pieces = world.files.read(file)
    await world.files.delete(MINE, file.id)

    with pytest.raises(StorageError, match="missing"):
        await anext(pieces)


async def test_file_expires_at_its_time_and_is_swept(world: World) -> None:
    file = await world.create(ttl_s=HOUR_S)
    kept = await world.create()
    world.clock.advance(HOUR_S - 1)
    await world.sweep.remove_expired()
    assert await world.files.get(MINE, file.id) == file

    world.clock.advance(1)
    with pytest.raises(NotFoundError):
        await world.files.get(MINE, file.id)
    with pytest.raises(NotFoundError):
        await world.files.delete(MINE, file.id)
    assert list((await world.files.list(MINE, PageRequest(), purpose=None)).items) == [kept]
    await world.sweep.remove_expired()

    assert world.blobs.names() == {kept.blob}


async def test_file_for_a_batch_lives_thirty_days_unless_told_otherwise(world: World) -> None:
    default = await world.create(b"{}", filename="a.jsonl", purpose="batch")
    told = await world.create(b"{}", filename="a.jsonl", purpose="batch", ttl_s=HOUR_S)
    other = await world.create(b"{}", filename="a.jsonl", purpose="fine-tune")

    assert default.expires_at_s == default.created_at_s + 30 * DAY_S
    assert told.expires_at_s == told.created_at_s + HOUR_S
    assert other.expires_at_s is None


async def test_bad_files_are_refused_and_leave_nothing(world: World) -> None:
    with pytest.raises(InvalidRequestError, match="empty"):
        await world.create(b"")
    with pytest.raises(InvalidRequestError, match=r"ends in \.jsonl, got 'a\.txt'"):
        await world.create(b"{}", filename="a.txt", purpose="fine-tune")
    with pytest.raises(InvalidRequestError, match="line 2"):
        await world.create(b"{}\nno\n", filename="a.jsonl", purpose="batch")
    with pytest.raises(PayloadTooLargeError, match="at most 1000 bytes, got 1200"):
        await world.create(b"{}\n" * 400, filename="a.jsonl", purpose="batch")
    with pytest.raises(PayloadTooLargeError, match="100001 more"):
        await world.create(b"x" * 100_001)

    assert world.blobs.names() == set()


async def test_crash_after_the_bytes_leaves_an_orphan_that_is_swept_when_it_is_old(
    world: World,
) -> None:
    kept = await world.create()

    def crash() -> None:
        raise SimulatedCrash

    world.blobs.on_put = crash
    upload_id = await world.announce(5)
    for crashing in (world.create(), world.add(upload_id, b"hello")):
        with pytest.raises(SimulatedCrash):
            await crashing
    assert len(world.blobs.names()) == 3

    world.clock.advance(DAY_S - 1)
    await world.sweep.remove_orphans()
    assert len(world.blobs.names()) == 3
    world.clock.advance(2)
    await world.sweep.remove_orphans()

    assert world.blobs.names() == {kept.blob}
    assert await world.content(kept) == b"hello"


async def test_sweep_in_the_middle_of_storing_removes_nothing(world: World) -> None:
    """However long it takes: what takes too long is given up before a sweep could meet it."""
    for takes_s in (0, HOUR_S, DAY_S / 2):

        def sweeping(takes_s: float = takes_s) -> None:
            world.clock.advance(takes_s)

        world.blobs.on_put = sweeping
        storing = asyncio.create_task(world.create())
        while not storing.done():
            await world.sweep.remove_orphans()
        file = await storing
        assert await world.content(file) == b"hello"

    world.blobs.on_put = lambda: world.clock.advance(DAY_S / 2 + 1)
    before = world.blobs.names()
    with pytest.raises(StorageError, match="given up"):
        await world.create()
    assert world.blobs.names() == before


async def test_blob_of_a_row_is_never_an_orphan_however_old(world: World) -> None:
    files = [await world.create() for _ in range(3)]
    upload_id = await world.announce(5)
    await world.add(upload_id, b"hello")
    names = world.blobs.names()

    world.clock.advance(400 * DAY_S)
    await world.sweep.remove_orphans()

    assert world.blobs.names() == names
    assert [await world.content(file) for file in files] == [b"hello"] * 3


async def test_content_that_could_not_be_deleted_is_swept_later(world: World) -> None:
    file = await world.create()
    world.blobs.refuses_deletes = True
    await world.files.delete(MINE, file.id)
    assert world.blobs.names() == {file.blob}
    world.blobs.refuses_deletes = False

    world.clock.advance(DAY_S + 1)
    await world.sweep.remove_orphans()

    assert world.blobs.names() == set()


async def test_upload_becomes_a_file_of_its_parts_in_the_order_given(world: World) -> None:
    upload_id = await world.announce(11, ttl_s=HOUR_S)
    late, early, unused = [await world.add(upload_id, data) for data in (b"world", b"hello ", b"?")]
    checksum = md5(b"hello world", usedforsecurity=False).hexdigest()
    world.clock.advance(60)

    file = await world.complete(upload_id, early, late, checksum=checksum)

    assert await world.content(file) == b"hello world"
    assert (file.filename, file.size_bytes) == ("a.bin", 11)
    assert file.expires_at_s == world.clock.now_s() + HOUR_S  # from when it is a file
    assert world.blobs.names() == {file.blob}
    assert unused


async def test_completion_that_is_asked_again_answers_the_same(world: World) -> None:
    upload_id = await world.announce(5)
    part_id = await world.add(upload_id, b"hello")
    checksum = md5(b"hello", usedforsecurity=False).hexdigest()

    first, second = await asyncio.gather(
        world.complete(upload_id, part_id), world.complete(upload_id, part_id, checksum=checksum)
    )

    assert first == second
    with pytest.raises(InvalidRequestError, match="is completed"):
        await world.complete(upload_id, part_id, checksum="0" * 32)
    with pytest.raises(InvalidRequestError, match="is completed"):
        await world.complete(upload_id, "part_other")
    await world.files.delete(MINE, first.id)
    again = await world.uploads.complete(MINE, upload_id, [part_id], None)
    assert (again.upload.file_id, again.file) == (first.id, None)


async def test_completion_that_is_refused_leaves_the_upload_as_it_was(world: World) -> None:
    upload_id = await world.announce(6, filename="a.jsonl", purpose="batch")
    good, bad, short = [
        await world.add(upload_id, data) for data in (b"{}\n{}\n", b"{}\nno\n", b"{}")
    ]
    names = world.blobs.names()

    for part_ids, checksum, message in (
        ([good], "0" * 32, "md5"),
        ([bad], None, "line 2"),
        ([short], None, "2 bytes together.*announced with 6"),
        ([good, good], None, "named twice"),
        (["part_nobody"], None, "no part 'part_nobody'"),
        ([], None, "0 bytes"),
    ):
        with pytest.raises(InvalidRequestError, match=message):
            await world.complete(upload_id, *part_ids, checksum=checksum)
        assert world.blobs.names() == names

    assert await world.content(await world.complete(upload_id, good)) == b"{}\n{}\n"


async def test_part_that_is_missing_is_an_error_and_no_file(world: World) -> None:
    upload_id = await world.announce(5)
    part_id = await world.add(upload_id, b"hello")
    await world.blobs.delete(f"uploads/{part_id}")

    with pytest.raises(StorageError, match="missing"):
        await world.complete(upload_id, part_id)

    assert world.blobs.names() == set()


async def test_cancelled_upload_is_over_and_leaves_nothing(world: World) -> None:
    upload_id = await world.announce(5)
    part_id = await world.add(upload_id, b"hello")

    cancelled = await world.uploads.cancel(MINE, upload_id)

    assert cancelled.status == "cancelled"
    assert world.blobs.names() == set()
    assert await world.uploads.cancel(MINE, upload_id) == cancelled
    with pytest.raises(InvalidRequestError, match="is cancelled"):
        await world.add(upload_id, b"hello")
    with pytest.raises(InvalidRequestError, match="is cancelled"):
        await world.complete(upload_id, part_id)


async def test_upload_that_ends_while_a_part_comes_takes_it_not(world: World) -> None:
    upload_id = await world.announce(5)
    cancelling: list[asyncio.Task[object]] = []

    def cancel() -> None:
        world.blobs.on_put = lambda: None
        cancelling.append(asyncio.create_task(world.uploads.cancel(MINE, upload_id)))

    world.blobs.on_put = cancel
    adding = asyncio.create_task(world.add(upload_id, b"hello"))
    (result,) = await asyncio.gather(adding, return_exceptions=True)
    await cancelling[0]

    # It was either there in time, and went with the upload, or came too late.
    assert isinstance(result, str | ConflictError)
    assert world.blobs.names() == set()


async def test_upload_expires_after_an_hour_and_is_swept(world: World) -> None:
    upload_id = await world.announce(5)
    part_id = await world.add(upload_id, b"hello")
    world.clock.advance(HOUR_S)

    for call in (
        world.add(upload_id, b"x"),
        world.complete(upload_id, part_id),
        world.uploads.cancel(MINE, upload_id),
    ):
        with pytest.raises(InvalidRequestError, match="is expired"):
            await call
    await world.sweep.remove_expired()

    assert world.blobs.names() == set()
    with pytest.raises(InvalidRequestError, match="is expired"):
        await world.complete(upload_id, part_id)
    world.clock.advance(DAY_S + 1)
    await world.sweep.remove_expired()
    with pytest.raises(NotFoundError, match=upload_id):
        await world.complete(upload_id, part_id)


async def test_upload_of_another_account_is_not_found(world: World) -> None:
    upload_id = await world.announce(5)
    part_id = await world.add(upload_id, b"hello")

    for call in (
        world.uploads.add_part(THEIRS, upload_id, received(b"x")),
        world.uploads.complete(THEIRS, upload_id, [part_id], None),
        world.uploads.cancel(THEIRS, upload_id),
    ):
        with pytest.raises(NotFoundError, match=upload_id):
            await call


async def test_upload_beyond_its_limits_is_refused(world: World) -> None:
    with pytest.raises(PayloadTooLargeError, match="at most 50000 bytes, got 50001"):
        await world.announce(50_001)
    with pytest.raises(PayloadTooLargeError, match="at most 1000 bytes"):
        await world.announce(1001, filename="a.jsonl", purpose="batch")
    with pytest.raises(InvalidRequestError, match="at least 1"):
        await world.announce(0)
    with pytest.raises(InvalidRequestError, match="jsonl"):
        await world.announce(10, purpose="fine-tune")
    upload_id = await world.announce(10)
    with pytest.raises(InvalidRequestError, match="part is empty"):
        await world.add(upload_id, b"")
    with pytest.raises(PayloadTooLargeError, match="50000 bytes"):
        await world.add(upload_id, b"x" * 50_001)
    for _ in range(5):
        await world.add(upload_id, b"x")
    with pytest.raises(PayloadTooLargeError, match="5 parts"):
        await world.add(upload_id, b"x")

    assert len(world.blobs.names()) == 5


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.txt", "a.txt"),
        ("/etc/passwd", "passwd"),
        ("../../x", "x"),
        ("C:\\Users\\me\\a b.txt", "a b.txt"),
        (" 世界 🌍.pdf ", "世界 🌍.pdf"),
        (".hidden", ".hidden"),
    ],
)
def test_name_is_what_follows_the_folders(name: str, expected: str) -> None:
    assert clean_name(name, "file") == expected


@pytest.mark.parametrize(
    "name", ["", " ", "/", "a/", "..", "../..", ".", "a\nb", "a\x00b", "a\x7f", "a\x85b", "ü" * 128]
)
def test_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="Invalid 'file'"):
        clean_name(name, "file")
