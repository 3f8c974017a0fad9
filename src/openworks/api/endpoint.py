"""The frame around every handler: who asks, how long it took, what went wrong, who left."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from typing import TypeAlias

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from openworks.api.body import BodyLimits, read_body
from openworks.api.context import Context, Services
from openworks.core.errors import (
    AppError,
    ClientClosedRequestError,
    InternalError,
    PermissionDeniedError,
)
from openworks.core.ids import RequestId
from openworks.core.json import JsonObject
from openworks.ports.calls import Principal
from openworks.ports.calls import Scope as KeyScope
from openworks.services.keys import DEFAULT_ACCOUNT
from openworks.wire import sse
from openworks.wire.openai.errors import error_body

log = logging.getLogger(__name__)

current_request_id: contextvars.ContextVar[str | None] = contextvars.ContextVar(
    "request_id", default=None
)


class Json:
    """An answer that is one JSON document."""

    def __init__(self, body: JsonObject, *, status: int = 200) -> None:
        self.body = body
        self.status = status


class Events:
    """An answer that is a stream of encoded events; ends with a typed event if it fails."""

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        self.events = events


Answer: TypeAlias = Json | Events | Response
Handler: TypeAlias = Callable[[Context], Awaitable[Answer]]


class Endpoint:
    """An ASGI application around one handler."""

    def __init__(
        self,
        handler: Handler,
        services: Services,
        limits: BodyLimits,
        *,
        route: str,
        scope: KeyScope | None = "inference",
    ) -> None:
        """Wrap a handler.

        Args:
            handler: Answers, or raises an `AppError`.
            services: Handed to the handler.
            limits: For the body.
            route: The path template, for records.
            scope: What a key must be good for; None lets everybody in.
        """
        self._handler = handler
        self._services = services
        self._limits = limits
        self._route = route
        self._scope = scope

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = RequestId(self._services.new_id("req_"))
        current_request_id.set(request_id)
        started_s = self._services.clock.monotonic_s()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                took_ms = (self._services.clock.monotonic_s() - started_s) * 1000
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                    (b"openai-processing-ms", str(round(took_ms)).encode()),
                    (b"openai-version", b"2020-10-01"),
                ]
            await send(message)

        try:
            body = await read_body(scope, receive, self._limits)
        except ClientClosedRequestError:
            return
        except AppError as error:
            await send_error(send_with_headers, error)
            return
        work = asyncio.create_task(self._work(scope, body, request_id, send_with_headers))
        leaving = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({work, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Also when the server itself is stopping: nothing runs on without an owner.
            leaving.cancel()
            if not work.done():
                work.cancel()
            with suppress(asyncio.CancelledError):
                await work

    async def _work(self, scope: Scope, body: bytes, request_id: RequestId, send: Send) -> None:
        try:
            answer = await self._answer(Request(scope), body, request_id)
        except AppError as error:
            await send_error(send, error)
        except Exception:
            # The boundary of one request: it fails alone, and the log has the details.
            log.exception("request.failed", extra={"route": self._route})
            await send_error(send, _unexpected(request_id))
        else:
            await self._send(answer, scope, request_id, send)

    async def _answer(self, request: Request, body: bytes, request_id: RequestId) -> Answer:
        principal = await self._authenticate(request)
        return await self._handler(
            Context(
                services=self._services,
                request=request,
                request_id=request_id,
                principal=principal,
                route=self._route,
                body=body,
            )
        )

    async def _authenticate(self, request: Request) -> Principal:
        if self._scope is None:
            return Principal(account_id=DEFAULT_ACCOUNT, scopes=frozenset())
        secret = bearer(request.headers.get("authorization"))
        principal = await self._services.keys.authenticate(secret)
        if self._scope not in principal.scopes:
            raise PermissionDeniedError(
                f"This key lacks the scope {self._scope!r} that {self._route} needs."
            )
        return principal

    async def _send(self, answer: Answer, scope: Scope, request_id: RequestId, send: Send) -> None:
        match answer:
            case Json(body=body, status=status):
                await _send_json(send, status, body)
            case Events(events=events):
                await self._send_events(events, request_id, send)
            case response:
                await response(scope, _nothing_more, send)

    async def _send_events(
        self, events: AsyncGenerator[bytes, None], request_id: RequestId, send: Send
    ) -> None:
        async with aclosing(events):
            # The first event decides the status: until it is there, an error has one of its own.
            try:
                first = await anext(events)
            except AppError as error:
                await send_error(send, error)
                return
            headers = [
                (b"content-type", sse.CONTENT_TYPE.encode()),
                (b"cache-control", b"no-cache"),
                (b"x-accel-buffering", b"no"),
            ]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": first, "more_body": True})
            try:
                async for event in events:
                    await send({"type": "http.response.body", "body": event, "more_body": True})
            except AppError as error:
                last = sse.event(error_body(error))
            except Exception:
                log.exception("stream.failed", extra={"route": self._route})
                last = sse.event(error_body(_unexpected(request_id)))
            else:
                last = b""
            await send({"type": "http.response.body", "body": last, "more_body": False})


def bearer(header: str | None) -> str | None:
    """Return the secret of an `Authorization: Bearer` header."""
    scheme, _, secret = (header or "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" and secret.strip() else None


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _nothing_more() -> Message:
    return {"type": "http.disconnect"}


async def send_error(
    send: Send, error: AppError, headers: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """Answer with an error in OpenAI's shape."""
    extra = [*headers]
    if error.retry_after_s is not None:
        extra.append((b"retry-after", str(max(1, round(error.retry_after_s))).encode()))
    if error.status == 401:
        extra.append((b"www-authenticate", b"Bearer"))
    if error.status in {408, 413}:
        extra.append((b"connection", b"close"))  # the rest of the body is not wanted
    await _send_json(send, error.status, error_body(error), extra)


async def _send_json(
    send: Send, status: int, body: JsonObject, extra: list[tuple[bytes, bytes]] | None = None
) -> None:
    data = orjson.dumps(body)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(data)).encode()),
        *(extra or ()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})


def _unexpected(request_id: str) -> InternalError:
    return InternalError(
        f"The server had an error while processing your request; its log has the details under "
        f"{request_id}."
    )
