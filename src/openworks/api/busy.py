"""A limit on the requests under way at once, so that a flood is told instead of drowned in."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from openworks.api.answers import send_error
from openworks.core.errors import ServerOverloadedError
from openworks.core.ids import NewId


class BusyGuard:
    """An ASGI application around another, which it calls at most `limit` times at once."""

    def __init__(self, app: ASGIApp, limit: int, new_id: NewId) -> None:
        self._app = app
        self._limit = limit
        self._new_id = new_id
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._under_way >= self._limit:
            error = ServerOverloadedError(
                f"{self._under_way} requests are under way, which is this server's limit.",
                retry_after_s=1.0,
            )
            await send_error(send, error, [(b"x-request-id", self._new_id("req_").encode())])
            return
        self._under_way += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._under_way -= 1
