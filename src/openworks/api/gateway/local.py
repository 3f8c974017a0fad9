"""This server's own models as a provider of its gateway: the same handlers, without a network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from types import TracebackType
from typing import Final

import orjson
from starlette.requests import Request

from openworks.api.answers import Answer, Events, Json
from openworks.api.context import Context, Services
from openworks.api.endpoint import Handler
from openworks.api.gateway.local_run import HANDLERS, read_run, refused, run_model, told
from openworks.api.openai import chat, completions, embeddings, rerank, responses
from openworks.core.errors import AppError, UnknownEndpointError
from openworks.core.ids import RequestId
from openworks.gateway.compat.workers_run import RunCall
from openworks.ports.calls import CallRecord, Principal, Usage
from openworks.ports.upstream import (
    Counted,
    Headers,
    Timeouts,
    UpstreamError,
    UpstreamRequest,
    UpstreamResponse,
)
from openworks.wire import sse
from openworks.wire.cloudflare import run as run_faults
from openworks.wire.openai.errors import error_body

_HANDLERS: Final[dict[str, Handler]] = {
    "chat/completions": chat.create,
    "completions": completions.create,
    "embeddings": embeddings.create,
    "rerank": rerank.create,
    "responses": responses.create,
}
_JSON: Final = (b"content-type", b"application/json")
_EVENTS: Final = (b"content-type", sse.CONTENT_TYPE.encode())


class LocalModels:
    """Makes transports to this server's own models."""

    def __init__(self, services: Callable[[], Services]) -> None:
        """Remember where the services are; they are complete only after the gateway is."""
        self._services = services

    def transport(self, principal: Principal) -> LocalTransport:
        """Return a transport for one caller."""
        return LocalTransport(self._services(), principal)


class LocalTransport:
    """Answers requests by this server's own handlers."""

    def __init__(self, services: Services, principal: Principal) -> None:
        self._services = services
        self._principal = principal

    async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> UpstreamResponse:
        path = request.target.decode("latin-1").partition("?")[0].removeprefix("v1/")
        records: list[CallRecord] = []
        run: RunCall | None = None
        body = request.body
        handler = _HANDLERS.get(path)
        if handler is None:
            model = run_model(path)
            if model is None:
                error = UnknownEndpointError(
                    f"This server's models have no endpoint {path!r:.120}."
                )
                return LocalResponse.of_error(error, records)
            try:
                run = read_run(self._services.catalog, model, body)
            except AppError as refusal:
                return LocalResponse.of_error(refusal, records, is_run=True)
            handler, body = HANDLERS[run.operation], orjson.dumps(run.body)
            path = "run"
        context = Context(
            services=self._services,
            request=Request(
                {"type": "http", "method": "POST", "path": f"/v1/{path}", "headers": []}
            ),
            request_id=RequestId(self._services.new_id("req_")),
            principal=self._principal,
            route=f"/v1/{path}",
            body=body,
            observer=records.append,
        )
        try:
            async with asyncio.timeout(timeouts.first_byte_s):
                return await _answered(handler, context, records, run)
        except TimeoutError:
            raise UpstreamError(
                f"The model gave no answer within {timeouts.first_byte_s:g} seconds.",
                kind="timeout",
                unread=False,
            ) from None

    async def close(self) -> None:
        """Do nothing: there are no connections."""


async def _answered(
    handler: Handler, context: Context, records: list[CallRecord], run: RunCall | None
) -> LocalResponse:
    try:
        answer = await handler(context)
        if run is not None:
            answer = told(run, answer)
        if not isinstance(answer, Events):
            return LocalResponse.of_answer(answer, records)
        # The first event decides the status: before it, an error has one of its own.
        events = answer.events
        try:
            first = await anext(events)
        except BaseException:
            await events.aclose()
            raise
        return LocalResponse(200, [_EVENTS], records, events=events, first=first)
    except AppError as error:
        if run is None:
            return LocalResponse.of_error(error, records)
        return LocalResponse.of_error(refused(run, error), records, is_run=True)


class LocalResponse:
    """An answer of one of this server's handlers."""

    def __init__(
        self,
        status: int,
        headers: Headers,
        records: list[CallRecord],
        *,
        body: bytes = b"",
        events: AsyncGenerator[bytes, None] | None = None,
        first: bytes = b"",
    ) -> None:
        self.status = status
        self.headers = headers
        self._records = records
        self._body = body
        self._events = events
        self._first = first

    @classmethod
    def of_answer(cls, answer: Answer, records: list[CallRecord]) -> LocalResponse:
        """Take an answer that is one document."""
        assert isinstance(answer, Json), "these handlers answer with JSON or events"
        body = orjson.dumps(answer.body)
        return cls(answer.status, [_JSON, _length(body)], records, body=body)

    @classmethod
    def of_error(
        cls, error: AppError, records: list[CallRecord], *, is_run: bool = False
    ) -> LocalResponse:
        """Take a refusal, told as the endpoint tells them."""
        body = orjson.dumps(run_faults.error_body(error) if is_run else error_body(error))
        headers: Headers = [_JSON, _length(body)]
        if error.retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % max(1, round(error.retry_after_s))))
        status = run_faults.status_of(error) if is_run else error.status
        return cls(status, headers, records, body=body)

    @property
    def counted(self) -> Counted | None:
        if not self._records:
            return None
        usage = sum((record.usage for record in self._records), Usage())
        return Counted(usage=usage, deployment=self._records[0].deployment)

    async def read(self) -> bytes:
        return self._body

    def chunks(self) -> AsyncGenerator[bytes, None]:
        events = self._events
        return _whole(self._body) if events is None else _Begun(self._first, events)

    def abort(self) -> None:
        """Do nothing: closing the iterator ends the call."""


async def _whole(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


class _Begun(AsyncGenerator[bytes, None]):
    """Events of which the first has come.

    Not written as a generator function: closing one of those before its first step would run none
    of its code, and the model would go on.
    """

    __slots__ = ("_events", "_first")

    def __init__(self, first: bytes, events: AsyncGenerator[bytes, None]) -> None:
        self._first = first
        self._events = events

    async def __anext__(self) -> bytes:
        first, self._first = self._first, b""
        if first:
            return first
        try:
            return await anext(self._events)
        except AppError as error:
            raise UpstreamError(
                error.message, kind="reset", unread=False, code=error.code
            ) from error

    async def asend(self, value: None) -> bytes:
        return await self.__anext__()

    async def athrow(
        self,
        typ: type[BaseException] | BaseException,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
    ) -> bytes:
        await self.aclose()
        raise typ

    async def aclose(self) -> None:
        self._first = b""
        await self._events.aclose()


def _length(body: bytes) -> tuple[bytes, bytes]:
    return b"content-length", b"%d" % len(body)
