"""A limit on the requests under way at once, so that a flood is told instead of drowned in."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from openworks.api.answers import denying, send_error
from openworks.api.dialects import dialect_of
from openworks.core.errors import ServerOverloadedError
from openworks.core.ids import NewId


class UnderWay:
    """How many requests are under way, whichever way they came in."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0

    def count(self, change: int) -> None:
        """Count a request that came (1) or that is over (-1), refused ones too."""
        self._count += change

    @property
    def is_over(self) -> bool:
        """Whether there are more than the limit allows, so that the last must be refused."""
        return self._count > self._limit

    @property
    def is_full(self) -> bool:
        """Whether no further one may begin."""
        return self._count >= self._limit

    def error(self) -> ServerOverloadedError:
        """Return what a refused request is told."""
        return ServerOverloadedError(
            f"{self._limit} requests are under way, which is this server's limit.",
            retry_after_s=1.0,
        )


class BusyGuard:
    """An ASGI application around another, which it calls while there is room."""

    def __init__(self, app: ASGIApp, under_way: UnderWay, new_id: NewId) -> None:
        self._app = app
        self._under_way = under_way
        self._new_id = new_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._under_way.count(1)
        try:
            if self._under_way.is_over:
                identity = (b"x-request-id", self._new_id("req_").encode())
                body = dialect_of(scope.get("path", "")).error_body
                send = denying(send) if scope["type"] == "websocket" else send
                await send_error(send, self._under_way.error(), [identity], body=body)
            else:
                await self._app(scope, receive, send)
        finally:
            self._under_way.count(-1)
