"""Files: brought, listed, read whole and in part, deleted; bad ones, large ones, broken ones."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.api.forms import BOUNDARY, TYPE, bring, form_bytes
from tests.api.raw import Reply, ask, connected, read_to_end, reset
from tests.conftest import ClientFor, open_async_client
from tests.server import ServerProcess, wait_until

HOUR_S = 3600
LINES = b'{"custom_id": "1"}\n{"custom_id": "2"}\n'


@pytest.fixture(scope="module")
def file_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A guarded server with low limits, so that accounts do not see each other's files."""
    flags = {
        "access.token": "token-of-the-owner",
        "files.max_bytes": 1_000_000,
        "files.max_batch_bytes": 10_000,
        "files.max_total_bytes": 2_500_000,
        "server.body.max_bytes": 10_000,
    }
    process = ServerProcess(flags, tmp_path_factory.mktemp("files"))
    yield process
    assert process.stop() == 0


@pytest.fixture
def as_account(file_server: ServerProcess, client_for: ClientFor) -> Callable[[], OpenAI]:
    """Make clients, each of an account of its own."""

    def make() -> OpenAI:
        _, secret = file_server.make_key(account=f"acct-{uuid4().hex}")
        return client_for(file_server, key=secret)

    return make


@pytest.fixture
def mine(as_account: Callable[[], OpenAI]) -> OpenAI:
    return as_account()


def keep(client: OpenAI, data: bytes = b"hello", name: str = "a.txt", **options: Any) -> str:
    fields = {"purpose": "user_data", **options}
    return client.files.create(file=(name, data), **fields).id


def read(server: ServerProcess, file_id: str, **headers: str) -> Reply:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask(server, "GET", f"/v1/files/{file_id}/content", headers=names)


def test_file_comes_back_as_it_was_brought(client: OpenAI) -> None:
    data = bytes(range(256)) * 40_000

    file = client.files.create(file=("numbers.bin", data), purpose="user_data")

    assert file.id.startswith("file-")
    assert (file.filename, file.bytes, file.purpose) == ("numbers.bin", len(data), "user_data")
    assert (file.status, file.expires_at, file.object) == ("processed", None, "file")
    assert client.files.retrieve(file.id) == file
    assert client.files.wait_for_processing(file.id) == file
    assert client.files.content(file.id).read() == data


async def test_asynchronous_client_does_the_same(async_client: AsyncOpenAI) -> None:
    file = await async_client.files.create(file=io.BytesIO(b"hello"), purpose="assistants")

    content = await async_client.files.content(file.id)
    ids = [each.id async for each in async_client.files.list(purpose="assistants", limit=1)]
    deleted = await async_client.files.delete(file.id)

    assert content.text == "hello"
    assert file.id in ids
    assert (deleted.id, deleted.deleted) == (file.id, True)
    with pytest.raises(openai.NotFoundError):
        await async_client.files.retrieve(file.id)


def test_file_is_streamed_to_disk_by_the_sdk(client: OpenAI, tmp_path: Path) -> None:
    data = b"0123456789" * 900_000  # over several of the pieces in which it is read
    file_id = keep(client, data)

    with client.files.with_streaming_response.content(file_id) as answer:
        answer.stream_to_file(tmp_path / "copy")

    assert (tmp_path / "copy").read_bytes() == data


