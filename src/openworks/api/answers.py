"""What a handler may answer with, and how it is sent."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import TypeAlias

import orjson
from starlette.responses import Response
from starlette.types import Message, Scope, Send

from openworks.core.errors import AppError, InternalError
from openworks.core.json import JsonObject
from openworks.wire import sse
from openworks.wire.openai.errors import error_body

log = logging.getLogger(__name__)

_EVENT_HEADERS = [
    (b"content-type", sse.CONTENT_TYPE.encode()),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Json:
    """An answer that is one JSON document."""

    def __init__(
        self,
        body: JsonObject,
        *,
        status: int = 200,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        self.body = body
        self.status = status
        self.headers = headers


class Events:
    """An answer that is a stream of encoded events; ends with a typed event if it fails."""

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        self.events = events


Answer: TypeAlias = Json | Events | Response


async def send_answer(answer: Answer, scope: Scope, request_id: str, send: Send) -> None:
    """Send an answer.

    Raises:
        AppError: A stream failed before its first event: nothing has been sent.
    """
    match answer:
        case Json(body=body, status=status, headers=headers):
            await _send_json(send, status, body, headers)
        case Events(events=events):
            async with aclosing(events):
                # The first event decides the status: before it, an error has one of its own.
                first = await anext(events)
                await send(
                    {"type": "http.response.start", "status": 200, "headers": _EVENT_HEADERS}
                )
                await send({"type": "http.response.body", "body": first, "more_body": True})
                last = await _send_rest(events, request_id, send)
                await send({"type": "http.response.body", "body": last, "more_body": False})
        case response:
            await response(scope, _nothing_more, send)


async def _send_rest(events: AsyncGenerator[bytes, None], request_id: str, send: Send) -> bytes:
    """Send events to the end; return the event that tells of a failure, or nothing."""
    try:
        async for event in events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
    except AppError as error:
        return sse.event(error_body(error))
    except Exception:
        log.exception("stream.failed")
        return sse.event(error_body(unexpected(request_id)))
    return b""


async def send_error(
    send: Send,
    error: AppError,
    headers: Sequence[tuple[bytes, bytes]] = (),
    *,
    body: Callable[[AppError], JsonObject] = error_body,
) -> None:
    """Answer with an error; `body` gives it the shape of a dialect."""
    extra = [*headers]
    if error.retry_after_s is not None:
        extra.append((b"retry-after", str(max(1, round(error.retry_after_s))).encode()))
    if error.status == 401:
        extra.append((b"www-authenticate", b"Bearer"))
    await _send_json(send, error.status, body(error), extra)


def denying(send: Send) -> Send:
    """Return a `send` for plain HTTP answers to a request for a WebSocket, before it is one."""

    async def deny(message: Message) -> None:
        await send({**message, "type": f"websocket.{message['type']}"})

    return deny


def unexpected(request_id: str) -> InternalError:
    """A fault of ours, without its details."""
    return InternalError(
        f"The server had an error while processing your request; its log has the details under "
        f"{request_id}."
    )


async def _send_json(
    send: Send, status: int, body: JsonObject, extra: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    data = orjson.dumps(body)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(data)).encode()),
        *extra,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})


async def _nothing_more() -> Message:
    return {"type": "http.disconnect"}
