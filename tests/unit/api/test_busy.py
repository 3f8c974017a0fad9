from __future__ import annotations

import asyncio
import json

from starlette.types import Message, Receive, Scope, Send

from openworks.api.busy import BusyGuard
from tests.fakes import CountingIds


async def never() -> Message:
    raise AssertionError("nothing is received here")


async def ask(guard: BusyGuard) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await guard({"type": "http"}, never, send)
    return sent


async def test_request_over_the_limit_is_told_and_the_next_one_is_served() -> None:
    gate = asyncio.Event()
    served = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal served
        await gate.wait()
        served += 1

    guard = BusyGuard(app, limit=2, new_id=CountingIds())
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

    guard = BusyGuard(app, limit=1, new_id=CountingIds())
    for _ in range(3):
        try:
            await ask(guard)
        except ValueError:
            continue
        raise AssertionError("the guard answered instead of the application")
