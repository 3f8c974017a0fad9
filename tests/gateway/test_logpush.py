"""Logs arrive in the object store, each once, whatever happens in between; and only owners read."""

from __future__ import annotations

import gzip
import json
from base64 import b64decode
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from openworks.core.errors import StorageError
from openworks.core.ids import AccountId, RequestId
from openworks.ports.calls import CallBodies, CallRecord, Usage
from openworks.ports.documents import AuditEntry, Document
from openworks.ports.logbook import Entry
from openworks.ports.logs import LogQuery
from openworks.services import logpush
from openworks.services.logpush import LogPush
from openworks.storage.blobs.store import ObjectBlobs
from openworks.storage.sql.database import Database, DatabaseConfig
from openworks.storage.sql.document_scan import SqlDocumentScan
from openworks.storage.sql.documents import SqlDocumentStore
from tests.gateway.gateway_server import GatewayServer
from tests.gateway.stand_in import StandIn
from tests.logbooks import Logbooks, open_logbooks
from tests.server import wait_until

NOON_S = 1_790_078_400.0  # 2026-09-22 12:00 UTC
ACCOUNT = AccountId("acct")
CALL = CallRecord(
    id=RequestId("log"),
    created_at_s=NOON_S,
    account_id=ACCOUNT,
    key_id=None,
    route="/r",
    model="gpt-4o-mini",
    deployment=None,
    stream=False,
    usage=Usage(prompt_tokens=10, completion_tokens=5),
    cost_usd=0.25,
    first_token_ms=100.0,
    duration_ms=400.0,
    outcome="ok",
    status=200,
    gateway_id="gw",
    provider="openai",
    endpoint="chat/completions",
    metadata={"team": "blue"},
)


class BreakingBlobs:
    """Blobs that fail when they are told to."""

    def __init__(self, inner: ObjectBlobs) -> None:
        self.inner = inner
        self.puts_left: int | None = None

    async def put(self, name: str, data: bytes) -> None:
        if self.puts_left is not None:
            if self.puts_left == 0:
                raise StorageError("The store is away.")
            self.puts_left -= 1
        await self.inner.put(name, data)

    async def put_file(self, name: str, file: BinaryIO) -> None:
        await self.inner.put_file(name, file)

    async def put_stream(self, name: str, pieces: AsyncIterator[bytes]) -> None:
        await self.inner.put_stream(name, pieces)

    async def get(self, name: str) -> bytes | None:
        return await self.inner.get(name)

    async def get_file(self, name: str, path: Path) -> bool:
        return await self.inner.get_file(name, path)

    async def get_range(self, name: str, *, start: int, length: int) -> bytes | None:
        return await self.inner.get_range(name, start=start, length=length)

    async def delete(self, name: str) -> None:
        await self.inner.delete(name)

    async def list(self, prefix: str) -> AsyncIterator[str]:
        async for name in self.inner.list(prefix):
            yield name

    async def list_older(self, prefix: str, *, before_s: float) -> AsyncIterator[str]:
        async for name in self.inner.list_older(prefix, before_s=before_s):
            yield name

    async def remove_unfinished(self, prefix: str, *, before_s: float) -> int:
        return await self.inner.remove_unfinished(prefix, before_s=before_s)


