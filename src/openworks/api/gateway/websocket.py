"""WebSockets of the data plane: many universal requests over one connection, told by `eventId`.

Messages: https://developers.cloudflare.com/ai-gateway/usage/websockets-api/non-realtime-api/. Ours
alone are `metadata.status`, the HTTP status of the answer, and `universal.error`, for what is no
request and for streams that break off where their own shape has no place for an error.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Final

import msgspec
import orjson
from starlette.types import Receive, Scope, Send

from openworks.api.answers import denying
from openworks.api.body import BodyBudget
from openworks.api.busy import UnderWay
from openworks.api.context import Services
from openworks.api.gateway.opening import open_gateway
from openworks.api.gateway.paths import read_target
from openworks.api.gateway.realtime import serve_realtime
from openworks.api.gateway.relayed import send_gateway_answer
from openworks.core.errors import (
    AppError,
    ConflictError,
    InternalError,
    InvalidRequestError,
    NotFoundError,
    RateLimitError,
)
from openworks.core.json import JsonObject, JsonValue
from openworks.gateway.compat.read import MalformedAnswer, unreadable
from openworks.gateway.compat.sse import EventData
from openworks.gateway.messages import JSON_HEADER, GatewayAnswer, GatewayRequest
from openworks.gateway.plane import refusal
from openworks.gateway.providers.base import AUTH_HEADERS
from openworks.ports.upstream import Headers
from openworks.wire.cloudflare.gateway_errors import number_of

log = logging.getLogger(__name__)

MAX_AT_ONCE: Final = 64
"""Requests under way on one socket; a further one gets an error, and the others go on."""
IDLE_S: Final = 600.0
"""A socket without any request for so long is closed."""
SECRET_PREFIX: Final = "cf-aig-authorization."
"""Begins the subprotocol in which a browser, which cannot set headers, shows its secret."""

_MAX_EVENT_ID: Final = 1024
_Event = str | int | None


class _Create(msgspec.Struct):
    type: str
    request: msgspec.Raw


class _Named(msgspec.Struct):
    eventId: _Event = None  # noqa: N815  the wire's name


_create = msgspec.json.Decoder(_Create)
_named = msgspec.json.Decoder(_Named | list[_Named])


class Sockets:
    """Answers requests for a WebSocket below `/gateway/v1`."""

    def __init__(
        self, services: Services, budget: BodyBudget, under_way: UnderWay, *, idle_s: float = IDLE_S
    ) -> None:
        self._services = services
        self._budget = budget
        self._under_way = under_way
        self._idle_s = idle_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = scope["query_string"]
        request = read_target(
            b"GET", scope["raw_path"] + (b"?" + query if query else b""), _headers(scope)
        )
        await receive()  # websocket.connect
        try:
            if request is None:
                raise NotFoundError(
                    f"A gateway's WebSocket is at /gateway/v1/ACCOUNT/GATEWAY, not at "
                    f"{scope['path']!r:.120}.",
                    code="unknown_url",
                )
            opened = await open_gateway(self._services, request)
        except AppError as error:
            await send_gateway_answer(refusal(error), denying(send))
            return
        if request.provider:
            await serve_realtime(self._services, request, opened, scope, receive, send)
            return
        offered: list[str] = scope["subprotocols"]
        await send({"type": "websocket.accept", "subprotocol": chosen(offered)})
        socket = _Socket(self._services, self._budget, self._under_way, request, send)
        await socket.serve(receive, self._idle_s)


def chosen(offered: list[str]) -> str | None:
    """Return the subprotocol to accept: a browser that offered some insists on one of them."""
    return next((each for each in offered if "." not in each), offered[0] if offered else None)


def _headers(scope: Scope) -> Headers:
    headers: Headers = list(scope["headers"])
    if not any(name == b"cf-aig-authorization" for name, _ in headers):
        for offered in scope["subprotocols"]:
            if offered.startswith(SECRET_PREFIX):
                secret = offered.removeprefix(SECRET_PREFIX).encode()
                headers.append((b"cf-aig-authorization", b"Bearer " + secret))
                break
    return headers


class _Socket:
    """One connection, and the requests that are under way on it."""

    def __init__(
        self,
        services: Services,
        budget: BodyBudget,
        under_way: UnderWay,
        handshake: GatewayRequest,
        send: Send,
    ) -> None:
        """Take an accepted socket.

        Args:
            services: Have the data plane.
            budget: For the bodies of all requests.
            under_way: The requests of either way.
            handshake: Its `cf-aig-*` and auth headers hold for every request.
            send: Of the socket.
        """
        kept = [
            (name, value)
            for name, value in handshake.headers
            if name.startswith(b"cf-") or name in AUTH_HEADERS
        ]
        self._base = replace(handshake, method=b"POST", headers=[*kept, JSON_HEADER])
        self._services = services
        self._budget = budget
        self._under_way = under_way
        self._send = send
        self._tasks: set[asyncio.Task[None]] = set()
        self._events: set[_Event] = set()

    async def serve(self, receive: Receive, idle_s: float) -> None:
        """Take requests until the socket closes, which ends those that are under way."""
        try:
            while True:
                try:
                    async with asyncio.timeout(idle_s):
                        message = await receive()
                except TimeoutError:
                    if self._tasks:
                        continue
                    await self._send({"type": "websocket.close", "code": 1000, "reason": "idle"})
                    return
                if message["type"] != "websocket.receive":
                    return
                text = message.get("text")
                await self._take(message["bytes"] if text is None else text.encode())
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, data: bytes) -> None:
        event: _Event = None
        try:
            event, body = _read(data)
            if event is not None and event in self._events:
                raise ConflictError(f"A request with the eventId {event!r:.80} is under way.")
            if len(self._tasks) >= MAX_AT_ONCE:
                raise RateLimitError(
                    f"{MAX_AT_ONCE} requests are under way on this socket.",
                    code="concurrency_limit_exceeded",
                )
            self._start(event, body)
        except AppError as error:
            await self._tell_error(event, error)

    def _start(self, event: _Event, body: bytes) -> None:
        if self._under_way.is_full:
            raise self._under_way.error()
        self._budget.take(len(body))
        self._under_way.count(1)
        self._events.add(event)
        headers = self._base.headers
        if event is not None:
            headers = [*headers, (b"cf-aig-event-id", str(event).encode())]
        request = replace(self._base, headers=headers, body=body)
        task = asyncio.create_task(self._serve(event, request))
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._events.discard(event)
            self._under_way.count(-1)
            self._budget.give_back(len(body))

        task.add_done_callback(ended)

    async def _serve(self, event: _Event, request: GatewayRequest) -> None:
        try:
            begun = self._services.plane.begin(request)
            answer = begun if isinstance(begun, GatewayAnswer) else await begun.run()
            await self._tell(event, answer)
        except OSError:
            pass  # the client has left, which `serve` learns too
        except AppError as error:
            await self._tell_error(event, error)
        except Exception:
            # The boundary of one request: it fails alone, and the log has the details.
            log.exception("request.failed", extra={"route": request.route})
            fault = InternalError("The gateway had an error while processing your request.")
            await self._tell_error(event, fault)

    async def _tell(self, event: _Event, answer: GatewayAnswer) -> None:
        metadata, kind = _metadata(event, answer)
        created: JsonObject = {"type": "universal.created", "metadata": metadata}
        if answer.body is not None:
            response = _shown(answer.body, kind)
            await self._send_text(orjson.dumps(created)[:-1] + b',"response":' + response + b"}")
            return
        chunks = answer.chunks
        assert chunks is not None
        about = b"{}" if event is None else orjson.dumps({"eventId": event})
        before = b'{"type":"universal.stream","metadata":' + about + b',"response":'
        async with aclosing(chunks):
            await self._send_text(orjson.dumps(created))
            async for piece in _cut(chunks, kind):
                await self._send_text(before + piece + b"}")
        await self._send_text(orjson.dumps({"type": "universal.done", "metadata": metadata}))

    async def _tell_error(self, event: _Event, error: AppError) -> None:
        about: JsonObject = {} if event is None else {"eventId": event}
        said: JsonObject = {"code": number_of(error), "message": error.message}
        told: JsonObject = {
            "type": "universal.error",
            "metadata": {**about, "status": error.status},
            "error": said,
        }
        await self._send_text(orjson.dumps(told))

    async def _send_text(self, data: bytes) -> None:
        """Send a message; a client that reads slowly holds up the provider's stream with it."""
        await self._send({"type": "websocket.send", "text": data.decode()})