def test_path_is_sent_with_its_name_and_type(client: OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "report.pdf"
    path.write_bytes(b"%PDF")

    file = client.files.create(file=path, purpose="user_data")

    assert file.filename == "report.pdf"
    assert client.files.content(file.id).response.headers["content-type"] == "application/pdf"


def test_expiry_is_kept_and_told(mine: OpenAI) -> None:
    file = mine.files.create(
        file=("a.txt", b"hello"),
        purpose="vision",
        expires_after={"anchor": "created_at", "seconds": HOUR_S},
    )

    assert file.expires_at == file.created_at + HOUR_S


def test_file_for_a_batch_expires_after_thirty_days(mine: OpenAI) -> None:
    file = mine.files.create(file=("a.jsonl", LINES), purpose="batch")

    assert file.expires_at == file.created_at + 30 * 24 * HOUR_S


@pytest.mark.parametrize("purpose", ["assistants", "batch", "fine-tune", "vision", "user_data"])
def test_every_purpose_of_the_sdk_is_taken(mine: OpenAI, purpose: Any) -> None:
    file = mine.files.create(file=("a.jsonl", LINES), purpose=purpose)

    assert file.purpose == purpose
    assert [each.id for each in mine.files.list(purpose=purpose)] == [file.id]


def test_purpose_that_answers_have_no_name_for_is_taken(server: ServerProcess) -> None:
    reply = bring(server, purpose="evals")

    assert (reply.status, reply.json()["purpose"]) == (200, "evals")


@pytest.mark.parametrize("limit", [1, 2, 5, 10_000])
def test_pages_add_up_to_the_list(mine: OpenAI, limit: int) -> None:
    ids = [keep(mine) for _ in range(5)]

    listed = [each.id for each in mine.files.list(limit=limit)]

    assert len(listed) == 5
    assert set(listed) == set(ids)


def test_list_is_newest_first_and_can_be_turned(mine: OpenAI) -> None:
    for _ in range(3):
        keep(mine)

    down = [(each.created_at, each.id) for each in mine.files.list()]
    up = [(each.created_at, each.id) for each in mine.files.list(order="asc")]

    assert down == sorted(up, reverse=True)
    assert up == sorted(up)


def test_list_is_by_purpose(mine: OpenAI) -> None:
    keep(mine)
    vision = keep(mine, purpose="vision")

    assert [each.id for each in mine.files.list(purpose="vision")] == [vision]
    assert len(list(mine.files.list())) == 2


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=10001", "limit"),
        ("order=up", "order"),
        ("after=file-nobody", "after"),
        ("purpose=holidays", "purpose"),
    ],
)
def test_bad_lists_are_refused_by_name(server: ServerProcess, query: str, param: str) -> None:
    reply = ask(server, "GET", f"/v1/files?{query}")

    assert (reply.status, reply.error()["param"]) == (400, param)


def test_files_of_another_account_are_not_there(as_account: Callable[[], OpenAI]) -> None:
    theirs, mine = as_account(), as_account()
    file_id = keep(theirs)

    for call in (mine.files.retrieve, mine.files.content, mine.files.delete):
        with pytest.raises(openai.NotFoundError, match=file_id):
            call(file_id)
    assert list(mine.files.list()) == []
    with pytest.raises(openai.BadRequestError) as refused:
        mine.files.list(after=file_id)
    assert refused.value.param == "after"
    assert theirs.files.content(file_id).read() == b"hello"


def test_key_without_the_scope_may_not_touch_files(
    file_server: ServerProcess, client_for: ClientFor
) -> None:
    _, secret = file_server.make_key(scopes=("admin",))
    client = client_for(file_server, key=secret)

    with pytest.raises(openai.PermissionDeniedError):
        client.files.list()
    with pytest.raises(openai.PermissionDeniedError):
        keep(client)


def test_stranger_is_refused_before_the_file_is_read(file_server: ServerProcess) -> None:
    with connected(file_server) as connection:
        head = "POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n"
        connection.sendall(f"{head}Content-Type: {TYPE['Content-Type']}\r\n\r\n".encode())

        assert b" 401 " in connection.recv(100)


@pytest.mark.parametrize(
    ("header", "expected", "content_range"),
    [
        ("bytes=0-0", b"0", "bytes 0-0/10"),
        ("bytes=2-5", b"2345", "bytes 2-5/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-2", b"89", "bytes 8-9/10"),
        ("bytes=5-999", b"56789", "bytes 5-9/10"),
    ],
)
def test_range_is_sent_alone(
    client: OpenAI, server: ServerProcess, header: str, expected: bytes, content_range: str
) -> None:
    reply = read(server, keep(client, b"0123456789"), range=header)

    assert (reply.status, reply.body) == (206, expected)
    assert reply.headers["content-range"] == content_range
    assert reply.headers["content-length"] == str(len(expected))


@pytest.mark.parametrize("header", ["bytes=5-2", "bytes=x", "lines=1-2", "bytes=0-1,4-5"])
def test_what_is_no_range_is_answered_by_the_whole(
    client: OpenAI, server: ServerProcess, header: str
) -> None:
    reply = read(server, keep(client, b"0123456789"), range=header)

    assert (reply.status, reply.body) == (200, b"0123456789")
    assert reply.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=99-100", "bytes=-0"])