@dataclass(slots=True)
class World:
    """A database with calls, and two places for blobs."""

    books: Logbooks
    documents: SqlDocumentStore
    marks: BreakingBlobs
    destination: BreakingBlobs
    pushes: list[LogPush]

    def start(self) -> LogPush:
        """Make what a new process makes."""
        push = LogPush(
            SqlDocumentScan(self.books.database),
            self.books.logs,
            self.marks,
            self.destination,
            written=self.nothing_waits,
            clock=self.books.clock,
            interval_s=60,
        )
        self.pushes.append(push)
        return push

    async def nothing_waits(self) -> None:
        return

    async def make_gateway(self, name: str = "gw", **fields: Any) -> None:
        body = {"logpush": True, "logpush_public_key": None, **fields}
        document = Document(
            kind="gateway",
            account_id=ACCOUNT,
            parent="",
            id=name,
            body=body,
            created_at_s=NOON_S,
            modified_at_s=NOON_S,
        )
        entry = AuditEntry(
            at_s=NOON_S,
            account_id=ACCOUNT,
            actor="test",
            action="create",
            kind="gateway",
            target=name,
        )
        await self.documents.insert(document, entry)

    async def call(self, number: int, **changes: Any) -> None:
        """Write a call down that began `number` seconds after noon."""
        record = msgspec.structs.replace(
            CALL, **{"id": f"log-{number}", "created_at_s": NOON_S + number, **changes}
        )
        bodies = CallBodies(request=b'{"q":%d}' % number, response=b"\xffanswer")
        await self.books.write([Entry(record=record, bodies=bodies)])

    async def names(self) -> list[str]:
        return sorted([name async for name in self.destination.list("acct")])

    async def lines(self) -> list[dict[str, Any]]:
        """Everything that was pushed, in the order of the objects' names."""
        found = []
        for name in await self.names():
            data = await self.destination.get(name)
            assert data is not None
            found += [json.loads(line) for line in gzip.decompress(data).splitlines()]
        return found

    async def ids(self) -> list[str]:
        return [line["ID"] for line in await self.lines()]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    database = Database(DatabaseConfig(url=f"sqlite:///{tmp_path / 'state.db'}"))
    await database.open()
    await database.migrate()
    async with open_logbooks(database, tmp_path, postgres_url=None, now_s=NOON_S) as books:
        made = World(
            books=books,
            documents=SqlDocumentStore(database),
            marks=BreakingBlobs(books.blobs),
            destination=BreakingBlobs(ObjectBlobs(str(tmp_path / "pushed"))),
            pushes=[],
        )
        yield made
        for push in made.pushes:
            await push.close()
    await database.close()


async def test_logs_are_pushed_once_their_window_is_over(world: World) -> None:
    await world.make_gateway()
    await world.call(10)
    await world.call(70)
    push = world.start()

    world.books.clock.advance(62)
    assert await push.run_all() == 0  # it has to settle
    world.books.clock.advance(5)
    assert await push.run_all() == 1
    assert await push.run_all() == 0
    assert await world.ids() == ["log-10"]
    world.books.clock.advance(60)
    assert await push.run_all() == 1

    assert await world.ids() == ["log-10", "log-70"]
    assert await world.names() == [
        "acct/gw/20260922/20260922T120000Z_20260922T120100Z_0000.log.gz",
        "acct/gw/20260922/20260922T120100Z_20260922T120200Z_0000.log.gz",
    ]
    line = (await world.lines())[0]
    assert (line["Gateway"], line["Model"], line["Provider"]) == ("gw", "gpt-4o-mini", "openai")
    assert (line["Endpoint"], line["Cached"]) == ("chat/completions", False)
    assert line["Metadata"] == {"team": "blue"}
    assert line["RequestBody"] == '{"q":10}'


async def test_call_belongs_to_the_window_in_which_it_ended(world: World) -> None:
    await world.make_gateway()
    push = world.start()
    world.books.clock.advance(66)
    await push.run_all()  # the first window is over, and the long call still runs
    await world.call(1, duration_ms=300_000.0)
    await world.call(2, duration_ms=70_000.0)

    world.books.clock.advance(600)
    await push.run_all()

    assert await world.ids() == ["log-2", "log-1"]


async def test_restart_neither_loses_nor_repeats(world: World) -> None:
    await world.make_gateway()
    for number in range(0, 240, 20):
        await world.call(number)
        world.books.clock.advance(20)
        await world.start().run_all()
    world.books.clock.advance(65)
    await world.start().run_all()

    assert await world.ids() == [f"log-{number}" for number in range(0, 240, 20)]


async def test_window_that_a_crash_interrupted_is_pushed_again_under_the_same_names(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logpush, "_PART_BYTES", 1)  # every log is an object
    await world.make_gateway()
    for number in range(5):
        await world.call(number)
    world.books.clock.advance(70)

    for puts in range(5):
        world.destination.puts_left = puts
        await world.start().run_all()
    world.destination.puts_left = None
    world.marks.puts_left = 0  # the objects are there, the mark is not
    await world.start().run_all()
    assert len(await world.ids()) == 5
    world.marks.puts_left = None
    await world.books.logs.delete(
        LogQuery(account_id=ACCOUNT, gateway_id="gw"), limit=2
    )  # fewer than last time
    await world.start().run_all()
    await world.start().run_all()

    assert await world.ids() == ["log-0", "log-1", "log-2"]


