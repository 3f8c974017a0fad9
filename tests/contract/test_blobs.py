"""Blobs come back as they were put, whatever their names."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from obstore.store import MemoryStore

from openworks.core.errors import InvalidRequestError, StorageError
from openworks.ports.blobs import Blobs
from openworks.storage.blobs.s3 import S3Config
from openworks.storage.blobs.store import ObjectBlobs
from tests.s3_server import S3Server
from tests.server import wait_until


@pytest.fixture(params=["folder", "memory", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    """In a folder, in memory, and in a bucket of a server that speaks S3."""
    match request.param:
        case "folder":
            return ObjectBlobs(str(tmp_path / "new folder" / "blobs"))
        case "memory":
            return ObjectBlobs(MemoryStore())
    server: S3Server = request.getfixturevalue("s3_server")
    return ObjectBlobs(server.url(uuid4().hex), server.config)


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


async def test_stream_that_fails_leaves_what_was_there(blobs: Blobs) -> None:
    async def read() -> AsyncGenerator[bytes, None]:
        for _ in range(9):
            yield b"x" * 3_000_000
        raise InvalidRequestError("It is not what it should be.")

    await blobs.put("name", b"first")
    with pytest.raises(InvalidRequestError):
        await blobs.put_stream("name", read())

    assert await blobs.get("name") == b"first"


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


async def test_list_names_more_than_one_page_of_a_bucket_holds(blobs: Blobs) -> None:
    names = {f"a/{number}" for number in range(1001)}
    for name in names:
        await blobs.put(name, b"x")

    assert {name async for name in blobs.list("a")} == names


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


async def put_stream(blobs: ObjectBlobs) -> None:
    async def read() -> AsyncGenerator[bytes, None]:
        yield b"x"

    await blobs.put_stream("name", read())


async def list_all(blobs: ObjectBlobs) -> None:
    async for _ in blobs.list("a"):
        pass


OPERATIONS: dict[str, Callable[[ObjectBlobs], Awaitable[object]]] = {
    "put": lambda blobs: blobs.put("name", b"x"),
    "put_now": lambda blobs: asyncio.to_thread(blobs.put_now, "name", b"x"),
    "put_file": lambda blobs: blobs.put_file("name", io.BytesIO(b"x")),
    "put_stream": put_stream,
    "get": lambda blobs: blobs.get("name"),
    "get_range": lambda blobs: blobs.get_range("name", start=0, length=1),
    "get_file": lambda blobs: blobs.get_file("name", Path("/nowhere/at/all")),
    "delete": lambda blobs: blobs.delete("name"),
    "delete_now": lambda blobs: asyncio.to_thread(blobs.delete_now, "name"),
    "list": list_all,
}


@pytest.fixture(params=OPERATIONS)
def operate(request: pytest.FixtureRequest) -> Callable[[ObjectBlobs], Awaitable[object]]:
    return OPERATIONS[request.param]


async def refusal(
    operate: Callable[[ObjectBlobs], Awaitable[object]], url: str, config: S3Config
) -> str:
    with pytest.raises(StorageError) as caught:
        await operate(ObjectBlobs(url, config))
    assert config.secret_access_key is not None
    assert config.secret_access_key not in f"{caught.value} {caught.value.__cause__!r}"
    return str(caught.value)


async def test_bucket_that_is_not_there_is_no_blob_that_is_not_there(
    operate: Callable[[ObjectBlobs], Awaitable[object]], s3_server: S3Server
) -> None:
    message = await refusal(operate, "s3://no-such-bucket/prefix", s3_server.config)

    assert message.endswith(" in s3://no-such-bucket: NoSuchBucket.")


async def test_wrong_secret_is_refused_by_the_bucket(
    operate: Callable[[ObjectBlobs], Awaitable[object]], s3_server: S3Server
) -> None:
    config = replace(s3_server.config, secret_access_key="wrong-and-secret")

    message = await refusal(operate, s3_server.url("prefix"), config)

    assert f" in s3://{s3_server.bucket}: " in message
    assert message.endswith((": SignatureDoesNotMatch.", ": PermissionDeniedError."))


async def test_server_that_is_away_is_named_by_its_bucket(
    operate: Callable[[ObjectBlobs], Awaitable[object]], s3_server: S3Server
) -> None:
    with socket.socket() as taken:  # nobody listens there
        taken.bind(("127.0.0.1", 0))
        config = replace(s3_server.config, endpoint=f"http://127.0.0.1:{taken.getsockname()[1]}")

        message = await refusal(operate, s3_server.url("prefix"), config)

    assert message.endswith(f" in s3://{s3_server.bucket}: it does not answer.")


async def test_nobody_reads_without_a_key(s3_server: S3Server) -> None:
    unknown = replace(s3_server.config, access_key_id="nobody")

    with pytest.raises(StorageError, match="InvalidAccessKeyId"):
        await ObjectBlobs(s3_server.url("prefix"), unknown).get("name")


@pytest.mark.parametrize("half", ["access_key_id", "secret_access_key"])
def test_half_a_key_is_refused_at_once(half: str) -> None:
    with pytest.raises(StorageError, match="give both, or none"):
        ObjectBlobs("s3://bucket", S3Config(**{half: "hush"}))


async def test_settings_go_before_the_environment(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "another")  # a token goes with its own key, not with ours
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    blobs = ObjectBlobs(s3_server.url(uuid4().hex), s3_server.config)

    await blobs.put("name", b"x")

    assert await blobs.get("name") == b"x"


async def test_what_settings_leave_out_is_taken_from_the_environment(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = s3_server.config
    assert config.access_key_id is not None
    assert config.secret_access_key is not None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", config.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", config.secret_access_key)
    blobs = ObjectBlobs(s3_server.url(uuid4().hex), S3Config(endpoint=config.endpoint))

    await blobs.put("name", b"x")

    assert await blobs.get("name") == b"x"


def test_endpoint_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(StorageError, match="'storage'"):
        ObjectBlobs("s3://bucket", S3Config(endpoint="storage"))


def test_secret_is_not_shown() -> None:
    assert "hush" not in repr(S3Config(access_key_id="id", secret_access_key="hush"))