def test_range_behind_the_end_is_a_416(client: OpenAI, server: ServerProcess, header: str) -> None:
    reply = read(server, keep(client, b"0123456789"), range=header)

    assert (reply.status, reply.error()["code"]) == (416, "range_not_satisfiable")
    assert reply.headers["content-range"] == "bytes */10"


def test_range_of_another_version_is_the_whole(client: OpenAI, server: ServerProcess) -> None:
    file_id = keep(client, b"0123456789")
    tag = read(server, file_id).headers["etag"]

    assert read(server, file_id, range="bytes=0-1", if_range=tag).status == 206
    assert read(server, file_id, range="bytes=0-1", if_range='"other"').status == 200


def test_head_tells_the_length_and_sends_nothing(client: OpenAI, server: ServerProcess) -> None:
    reply = ask(server, "HEAD", f"/v1/files/{keep(client, b'0123456789')}/content")

    assert (reply.status, reply.headers["content-length"], reply.body) == (200, "10", b"")


def test_no_browser_shows_or_runs_a_file(server: ServerProcess) -> None:
    page = form_bytes({"purpose": "user_data"}, b"<script>alert(1)</script>", "x.html")
    page = page.replace(b"\r\n\r\n<script", b"\r\nContent-Type: text/html\r\n\r\n<script")
    file_id = ask(server, "POST", "/v1/files", page, TYPE).json()["id"]

    headers = read(server, file_id).headers

    assert headers["content-disposition"] == 'attachment; filename="x.html"'
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("sandbox")
    assert headers["content-type"] == "text/html"


@pytest.mark.parametrize("kind", ["text/html\x01", "nonsense", "a/b" + "c" * 300])
def test_type_that_is_none_becomes_plain_bytes(server: ServerProcess, kind: str) -> None:
    body = form_bytes({"purpose": "user_data"}, b"hello", "x")
    typed = body.replace(b"\r\n\r\nhello", f"\r\nContent-Type: {kind}\r\n\r\nhello".encode())
    file_id = ask(server, "POST", "/v1/files", typed, TYPE).json()["id"]

    assert read(server, file_id).headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("name", "kept", "disposition"),
    [
        ("../../etc/passwd", "passwd", 'filename="passwd"'),
        ("/etc/passwd", "passwd", 'filename="passwd"'),
        ("Größe 世界 🌍.txt", "Größe 世界 🌍.txt", "filename*=UTF-8''Gr%C3%B6%C3%9Fe%20%E4%B8%96"),
        ("a;b=c.txt", "a;b=c.txt", "filename*=UTF-8''a%3Bb%3Dc.txt"),
        (".htaccess", ".htaccess", 'filename=".htaccess"'),
    ],
)
def test_name_is_kept_without_its_folders_and_sent_safely(
    server: ServerProcess, name: str, kept: str, disposition: str
) -> None:
    file = bring(server, filename=name, purpose="user_data").json()

    sent = read(server, file["id"]).headers["content-disposition"]

    assert file["filename"] == kept
    assert sent.startswith("attachment; filename=")
    assert disposition in sent


@pytest.mark.parametrize(
    "name", ["", "..", "a/", "a\tb", "a\x01b", "a\x7fb", "a\u2028b", "ü" * 200]
)
def test_name_that_is_none_is_refused(server: ServerProcess, name: str) -> None:
    reply = bring(server, filename=name, purpose="user_data")

    assert (reply.status, reply.error()["param"]) == (400, "file")


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({}, "purpose", "purpose"),
        ({"purpose": "holidays"}, "purpose", "'holidays'"),
        ({"purpose": "batch_output"}, "purpose", "'batch_output'"),
        ({"purpose": "vision", "colour": "x"}, "colour", "colour"),
        ({"expires_after[seconds]": "3600"}, "expires_after.anchor", "anchor"),
        ({"expires_after[anchor]": "created_at"}, "expires_after.seconds", "seconds"),
        (
            {"expires_after[anchor]": "birth", "expires_after[seconds]": "3600"},
            "expires_after.anchor",
            "birth",
        ),
        (
            {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3599"},
            "expires_after.seconds",
            "between 3600 and 2592000, got 3599",
        ),
        (
            {"expires_after[anchor]": "created_at", "expires_after[seconds]": "2592001"},
            "expires_after.seconds",
            "got 2592001",
        ),
        (
            {"expires_after[anchor]": "created_at", "expires_after[seconds]": "soon"},
            "expires_after.seconds",
            "integer",
        ),
    ],
)
def test_bad_fields_are_refused_by_name(
    server: ServerProcess, fields: dict[str, Any], param: str, message: str
) -> None:
    given = fields if param in {"purpose"} else {"purpose": "vision", **fields}

    reply = bring(server, **given)

    error = reply.error()
    assert (reply.status, error["param"]) == (400, param)
    assert message in error["message"]


