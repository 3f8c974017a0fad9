"""An answer on its way: what the connection has brought and the caller has not yet taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import TYPE_CHECKING

from openworks.ports.upstream import Counted, Headers, UpstreamError

if TYPE_CHECKING:
    from openworks.gateway.http.connection import Connection


class Response:
    """`UpstreamResponse` of one request; its connection writes here, its caller reads.

    It lets go of the connection at the end of the answer, whether or not the caller has read it:
    the next request need not wait for a slow reader.
    """

    __slots__ = (
        "connection",
        "ended",
        "error",
        "headers",
        "held_bytes",
        "idle_s",
        "joined",
        "loop",
        "parts",
        "paused",
        "status",
        "waiter",
        "whole",
    )

    def __init__(
        self, connection: Connection, loop: asyncio.AbstractEventLoop, idle_s: float | None
    ) -> None:
        self.connection = connection
        self.loop = loop
        self.idle_s = idle_s
        self.status = 0  # until the final head is complete
        self.headers: Headers = []
        self.parts: list[bytes] = []
        self.held_bytes = 0
        self.joined = 0  # how many of the parts are joined ones
        self.whole = False  # the reader wants nothing before the end
        self.paused = False
        self.ended = False
        self.error: UpstreamError | None = None
        self.waiter: asyncio.Future[None] | None = None

    @property
    def counted(self) -> Counted | None:
        return None

    async def read(self) -> bytes:
        if not self.ended:
            self.whole = True
            if self.paused:
                self.connection.resume()
            while not self.ended:
                await self.wait()
        if self.error is not None:
            raise self.error
        parts = self.parts
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def chunks(self) -> AsyncGenerator[bytes, None]:
        return _Chunks(self)

    def abort(self) -> None:
        if not self.ended:
            self.connection.abandon(self)

    async def wait(self) -> None:
        """Return when something came; a caller cancelled here leaves no request behind."""
        self.waiter = waiter = self.loop.create_future()
        try:
            await waiter
        except asyncio.CancelledError:
            self.abort()
            raise

    def wake(self) -> None:
        """Let the reader look again."""
        waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def end(self, error: UpstreamError | None) -> None:
        """Nothing more will come."""
        self.ended = True
        self.error = error
        self.wake()

    def join(self) -> None:
        """Make one of the latest parts: tiny ones take far more room than their bytes."""
        joined = self.joined
        self.parts[joined:] = [b"".join(self.parts[joined:])]
        self.joined = joined + 1

    def take(self) -> bytes:
        """Hand over what is held, as one piece."""
        parts = self.parts
        piece = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self.held_bytes = self.joined = 0
        if self.paused:
            self.connection.resume()
        return piece


class _Chunks(AsyncGenerator[bytes, None]):
    """The pieces of a body.

    Not written as a generator function: closing one of those before its first step would run
    none of its code, and so would leave the request running at the provider.
    """

    __slots__ = ("_response",)

    def __init__(self, response: Response) -> None:
        self._response = response

    async def __anext__(self) -> bytes:
        response = self._response
        while not response.parts:
            if response.ended:
                error, response.error = response.error, None
                if error is not None:
                    raise error
                raise StopAsyncIteration
            # `response.wait()` once more: a call less for every event.
            response.waiter = waiter = response.loop.create_future()
            try:
                await waiter
            except asyncio.CancelledError:
                response.abort()
                raise
        return response.take()

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
        response = self._response
        response.abort()
        response.parts.clear()
        response.error = None
