"""Blobs come back as they were put, whatever their names."""

from __future__ import annotations

import asyncio
import io
import os
import tempfile
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from openworks.core.errors import InvalidRequestError, StorageError
from openworks.ports.blobs import Blobs
from openworks.storage.blobs.store import ObjectBlobs
from tests.server import wait_until


@pytest.fixture(params=["folder", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    """In a folder; and in memory, where they are no files, as in a bucket."""
    return ObjectBlobs(
        MemoryStore() if request.param == "memory" else str(tmp_path / "new folder" / "blobs")
    )


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


async def test_blob_comes_back(blobs: Blobs) -> None:
    await blobs.put("logs/2026-09-22/a b%é.z", b"hello")

    assert await blobs.get("logs/2026-09-22/a b%é.z") == b"hello"


async def test_file_is_kept_whole_and_comes_back_as_a_file(blobs: Blobs, tmp_path: Path) -> None:
    data = bytes(range(256)) * 100_000  # several pieces of it
    file = io.BytesIO(data)
    file.seek(7)  # it is kept from its beginning nevertheless

    await blobs.put_file("adapters/a b/%2E/file", file)

    assert await blobs.get("adapters/a b/%2E/file") == data
    assert await blobs.get_file("adapters/a b/%2E/file", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data


async def test_file_survives_the_blob_that_it_came_from(blobs: Blobs, tmp_path: Path) -> None:
    await blobs.put("name", b"first")
    await blobs.get_file("name", tmp_path / "copy")

    await blobs.put("name", b"second")
    await blobs.delete("name")

    assert (tmp_path / "copy").read_bytes() == b"first"


async def test_open_file_on_disk_is_kept(blobs: Blobs, tmp_path: Path) -> None:
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        file.write(b"x" * 10_000_000)
        await blobs.put_file("name", file)

    assert await blobs.get_range("name", start=9_999_998, length=2) == b"xx"


async def test_stream_is_kept_whole(blobs: Blobs) -> None:
    pieces = [bytes([number]) * 3_000_000 for number in range(9)]

    async def read() -> AsyncGenerator[bytes, None]:
        for piece in pieces:
            yield piece

    await blobs.put_stream("name", read())

    assert await blobs.get("name") == b"".join(pieces)


@pytest.mark.parametrize("num_pieces", [0, 9])
async def test_stream_that_fails_leaves_nothing(
    blobs: Blobs, tmp_path: Path, num_pieces: int
) -> None:
    async def read() -> AsyncGenerator[bytes, None]:
        for _ in range(num_pieces):
            yield b"x" * 3_000_000
        raise InvalidRequestError("It is not what it should be.")

    with pytest.raises(InvalidRequestError, match="not what it should be"):
        await blobs.put_stream("name", read())

    assert await blobs.get("name") is None
    assert files_in(tmp_path) == set()


async def test_stream_that_is_cancelled_leaves_nothing(blobs: Blobs, tmp_path: Path) -> None:
    is_read, is_closed = asyncio.Event(), asyncio.Event()

    async def read() -> AsyncGenerator[bytes, None]:
        try:
            for _ in range(9):
                yield b"x" * 3_000_000
            is_read.set()
            await asyncio.Event().wait()
        finally:
            is_closed.set()

    putting = asyncio.create_task(blobs.put_stream("name", read()))
    await is_read.wait()
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    await asyncio.wait_for(is_closed.wait(), 10)

    # obstore removes what it wrote in a thread of its own.
    await asyncio.to_thread(wait_until, lambda: not files_in(tmp_path), what="an empty folder")
    assert await blobs.get("name") is None


async def test_file_of_a_blob_that_is_not_there_is_not_made(blobs: Blobs, tmp_path: Path) -> None:
    assert not await blobs.get_file("nothing", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


async def test_later_blob_takes_the_place_of_the_earlier(blobs: Blobs) -> None:
    await blobs.put("name", b"first, and longer")
    await blobs.put("name", b"second")

    assert await blobs.get("name") == b"second"


async def test_range_is_read_alone(blobs: Blobs) -> None:
    await blobs.put("name", b"0123456789")

    assert await blobs.get_range("name", start=3, length=4) == b"3456"
    assert await blobs.get_range("name", start=3, length=0) == b""


async def test_blob_that_is_not_there_is_none(blobs: Blobs) -> None:
    assert await blobs.get("nothing") is None
    assert await blobs.get_range("nothing", start=0, length=1) is None
    await blobs.delete("nothing")


async def test_deleted_blob_is_gone(blobs: Blobs) -> None:
    await blobs.put("name", b"x")

    await blobs.delete("name")

    assert await blobs.get("name") is None


async def test_list_names_what_is_under_a_folder(blobs: Blobs) -> None:
    for name in ("a/1", "a/b/2", "ab/3"):
        await blobs.put(name, b"x")

    assert sorted([name async for name in blobs.list("a")]) == ["a/1", "a/b/2"]


async def test_list_of_older_blobs_leaves_out_the_young(blobs: Blobs) -> None:
    await blobs.put("a/1", b"x")
    await blobs.put("b/2", b"x")
    now_s = time.time()

    assert [name async for name in blobs.list_older("a", before_s=now_s + 60)] == ["a/1"]
    assert [name async for name in blobs.list_older("a", before_s=now_s - 60)] == []


async def test_what_a_killed_put_has_left_is_removed_once_it_is_old(tmp_path: Path) -> None:
    blobs = ObjectBlobs(str(tmp_path))
    await blobs.put("a/whole", b"x")
    for name, age_s in (
        ("a/old#1", 100),
        ("a/deep/old#12", 100),
        ("a/young#1", 0),
        ("b/old#1", 99),
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
        os.utime(path, (time.time() - age_s,) * 2)
    os.utime(tmp_path / "a/whole", (0, 0))

    removed = await blobs.remove_unfinished("a", before_s=time.time() - 50)

    assert (removed, files_in(tmp_path)) == (2, {"a/whole", "a/young#1", "b/old#1"})


async def test_nothing_is_unfinished_where_there_is_nothing(blobs: Blobs) -> None:
    assert await blobs.remove_unfinished("nothing", before_s=time.time()) == 0


async def test_name_may_not_leave_the_folder(blobs: Blobs) -> None:
    with pytest.raises(StorageError, match=r"\.\./escape"):
        await blobs.put("../escape", b"x")


def test_place_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(StorageError, match="'ftp'"):
        ObjectBlobs("ftp://host/folder")


def test_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(StorageError, match="cannot be opened"):
        ObjectBlobs(str(tmp_path / "file" / "blobs"))