def test_form_without_a_file_is_refused_by_name(server: ServerProcess) -> None:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nvision\r\n'

    reply = ask(server, "POST", "/v1/files", f"{head}--{BOUNDARY}--\r\n".encode(), TYPE)

    assert (reply.status, reply.error()["param"]) == (400, "file")


def test_what_is_no_form_is_refused(server: ServerProcess) -> None:
    reply = ask(server, "POST", "/v1/files", {"purpose": "vision"})

    assert reply.status == 400
    assert "multipart/form-data" in reply.error()["message"]


def test_file_in_another_part_is_refused(server: ServerProcess) -> None:
    reply = bring(server, name="document", purpose="vision")

    assert (reply.status, reply.error()["param"]) == (400, "file")


def test_empty_file_is_refused(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="empty") as refused:
        keep(client, b"")

    assert (refused.value.param, refused.value.code) == ("file", "empty_file")


@pytest.mark.parametrize("purpose", ["batch", "fine-tune"])
@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", LINES, ".jsonl"),
        ("a.jsonl", LINES + b"no\n" + LINES, "line 3 is not valid JSON"),
        ("a.jsonl", LINES + b"[]\n", "line 3 is not a JSON object"),
        ("a.jsonl", b'{"a": "\xff"}', "line 1"),
        ("a.jsonl", b"\n\n", "no line"),
    ],
)
def test_file_that_is_not_what_its_purpose_needs_is_refused(
    mine: OpenAI, purpose: Any, name: str, data: bytes, message: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=message) as refused:
        mine.files.create(file=(name, data), purpose=purpose)

    assert refused.value.param == "file"
    assert list(mine.files.list()) == []


def test_file_over_the_limit_is_refused_and_one_below_is_not(mine: OpenAI) -> None:
    with pytest.raises(openai.APIStatusError, match="1 MB") as refused:
        keep(mine, b"x" * 1_000_001)
    with pytest.raises(openai.APIStatusError, match="10000 bytes") as too_large_for_a_batch:
        keep(mine, b"{}\n" * 4000, "a.jsonl", purpose="batch")

    assert (refused.value.status_code, too_large_for_a_batch.value.status_code) == (413, 413)
    keep(mine, b"x" * 1_000_000)  # which is over the limit on bodies
    assert len(list(mine.files.list())) == 1


def test_account_that_is_full_makes_room_by_deleting(mine: OpenAI) -> None:
    first, _ = keep(mine, b"x" * 1_000_000), keep(mine, b"x" * 1_000_000)

    with pytest.raises(openai.APIStatusError) as refused:
        keep(mine, b"x" * 1_000_000)
    assert (refused.value.status_code, refused.value.code) == (413, "storage_limit_exceeded")
    mine.files.delete(first)
    keep(mine, b"x" * 1_000_000)


def test_one_of_many_who_delete_at_once_succeeds(client: OpenAI, server: ServerProcess) -> None:
    path = f"/v1/files/{keep(client)}"

    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: ask(server, "DELETE", path), range(8)))

    assert sorted(reply.status for reply in replies) == [200, *[404] * 7]