def _read(data: bytes) -> tuple[_Event, bytes]:
    """Return a request's id and its body.

    Raises:
        InvalidRequestError: The message is none.
    """
    try:
        message = _create.decode(data)
        named = _named.decode(message.request)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidRequestError(
            f'A message must be {{"type": "universal.create", "request": {{eventId, provider, '
            f"endpoint, headers, query}}}}: {exc}.",
            code="invalid_json",
        ) from None
    if message.type != "universal.create":
        raise InvalidRequestError(f"type must be universal.create, got {message.type!r:.80}.")
    event = (
        next((each.eventId for each in named), None) if isinstance(named, list) else (named.eventId)
    )
    if isinstance(event, str) and (len(event) > _MAX_EVENT_ID or not event.isprintable()):
        raise InvalidRequestError(
            f"eventId must be printable text of at most {_MAX_EVENT_ID} characters.",
            param="eventId",
        )
    return event, bytes(message.request)


def _metadata(event: _Event, answer: GatewayAnswer) -> tuple[JsonObject, str]:
    """Return an answer's metadata, and its content type without parameters."""
    found = dict(answer.headers)
    kind = found.get(b"content-type", b"").partition(b";")[0].strip().decode("latin-1").lower()
    metadata: JsonObject = {
        "cacheStatus": found.get(b"cf-aig-cache-status", b"MISS").decode(),
        "eventId": event,
        "logId": found.get(b"cf-aig-log-id", b"").decode(),
        "step": found.get(b"cf-aig-step", b"0").decode(),
        "contentType": kind,
        "status": answer.status,
    }
    return metadata, kind


