"""`ports.upstream.Transport` over our own HTTP/1.1 client: as little work per request as can be."""

from __future__ import annotations

import asyncio
import ssl

from openworks.gateway.http.config import HttpConfig
from openworks.gateway.http.connection import Connection
from openworks.gateway.http.pool import Pool
from openworks.gateway.http.request_head import HeadWriter, host_header
from openworks.gateway.http.response import Response
from openworks.gateway.http.timer_wheel import TimerWheel
from openworks.gateway.http.tls import client_context
from openworks.ports.upstream import Origin, Timeouts, UpstreamError, UpstreamRequest

STALE_WITHIN_S = 2.0
"""A connection that was idle and ends so soon after a request, without a byte, was closed by the
server before it saw the request. Later it may have been at work on it, and asking again could
cost twice."""


class Http1Transport:
    """A pool of connections per origin, and one timer for all of them.

    Must be made and used within one running loop.
    """

    def __init__(self, config: HttpConfig | None = None) -> None:
        """Connect to nothing yet.

        Args:
            config: Its `client` and `proxy` are not looked at here; the defaults when None.

        Raises:
            OSError: `ca_file` cannot be read or holds no certificate.
        """
        self._config = config if config is not None else HttpConfig()
        self._loop = asyncio.get_running_loop()
        self._wheel = TimerWheel(self._loop)
        self._heads = HeadWriter()
        self._context: ssl.SSLContext = client_context(self._config)
        self._pools: dict[Origin, Pool] = {}
        self._closing = False
        self._emptied: asyncio.Future[None] | None = None

    async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> Response:
        pool = self._pools.get(request.origin)
        if pool is None:
            pool = self._new_pool(request.origin)
        head = self._heads.write(request, pool.host)
        connection = pool.take_idle()
        if connection is None:
            connection = await self._obtain(pool, timeouts)
        while True:
            started_s = self._loop.time()
            response = connection.start(head, request.body, request.method == b"HEAD", timeouts)
            await response.wait()
            if response.status:
                return response
            error = response.error
            assert error is not None, "a response without a status has ended with an error"
            stale = error.kind == "reset" and connection.served and not connection.heard
            if not stale or self._closing or self._loop.time() - started_s > STALE_WITHIN_S:
                raise error
            connection = await self._obtain(pool, timeouts)

    async def close(self) -> None:
        self._closing = True
        for pool in list(self._pools.values()):
            pool.close()
        if self._pools:
            if self._emptied is None:
                self._emptied = self._loop.create_future()
            await asyncio.shield(self._emptied)
        self._wheel.close()

    async def _obtain(self, pool: Pool, timeouts: Timeouts) -> Connection:
        if self._closing:
            message = "The connections to providers are closed."
            raise UpstreamError(message, kind="connect", unread=True)
        known = self._pools.get(pool.origin)
        if known is None:  # new, or forgotten when its last connection went
            if len(self._pools) >= self._config.max_origins:
                message = f"No connection to '{pool.name}' is allowed: too many hosts are in use."
                raise UpstreamError(message, kind="overloaded", unread=True)
            self._pools[pool.origin] = known = pool
        return await known.obtain(timeouts.connect_s)

    def _new_pool(self, origin: Origin) -> Pool:
        return Pool(
            origin,
            host_header(origin),
            config=self._config,
            loop=self._loop,
            wheel=self._wheel,
            context=self._context if origin.scheme == "https" else None,
            on_empty=self._forget,
        )

    def _forget(self, pool: Pool) -> None:
        if self._pools.get(pool.origin) is pool:
            del self._pools[pool.origin]
        if not self._pools and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)