def test_client_that_leaves_in_the_middle_leaves_nothing(
    file_server: ServerProcess, mine: OpenAI
) -> None:
    blobs = file_server.settings.folder / "blobs" / "files"
    before = set(blobs.glob("*"))
    body = form_bytes({"purpose": "user_data"}, b"x" * 500_000)
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Type: {TYPE['Content-Type']}\r\n"
        f"Authorization: Bearer {mine.api_key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    for sent in (0, 100, 300_000, len(body) - 5):
        with connected(file_server) as connection:
            connection.sendall(head.encode() + body[:sent])
            reset(connection)

    kept = keep(mine)  # its place among those that may come at once is free
    assert [each.id for each in mine.files.list()] == [kept]
    uploads = file_server.settings.folder / "uploads"
    wait_until(lambda: not list(uploads.iterdir()), what="nothing left of the forms")
    assert {path.name for path in set(blobs.glob("*")) - before} == {kept}


def test_client_that_stops_reading_in_the_middle_harms_nobody(
    client: OpenAI, server: ServerProcess
) -> None:
    file_id = keep(client, b"x" * 30_000_000)
    with connected(server) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        head = f"GET /v1/files/{file_id}/content HTTP/1.1\r\nHost: localhost\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(1000)
        reset(connection)

    assert len(client.files.content(file_id).read()) == 30_000_000


def test_content_that_is_deleted_while_it_is_read_is_cut(
    client: OpenAI, server: ServerProcess
) -> None:
    size = 60_000_000
    file_id = keep(client, b"x" * size)
    with connected(server) as connection:
        head = f"GET /v1/files/{file_id}/content HTTP/1.1\r\nHost: localhost\r\n\r\n"
        connection.sendall(head.encode())
        first = connection.recv(1000)
        client.files.delete(file_id)
        rest = read_to_end(connection)

    assert f"content-length: {size}".encode() in first
    assert len(rest) < size


async def test_many_files_at_once_are_all_kept(server_url: str) -> None:
    async with open_async_client(server_url) as client:
        datas = [bytes([number]) * (1000 * number + 1) for number in range(20)]
        files = await asyncio.gather(
            *(client.files.create(file=("a", data), purpose="user_data") for data in datas)
        )
        contents = await asyncio.gather(*(client.files.content(file.id) for file in files))

    assert [content.content for content in contents] == datas
    assert len({file.id for file in files}) == 20


def test_large_file_does_not_lie_in_memory(server: ServerProcess, client: OpenAI) -> None:
    keep(client, b"x" * 1_000_000)  # what the first one loads is not counted
    before = peak_kib(server)

    def read_chunks() -> Iterator[bytes]:
        body = form_bytes({"purpose": "user_data"}, b"")
        end = body.rindex(b"\r\n--")
        yield body[:end]
        for _ in range(200):
            yield bytes(1_000_000)
        yield body[end:]

    answer = httpx2.post(f"{server.url}/v1/files", content=read_chunks(), headers=TYPE, timeout=60)
    size = 0
    with httpx2.stream("GET", f"{server.url}/v1/files/{answer.json()['id']}/content") as content:
        for piece in content.iter_bytes():
            size += len(piece)

    assert size == 200_000_000
    assert peak_kib(server) - before < 100_000


def peak_kib(server: ServerProcess) -> int:
    """The most memory that the server has had so far."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1])


def test_expired_files_and_forgotten_uploads_are_swept(
    start_server: Callable[[dict[str, Any]], ServerProcess],
    client_for: ClientFor,
) -> None:
    server = start_server({"files.sweep_every_s": 0.1, "files.upload_ttl_s": 1})
    client = client_for(server)
    upload = client.uploads.create(
        bytes=5, filename="a", mime_type="text/plain", purpose="user_data"
    )
    client.uploads.parts.create(upload.id, data=b"hello")
    parts = server.settings.folder / "blobs" / "uploads"

    wait_until(lambda: not list(parts.glob("*")), what="no parts left")

    with pytest.raises(openai.BadRequestError, match="is expired"):
        client.uploads.complete(upload.id, part_ids=[])


def test_sweep_takes_orphans_and_what_a_killed_server_left(
    start_server: Callable[[dict[str, Any]], ServerProcess], client_for: ClientFor
) -> None:
    server = start_server({"files.orphan_after_s": 2.0})
    kept = keep(client_for(server))
    folder = server.settings.folder / "blobs" / "files"
    for name in ("file-orphan", "file-unfinished#1"):
        (folder / name).write_bytes(b"x")

    wait_until(lambda: len(list(folder.iterdir())) == 1, what="no orphans left")

    assert client_for(server).files.content(kept).read() == b"hello"
