"""Files and uploads of a server that keeps its blobs in a bucket, with the official client."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import openai
import pytest
from openai import OpenAI

from openworks.storage.blobs.store import ObjectBlobs
from tests.api.raw import ask
from tests.conftest import ClientFor, StartServer, open_async_client
from tests.s3_server import S3Server
from tests.server import ServerProcess, wait_until

SEVERAL_PIECES = bytes(range(256)) * 80_000


class Bucket:
    """What lies below a prefix of the bucket."""

    def __init__(self, server: S3Server) -> None:
        self.prefix = uuid4().hex
        self.settings = server.settings(self.prefix)
        self._blobs = ObjectBlobs(server.url(self.prefix), server.config)

    def put(self, name: str, data: bytes) -> None:
        self._blobs.put_now(name, data)

    def names(self, folder: str) -> set[str]:
        async def read() -> set[str]:
            return {name async for name in self._blobs.list(folder)}

        return asyncio.run(read())


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server) -> Bucket:
    return Bucket(s3_server)


@pytest.fixture(scope="module")
def bucket_server(
    bucket: Bucket, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    process = ServerProcess(bucket.settings, tmp_path_factory.mktemp("bucket"))
    yield process
    assert process.stop() == 0


@pytest.fixture
def mine(bucket_server: ServerProcess, client_for: ClientFor) -> OpenAI:
    return client_for(bucket_server)


def keep(client: OpenAI, data: bytes = b"0123456789") -> str:
    return client.files.create(file=("a.txt", data), purpose="user_data").id


def test_file_of_several_pieces_comes_back_from_the_bucket(mine: OpenAI, bucket: Bucket) -> None:
    file_id = keep(mine, SEVERAL_PIECES)

    assert mine.files.content(file_id).read() == SEVERAL_PIECES
    assert any(file_id in name for name in bucket.names("files"))


def test_nothing_of_a_file_stays_on_this_machine(
    mine: OpenAI, bucket_server: ServerProcess
) -> None:
    keep(mine, SEVERAL_PIECES)

    folder = bucket_server.settings.folder
    assert not (folder / "blobs").exists()
    assert not [path for path in (folder / "uploads").rglob("*") if path.is_file()]


def test_range_is_read_out_of_the_bucket(mine: OpenAI, bucket_server: ServerProcess) -> None:
    path = f"/v1/files/{keep(mine, SEVERAL_PIECES)}/content"

    middle = ask(bucket_server, "GET", path, headers={"Range": "bytes=9999999-10000002"})
    behind = ask(bucket_server, "GET", path, headers={"Range": "bytes=99999999-"})

    assert (middle.status, middle.body) == (206, SEVERAL_PIECES[9_999_999:10_000_003])
    assert behind.status == 416


def test_deleted_file_is_gone_from_the_bucket(mine: OpenAI, bucket: Bucket) -> None:
    file_id = keep(mine)

    assert mine.files.delete(file_id).deleted

    assert not any(file_id in name for name in bucket.names("files"))
    with pytest.raises(openai.NotFoundError, match=file_id):
        mine.files.content(file_id)


def test_upload_in_parts_becomes_a_file_and_leaves_no_parts(mine: OpenAI, bucket: Bucket) -> None:
    done = mine.uploads.upload_file_chunked(
        file=SEVERAL_PIECES,
        filename="numbers.bin",
        bytes=len(SEVERAL_PIECES),
        mime_type="application/octet-stream",
        purpose="user_data",
        part_size=3_000_000,
        md5=hashlib.md5(SEVERAL_PIECES, usedforsecurity=False).hexdigest(),
    )

    assert done.file is not None
    assert mine.files.content(done.file.id).read() == SEVERAL_PIECES
    wait_until(lambda: not bucket.names("uploads"), what="no parts left")


async def test_files_that_come_at_once_are_all_kept(bucket_server: ServerProcess) -> None:
    contents = [str(number).encode() * 1000 for number in range(16)]
    async with open_async_client(bucket_server.url) as client:
        files = await asyncio.gather(
            *(client.files.create(file=("a", each), purpose="user_data") for each in contents)
        )
        answers = await asyncio.gather(*(client.files.content(file.id) for file in files))

    assert [answer.content for answer in answers] == contents


def test_sweep_takes_orphans_out_of_the_bucket(
    s3_server: S3Server, start_server: StartServer, client_for: ClientFor
) -> None:
    bucket = Bucket(s3_server)
    client = client_for(start_server({**bucket.settings, "files.orphan_after_s": 4.0}))
    file_id = keep(client)
    (kept,) = bucket.names("files")
    bucket.put("files/file-orphan", b"x")

    wait_until(lambda: bucket.names("files") == {kept}, what="no orphan left")

    assert client.files.content(file_id).read() == b"0123456789"


def test_bucket_that_is_away_is_a_503_that_names_it(
    tmp_path: Path, start_server: StartServer, client_for: ClientFor
) -> None:
    s3 = S3Server(tmp_path)
    server = start_server(s3.settings("prefix"))
    client = client_for(server)
    try:
        file_id = keep(client)
    finally:
        s3.kill()

    with pytest.raises(openai.InternalServerError, match=f"s3://{s3.bucket}") as storing:
        keep(client)
    with pytest.raises(openai.InternalServerError, match=f"s3://{s3.bucket}") as reading:
        client.files.content(file_id)

    assert (storing.value.status_code, reading.value.status_code) == (503, 503)
    assert client.files.retrieve(file_id).bytes == 10  # what is known of it is not in the bucket
    assert [file.id for file in client.files.list()] == [file_id]
    secret = s3.config.secret_access_key
    assert secret is not None
    assert secret not in f"{storing.value} {reading.value} {server.log.read_text()}"