async def test_only_gateways_with_logpush_are_pushed(world: World) -> None:
    await world.make_gateway("gw", logpush=False)
    await world.make_gateway("other")
    await world.call(1)
    await world.call(2, gateway_id="other")
    world.books.clock.advance(120)
    await world.start().run_all()

    assert await world.ids() == ["log-2"]


def pem(key: Any) -> str:
    data: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return data.decode()


def opened(private_key: rsa.RSAPrivateKey, member: dict[str, str]) -> bytes:
    """Decrypt as the documentation of Cloudflare's says."""
    oaep = padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=None)
    key = private_key.decrypt(b64decode(member["key"]), oaep)
    return AESGCM(key).decrypt(b64decode(member["iv"]), b64decode(member["data"]), None)


async def test_what_was_said_is_for_the_holder_of_the_private_key(world: World) -> None:
    private_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    await world.make_gateway(logpush_public_key=pem(private_key))
    await world.call(1)
    await world.call(2)
    world.books.clock.advance(120)
    await world.start().run_all()
    first, second = await world.lines()

    assert opened(private_key, first["RequestBody"]) == b'{"q":1}'
    assert opened(private_key, first["ResponseBody"]) == b"\xffanswer"
    assert json.loads(opened(private_key, first["Metadata"])) == {"team": "blue"}
    assert first["RequestBody"]["key"] != second["RequestBody"]["key"]
    assert first["RequestBody"]["iv"] != first["ResponseBody"]["iv"]
    assert "blue" not in json.dumps(first)


@pytest.mark.parametrize("kind", ["text", "short", "curve"])
async def test_with_a_key_that_is_none_nothing_is_pushed_in_the_clear(
    world: World, kind: str
) -> None:
    keys = {
        "text": "-----BEGIN PUBLIC KEY-----\nno\n-----END PUBLIC KEY-----\n",
        "short": pem(rsa.generate_private_key(public_exponent=65537, key_size=1024)),
        "curve": pem(ec.generate_private_key(ec.SECP256R1())),
    }
    await world.make_gateway(logpush_public_key=keys[kind])
    await world.make_gateway("other")
    await world.call(1)
    await world.call(2, gateway_id="other")
    world.books.clock.advance(120)
    await world.start().run_all()

    assert await world.ids() == ["log-2"]


async def test_gateway_made_anew_does_not_push_what_was_before(world: World) -> None:
    await world.make_gateway()
    await world.call(1)
    world.books.clock.advance(120)
    await world.start().run_all()
    found = await world.documents.get("gateway", ACCOUNT, "", "gw")
    assert found is not None
    await world.call(130)
    entry = AuditEntry(
        at_s=0, account_id=ACCOUNT, actor="t", action="update", kind="gateway", target="gw"
    )
    await world.documents.replace(replace(found, created_at_s=NOON_S + 240), entry)
    world.books.clock.advance(240)
    await world.start().run_all()

    assert await world.ids() == ["log-1"]


def test_server_pushes_calls_of_its_gateways(provider: StandIn, tmp_path: Path) -> None:
    flags = {"gateway.logpush.destination": str(tmp_path / "out"), "gateway.logpush.interval_s": 10}
    server = GatewayServer(provider, tmp_path / "data", flags)
    try:
        server.control(
            "POST",
            "/gateways",
            {
                "id": "gw",
                "logpush": True,
                "cache_ttl": 0,
                "cache_invalidate_on_update": False,
                "collect_logs": True,
                "rate_limiting_interval": 0,
                "rate_limiting_limit": 0,
            },
        )
        answer = server.http.post(
            f"{server.url}/gateway/v1/default/gw/openai/chat/completions",
            json={"model": "mock", "messages": []},
            headers={"cf-aig-authorization": "Bearer owner-token-of-the-tests"},
        )
        folder = tmp_path / "out" / "default" / "gw"
        wait_until(lambda: any(folder.rglob("*.gz")), what="a pushed object")
        (file,) = folder.rglob("*.gz")
        (line,) = gzip.decompress(file.read_bytes()).splitlines()
    finally:
        server.stop()

    assert json.loads(line)["ID"] == answer.headers["cf-aig-log-id"]
