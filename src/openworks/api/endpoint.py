"""The frame around every handler: who asks, how long it took, what went wrong, who left."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias

from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from openworks.api.answers import Answer, send_answer, send_error, unexpected
from openworks.api.body import BodyBudget, BodyLimits, read_body
from openworks.api.context import Context, Services
from openworks.api.dialects import OPENAI, Dialect
from openworks.core.errors import AppError, ClientClosedRequestError, PermissionDeniedError
from openworks.core.ids import RequestId
from openworks.ports.calls import Principal
from openworks.ports.calls import Scope as KeyScope
from openworks.services.keys import DEFAULT_ACCOUNT

log = logging.getLogger(__name__)

current_request_id: contextvars.ContextVar[str | None] = contextvars.ContextVar(
    "request_id", default=None
)

Handler: TypeAlias = Callable[[Context], Awaitable[Answer]]

_CLOSE = (b"connection", b"close")


class Endpoint:
    """An ASGI application around one handler."""

    def __init__(
        self,
        handler: Handler,
        services: Services,
        limits: BodyLimits,
        budget: BodyBudget,
        *,
        route: str,
        scope: KeyScope | None = "inference",
        dialect: Dialect = OPENAI,
    ) -> None:
        """Wrap a handler.

        Args:
            handler: Answers, or raises an `AppError`.
            services: Handed to the handler.
            limits: For one body.
            budget: For the bodies of all requests.
            route: The path template, for records.
            scope: What a key must be good for; None lets everybody in.
            dialect: How errors look, and where the key is.
        """
        self._handler = handler
        self._services = services
        self._limits = limits
        self._budget = budget
        self._route = route
        self._scope = scope
        self._dialect = dialect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = RequestId(self._services.new_id("req_"))
        current_request_id.set(request_id)
        started_s = self._services.clock.monotonic_s()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                    *self._dialect.headers,
                ]
                if (name := self._dialect.processing_header) is not None:
                    took_ms = (self._services.clock.monotonic_s() - started_s) * 1000
                    message["headers"].append((name, str(round(took_ms)).encode()))
            await send(message)

        request = Request(scope)
        try:
            principal = await self._authenticate(request)  # first: strangers send no bodies
            body = await read_body(scope, receive, self._limits, self._budget)
        except ClientClosedRequestError:
            return
        except AppError as error:
            # The body is not wanted.
            body_of = self._dialect.error_body
            await send_error(send_with_headers, error, [_CLOSE], body=body_of)
            return
        context = Context(
            services=self._services,
            request=request,
            request_id=request_id,
            principal=principal,
            route=self._route,
            body=body,
        )
        try:
            await until_left(self._work(context, scope, send_with_headers), receive)
        finally:
            self._budget.give_back(len(body))

    async def _work(self, context: Context, scope: Scope, send: Send) -> None:
        """Answer, or say what went wrong: also a stream fails here before its first event."""
        try:
            answer = await self._handler(context)
            await send_answer(answer, scope, context.request_id, send)
        except AppError as error:
            await send_error(send, error, body=self._dialect.error_body)
        except Exception:
            # The boundary of one request: it fails alone, and the log has the details.
            log.exception("request.failed", extra={"route": self._route})
            error_body = self._dialect.error_body
            await send_error(send, unexpected(context.request_id), body=error_body)

    async def _authenticate(self, request: Request) -> Principal:
        if self._scope is None:
            return Principal(account_id=DEFAULT_ACCOUNT, scopes=frozenset())
        secret = self._dialect.secret(request.headers)
        principal = await self._services.keys.authenticate(secret)
        if self._scope not in principal.scopes:
            raise PermissionDeniedError(
                f"This key lacks the scope {self._scope!r} that {self._route} needs."
            )
        return principal


async def until_left(work: Awaitable[None], receive: Receive) -> None:
    """Do the work; cancel it when the client leaves, or when the server itself is stopping."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        if not working.done():
            working.cancel()
        with suppress(asyncio.CancelledError):
            await working


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
