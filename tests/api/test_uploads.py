"""Uploads: files that come in parts, through the SDK's own helper and by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import md5
from pathlib import Path
from typing import Any
from uuid import uuid4

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.api.forms import bring
from tests.api.raw import ask, post
from tests.conftest import ClientFor
from tests.server import ServerProcess

HOUR_S = 3600
DATA = bytes(range(256)) * 1000
MD5 = md5(DATA, usedforsecurity=False).hexdigest()


@pytest.fixture(scope="module")
def upload_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A guarded server with low limits."""
    flags = {
        "access.token": "token-of-the-owner",
        "files.max_part_bytes": 1000,
        "files.max_upload_bytes": 2500,
        "files.max_parts": 3,
    }
    process = ServerProcess(flags, tmp_path_factory.mktemp("uploads"))
    yield process
    assert process.stop() == 0


@pytest.fixture
def as_account(upload_server: ServerProcess, client_for: ClientFor) -> Callable[[], OpenAI]:
    def make() -> OpenAI:
        _, secret = upload_server.make_key(account=f"acct-{uuid4().hex}")
        return client_for(upload_server, key=secret)

    return make


def announce(client: OpenAI, size: int = 5, **fields: Any) -> str:
    given = {"filename": "a.bin", "mime_type": "text/plain", "purpose": "user_data", **fields}
    return client.uploads.create(bytes=size, **given).id


def add(client: OpenAI, upload_id: str, data: bytes = b"hello") -> str:
    return client.uploads.parts.create(upload_id, data=data).id


def test_file_is_uploaded_in_chunks_by_the_sdk(client: OpenAI) -> None:
    done = client.uploads.upload_file_chunked(
        file=DATA,
        filename="numbers.bin",
        bytes=len(DATA),
        mime_type="application/octet-stream",
        purpose="user_data",
        part_size=100_000,
        md5=MD5,
    )

    assert done.status == "completed"
    assert done.file is not None
    assert (done.file.filename, done.file.bytes) == ("numbers.bin", len(DATA))
    assert client.files.retrieve(done.file.id) == done.file
    assert client.files.content(done.file.id).read() == DATA


async def test_asynchronous_client_does_the_same_with_a_path(
    async_client: AsyncOpenAI, tmp_path: Path
) -> None:
    path = tmp_path / "report.jsonl"
    path.write_bytes(b'{"number": 1}\n' * 5000)

    done = await async_client.uploads.upload_file_chunked(
        file=path, mime_type="application/jsonl", purpose="fine-tune", part_size=9999
    )

    assert done.file is not None
    assert (done.file.filename, done.file.purpose) == ("report.jsonl", "fine-tune")
    content = await async_client.files.content(done.file.id)
    assert content.content == path.read_bytes()


def test_part_of_64_mib_is_taken(client: OpenAI) -> None:
    """The SDK's own size of a part."""
    done = client.uploads.upload_file_chunked(
        file=bytes(70_000_000),
        filename="zeros.bin",
        bytes=70_000_000,
        mime_type="application/octet-stream",
        purpose="user_data",
    )

    assert done.file is not None
    assert done.file.bytes == 70_000_000


def test_upload_says_what_it_is(client: OpenAI) -> None:
    upload = client.uploads.create(
        bytes=5,
        filename="../a.txt",
        mime_type="text/plain",
        purpose="vision",
        expires_after={"anchor": "created_at", "seconds": HOUR_S},
    )

    assert upload.id.startswith("upload_")
    assert (upload.bytes, upload.filename, upload.purpose) == (5, "a.txt", "vision")
    assert (upload.status, upload.file) == ("pending", None)
    assert upload.expires_at == upload.created_at + HOUR_S
    part = client.uploads.parts.create(upload.id, data=b"hello")
    assert part.id.startswith("part_")
    assert part.upload_id == upload.id
    done = client.uploads.complete(upload.id, part_ids=[part.id])
    assert done.file is not None
    assert done.file.expires_at == done.file.created_at + HOUR_S
    headers = client.files.content(done.file.id).response.headers
    assert headers["content-type"] == "text/plain"


def test_parts_are_put_together_in_the_order_of_the_completion(client: OpenAI) -> None:
    upload_id = announce(client, 4)
    ids = [add(client, upload_id, data) for data in (b"cd", b"ab", b"unused")]

    done = client.uploads.complete(upload_id, part_ids=[ids[1], ids[0]])

    assert done.file is not None
    assert client.files.content(done.file.id).read() == b"abcd"


def test_completion_answers_the_same_again(client: OpenAI) -> None:
    upload_id = announce(client)
    part_id = add(client, upload_id)

    first = client.uploads.complete(upload_id, part_ids=[part_id])
    again = client.uploads.complete(upload_id, part_ids=[part_id])

    assert first == again


def test_cancelled_upload_takes_nothing_more(client: OpenAI) -> None:
    upload_id = announce(client)
    part_id = add(client, upload_id)

    assert client.uploads.cancel(upload_id).status == "cancelled"
    assert client.uploads.cancel(upload_id).status == "cancelled"

    for call in (
        lambda: add(client, upload_id),
        lambda: client.uploads.complete(upload_id, part_ids=[part_id]),
    ):
        with pytest.raises(openai.BadRequestError, match="is cancelled") as refused:
            call()
        assert refused.value.code == "upload_not_pending"


