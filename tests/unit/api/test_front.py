from __future__ import annotations

import json

import pytest
from starlette.types import Message

from openworks.api.body import BodyBudget, BodyLimits
from openworks.api.busy import UnderWay
from openworks.api.gateway.front import Front
from openworks.api.gateway.relayed import send_gateway_answer
from openworks.api.origins import is_trusted_host
from openworks.gateway.exchange import Exchange
from openworks.gateway.messages import GatewayAnswer
from openworks.gateway.plane import Opening
from openworks.ports.upstream import Headers
from openworks.services.keys import AccessConfig, Keys
from tests.fakes import CountingIds, FakeClock, MemoryKeyStore, events_of
from tests.unit.gateway.exchange_world import World, header, make_world

TARGET = b"/gateway/v1/acme/gw/openai/chat/completions"


def front_of(
    world: World,
    *,
    token: str | None = "open-sesame",
    limit: int = 2,
    total_bytes: int = 100,
    allowed: frozenset[str] = frozenset(),
) -> tuple[Front, UnderWay]:
    keys = Keys(
        MemoryKeyStore(), AccessConfig(token=token), clock=FakeClock(), new_id=CountingIds()
    )
    under_way = UnderWay(limit)
    front = Front(
        world.plane,
        keys,
        limits=BodyLimits(max_bytes=1 << 20, timeout_s=5.0),
        budget=BodyBudget(total_bytes),
        under_way=under_way,
        allowed_hosts=allowed,
    )
    return front, under_way


def can_read(front: Front, *headers: tuple[bytes, bytes], target: bytes = TARGET) -> bool:
    sent: Headers = [(b"host", b"evil.example"), *headers]
    return front.read(b"POST", target, sent) is not None


@pytest.fixture
def world() -> World:
    return make_world()


def number(answer: GatewayAnswer) -> int:
    found: int = json.loads(answer.body or b"")["httpCode"]
    return found


def test_plain_request_takes_the_short_way(world: World) -> None:
    front, _ = front_of(world)
    assert can_read(front)


@pytest.mark.parametrize("name", [b"origin", b"expect"])
def test_unusual_request_takes_the_long_way(world: World, name: bytes) -> None:
    front, _ = front_of(world)
    assert not can_read(front, (name, b"x"))


@pytest.mark.parametrize(
    "target",
    [b"/gateway/v1/acme/gw/run", b"/gateway/v1/acme", b"/gateway/v1/acme/gw/run/x"],
)
def test_what_is_more_or_less_than_one_exchange_takes_the_long_way(
    world: World, target: bytes
) -> None:
    front, _ = front_of(world)
    assert not can_read(front, target=target)


def test_open_server_leaves_strange_hosts_to_the_guard_of_origins(world: World) -> None:
    front, _ = front_of(world, token=None, allowed=frozenset({"box.lan"}))
    assert not can_read(front)
    for host in (b"localhost:8000", b"127.0.0.1", b"[::1]:80", b"box.lan:1"):
        assert front.read(b"POST", TARGET, [(b"host", host)]) is not None
    assert front.read(b"POST", TARGET, []) is None


def test_made_up_hosts_are_not_remembered_without_end(world: World) -> None:
    front, _ = front_of(world, token=None)
    for number in range(1200):
        assert front.read(b"POST", TARGET, [(b"host", b"h%d" % number)]) is None
    assert len(front._trusted) <= 1000


@pytest.mark.parametrize(
    ("host", "is_trusted"),
    [
        ("localhost", True),
        ("a.localhost:80", True),
        ("127.1.2.3", True),
        ("[::1]:8000", True),
        ("box.lan", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("[::1", False),
        ("", False),
        ("@localhost", True),
        ("localhost@evil.example", False),
    ],
)
def test_host_is_trusted_when_it_names_this_machine(host: str, is_trusted: bool) -> None:
    assert is_trusted_host(host, frozenset({"box.lan"})) is is_trusted


def test_request_over_the_limit_is_told_and_counted_until_it_has_ended(world: World) -> None:
    front, under_way = front_of(world, limit=1)
    begun = front.begin(world.request())
    assert isinstance(begun, Exchange)
    refused = front.begin(world.request())
    assert isinstance(refused, GatewayAnswer)
    assert number(refused) == 503
    assert header(refused, b"retry-after") == b"1"
    front.ended()
    assert not under_way.is_over
    begun.abandon()
    front.ended()
    assert not under_way.is_full


def test_caller_that_is_not_in_memory_is_asked_for(world: World) -> None:
    front, _ = front_of(world)
    world.callers.is_fresh = False
    assert isinstance(front.begin(world.request()), Opening)


def test_bodies_of_all_requests_have_a_bound(world: World) -> None:
    front, _ = front_of(world, total_bytes=10)
    assert front.take_body(8) is None
    refused = front.take_body(8)
    assert refused is not None
    assert number(refused) == 503
    front.give_back(8)
    assert front.take_body(8) is None


def test_faults_of_the_connection_are_told_as_the_gateways_own(world: World) -> None:
    front, _ = front_of(world)
    assert [number(each()) for each in (front.too_large, front.too_slow, front.failed)] == [
        413,
        408,
        500,
    ]
    assert "1 MiB" in json.loads(front.too_large().body or b"")["message"]
    assert "5 seconds" in json.loads(front.too_slow().body or b"")["message"]


async def test_client_that_leaves_before_the_head_of_a_stream_leaves_nothing_behind(
    world: World,
) -> None:
    world.provider.script[0] = events_of(b"{}", b"[DONE]")
    answer = await world.call()

    async def send(message: Message) -> None:
        raise OSError("the client has left")

    with pytest.raises(OSError, match="left"):
        await send_gateway_answer(answer, send)
    assert world.provider.open == 0
    assert world.record.outcome == "client_closed"
