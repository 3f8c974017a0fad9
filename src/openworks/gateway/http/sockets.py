"""`ports.sockets` over aiohttp's WebSocket client."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from functools import cached_property
from typing import Final

import aiohttp
from yarl import URL

from openworks.gateway.http.config import HttpConfig
from openworks.gateway.http.resolver import PublicResolver
from openworks.gateway.http.tls import client_context
from openworks.ports.sockets import SocketMessage
from openworks.ports.upstream import Timeouts, UpstreamError, UpstreamRequest

MAX_MESSAGE_BYTES: Final = 32 << 20
_PING_S: Final = 30.0
_CLOSE_S: Final = 5.0
_MAKES_ITSELF: Final = frozenset(
    {
        b"sec-websocket-key",
        b"sec-websocket-version",
        b"sec-websocket-extensions",
        b"sec-websocket-protocol",
    }
)


class AiohttpSockets:
    """Opens WebSockets, each with a session of its own: they live long and share nothing."""

    def __init__(self, config: HttpConfig) -> None:
        self._config = config

    async def connect(
        self, request: UpstreamRequest, subprotocols: Sequence[str], timeouts: Timeouts
    ) -> AiohttpSocket:
        origin = request.origin
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        scheme = "wss" if origin.scheme == "https" else "ws"
        url = URL(f"{scheme}://{host}:{origin.port}{request.target.decode()}", encoded=True)
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in request.headers
            if name not in _MAKES_ITSELF
        ]
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=self._tls if origin.scheme == "https" else True,
                resolver=PublicResolver() if origin.is_public else aiohttp.ThreadedResolver(),
                force_close=True,
                use_dns_cache=False,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent",),
            trust_env=False,
        )
        socket: aiohttp.ClientWebSocketResponse | None = None
        try:
            async with asyncio.timeout(_sum(timeouts.connect_s, timeouts.first_byte_s)):
                socket = await session.ws_connect(
                    url,
                    protocols=subprotocols,
                    headers=headers,
                    max_msg_size=MAX_MESSAGE_BYTES,
                    heartbeat=_PING_S,
                    timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_S),
                    proxy=self._config.proxy,
                )
            return AiohttpSocket(session, socket, origin.host)
        except TimeoutError:
            message = f"No WebSocket was opened by '{origin.host}' in time."
            raise UpstreamError(message, kind="timeout", unread=True) from None
        except aiohttp.WSServerHandshakeError as error:
            raise UpstreamError(
                f"'{origin.host}' answered {error.status} to the request for a WebSocket.",
                kind="protocol",
                unread=False,
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UpstreamError(
                f"'{origin.host}' could not be reached: {reason}.",
                kind="connect",
                unread=True,
            ) from None
        finally:
            if socket is None:
                await session.close()

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return client_context(self._config)


class AiohttpSocket:
    """One open WebSocket."""

    def __init__(
        self, session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse, host: str
    ) -> None:
        self._session = session
        self._socket = socket
        self._host = host

    @property
    def subprotocol(self) -> str | None:
        return self._socket.protocol

    @property
    def close_code(self) -> int | None:
        return self._socket.close_code

    async def send(self, message: SocketMessage) -> None:
        try:
            if isinstance(message, str):
                await self._socket.send_str(message)
            else:
                await self._socket.send_bytes(message)
        except (aiohttp.ClientError, OSError):
            raise self._broken() from None

    async def receive(self) -> SocketMessage | None:
        message = await self._socket.receive()
        match message.type:
            case aiohttp.WSMsgType.TEXT | aiohttp.WSMsgType.BINARY:
                data: SocketMessage = message.data
                return data
            case aiohttp.WSMsgType.ERROR:
                raise self._broken()
            case _:
                return None

    async def close(self, code: int = 1000) -> None:
        await self._socket.close(code=code)
        await self._session.close()

    def _broken(self) -> UpstreamError:
        return UpstreamError(
            f"The WebSocket to '{self._host}' broke off.", kind="reset", unread=False
        )


def _sum(first_s: float | None, second_s: float | None) -> float | None:
    return None if first_s is None or second_s is None else first_s + second_s