def _shown(body: bytes, kind: str) -> bytes:
    """Return a body as a JSON value: itself, a text, or base64 of what is neither."""
    if kind.endswith("json"):
        try:
            orjson.loads(body)
        except orjson.JSONDecodeError:
            pass
        else:
            return body.strip()
    try:
        value: JsonValue = body.decode()
    except UnicodeDecodeError:
        value = base64.b64encode(body).decode()
    return orjson.dumps(value)


def _cut(chunks: AsyncGenerator[bytes, None], kind: str) -> AsyncGenerator[bytes, None]:
    """Yield a stream's pieces, each as a JSON value.

    Raises:
        ProviderError: An event has no end.
        UpstreamError: The stream broke off.
    """
    if kind == "text/event-stream":
        return _events(chunks)
    if kind in ("application/x-ndjson", "application/stream+json"):
        return _lines(chunks)
    return _pieces(chunks, kind)


async def _events(chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    events = EventData()
    try:
        async for chunk in chunks:
            for data in events.feed(chunk):
                if data != b"[DONE]":
                    yield _shown(data, "json")
        for data in events.feed(b"\n\n"):  # a last event whose blank line is missing
            if data != b"[DONE]":
                yield _shown(data, "json")
    except MalformedAnswer as error:
        raise unreadable("The provider", error) from error


async def _lines(chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield _shown(line, "json")
    if rest.strip():
        yield _shown(rest, "json")


async def _pieces(chunks: AsyncGenerator[bytes, None], kind: str) -> AsyncGenerator[bytes, None]:
    async for chunk in chunks:
        yield _shown(chunk, kind)
