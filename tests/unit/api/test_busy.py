from __future__ import annotations

import asyncio
import json

from starlette.types import Message, Receive, Scope, Send

from openworks.api.busy import BusyGuard, UnderWay
from tests.fakes import CountingIds


async def never() -> Message:
    raise AssertionError("nothing is received here")


async def ask(guard: BusyGuard, path: str = "/v1/models") -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await guard({"type": "http", "path": path}, never, send)
    return sent


async def test_request_over_the_limit_is_told_and_the_next_one_is_served() -> None:
    gate = asyncio.Event()
    served = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal served
        await gate.wait()
        served += 1

    guard = BusyGuard(app, under_way=UnderWay(2), new_id=CountingIds())
    waiting = [asyncio.create_task(ask(guard)) for _ in range(2)]
    await asyncio.sleep(0)
    start, body = await ask(guard)
    assert start["status"] == 503
    assert (b"retry-after", b"1") in start["headers"]
    assert (b"x-request-id", b"req_1") in start["headers"]
    assert json.loads(body["body"])["error"]["code"] == "server_overloaded"
    gate.set()
    await asyncio.gather(*waiting)
    await ask(guard)
    assert served == 3


async def test_request_that_fails_makes_room_again() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError

    guard = BusyGuard(app, under_way=UnderWay(1), new_id=CountingIds())
    for _ in range(3):
        try:
            await ask(guard)
        except ValueError:
            continue
        raise AssertionError("the guard answered instead of the application")


def test_limit_is_one_for_all_ways_in() -> None:
    under_way = UnderWay(2)
    for is_full, is_over in ((False, False), (True, False), (True, True)):
        under_way.count(1)
        assert (under_way.is_full, under_way.is_over) == (is_full, is_over)
    under_way.count(-1)
    assert not under_way.is_over
    assert "2 requests" in under_way.error().message
    assert under_way.error().retry_after_s == 1.0


async def test_requests_of_the_short_way_count_too() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("there is no room")

    under_way = UnderWay(1)
    under_way.count(1)
    start, _ = await ask(BusyGuard(app, under_way, CountingIds()))
    assert start["status"] == 503
    assert not under_way.is_over


async def test_refusal_is_told_as_the_paths_own_errors_are() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("there is no room")

    guard = BusyGuard(app, UnderWay(0), CountingIds())
    _, body = await ask(guard, "/client/v4/accounts/acme/ai-gateway/gateways")
    assert json.loads(body["body"])["success"] is False