@pytest.mark.parametrize(
    ("size", "part_ids", "checksum", "param", "message"),
    [
        (5, ["part_nobody"], None, "part_ids[0]", "part_nobody"),
        (6, ["{part}"], None, "part_ids", "5 bytes together.*announced with 6"),
        (10, ["{part}", "{part}"], None, "part_ids", "twice"),
        (5, ["{part}"], "0" * 32, "md5", "5d41402abc4b2a76b9719d911017c592"),
        (5, ["{part}"], "hello", "md5", "32 hexadecimal digits"),
        (5, [], None, "part_ids", "0 bytes"),
    ],
)
def test_bad_completion_is_refused_by_name(
    client: OpenAI, size: int, part_ids: list[str], checksum: str | None, param: str, message: str
) -> None:
    upload_id = announce(client, size)
    part_id = add(client, upload_id)

    with pytest.raises(openai.BadRequestError, match=message) as refused:
        client.uploads.complete(
            upload_id,
            part_ids=[each.format(part=part_id) for each in part_ids],
            md5=openai.omit if checksum is None else checksum,
        )

    assert refused.value.param == param


def test_checksum_may_be_in_capitals(client: OpenAI) -> None:
    upload_id = announce(client)
    checksum = md5(b"hello", usedforsecurity=False).hexdigest().upper()

    done = client.uploads.complete(upload_id, part_ids=[add(client, upload_id)], md5=checksum)

    assert done.status == "completed"


def test_whole_that_is_not_what_its_purpose_needs_is_refused(client: OpenAI) -> None:
    upload_id = announce(client, 6, filename="a.jsonl", purpose="batch")
    ids = [add(client, upload_id, data) for data in (b"{}\n", b"no\n", b"{}\n")]

    with pytest.raises(openai.BadRequestError, match="line 2"):
        client.uploads.complete(upload_id, part_ids=ids[:2])

    assert client.uploads.complete(upload_id, part_ids=[ids[0], ids[2]]).status == "completed"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"bytes": 0}, "bytes"),
        ({"bytes": "5"}, "bytes"),
        ({"filename": ""}, "filename"),
        ({"filename": "a\nb"}, "filename"),
        ({"purpose": "holidays"}, "purpose"),
        ({"purpose": "batch"}, "filename"),
        ({"mime_type": None}, "mime_type"),
        ({"expires_after": {"anchor": "created_at", "seconds": 1}}, "expires_after.seconds"),
        ({"more": 1}, "more"),
    ],
)
def test_bad_announcement_is_refused_by_name(
    server: ServerProcess, change: dict[str, object], param: str
) -> None:
    good = {"bytes": 5, "filename": "a.bin", "mime_type": "text/plain", "purpose": "user_data"}

    reply = post(server, "/v1/uploads", {**good, **change})

    assert (reply.status, reply.error()["param"]) == (400, param)


def test_bad_parts_are_refused_by_name(client: OpenAI, server: ServerProcess) -> None:
    path = f"/v1/uploads/{announce(client)}/parts"

    for reply, param in (
        (bring(server, b"", path=path, name="data"), "data"),
        (bring(server, path=path, name="file"), "data"),
        (bring(server, path=path, name="data", order="1"), "order"),
    ):
        assert (reply.status, reply.error()["param"]) == (400, param)


def test_limits_on_uploads_are_kept(as_account: Callable[[], OpenAI]) -> None:
    client = as_account()

    with pytest.raises(openai.APIStatusError, match="2500 bytes, got 2501") as too_large:
        announce(client, 2501)
    upload_id = announce(client, 2500)
    with pytest.raises(openai.APIStatusError) as too_large_a_part:
        add(client, upload_id, b"x" * 1001)
    add(client, upload_id, b"x" * 1000)
    add(client, upload_id, b"x" * 1000)
    with pytest.raises(openai.APIStatusError, match="2500 bytes") as too_much:
        add(client, upload_id, b"x" * 1000)
    add(client, upload_id, b"x" * 500)
    with pytest.raises(openai.APIStatusError, match="3 parts") as too_many:
        add(client, upload_id, b"x")

    errors = (too_large, too_large_a_part, too_much, too_many)
    assert {each.value.status_code for each in errors} == {413}


def test_upload_of_another_account_is_not_there(as_account: Callable[[], OpenAI]) -> None:
    theirs, mine = as_account(), as_account()
    upload_id = announce(theirs)
    part_id = add(theirs, upload_id)

    for call in (
        lambda: add(mine, upload_id),
        lambda: mine.uploads.complete(upload_id, part_ids=[part_id]),
        lambda: mine.uploads.cancel(upload_id),
    ):
        with pytest.raises(openai.NotFoundError, match=upload_id):
            call()
    own = announce(mine)
    with pytest.raises(openai.BadRequestError, match=part_id):
        mine.uploads.complete(own, part_ids=[part_id])
    assert theirs.uploads.complete(upload_id, part_ids=[part_id]).status == "completed"


def test_unknown_uploads_are_404(client: OpenAI, server: ServerProcess) -> None:
    for path in ("upload_nobody", "%00", "a%20b"):
        reply = ask(server, "POST", f"/v1/uploads/{path}/cancel")
        assert (reply.status, reply.error()["code"]) == (404, "not_found")
    with pytest.raises(openai.NotFoundError, match="upload_nobody"):
        add(client, "upload_nobody")
