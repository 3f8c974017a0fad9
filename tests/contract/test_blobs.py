"""Blobs come back as they were put, whatever their names."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from openworks.core.errors import StorageError
from openworks.ports.blobs import Blobs
from openworks.storage.blobs.store import ObjectBlobs


@pytest.fixture(params=["folder", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    """In a folder; and in memory, where they are no files, as in a bucket."""
    return ObjectBlobs(
        MemoryStore() if request.param == "memory" else str(tmp_path / "new folder" / "blobs")
    )


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
