"""uvicorn's HTTP protocol with limits on headers: how slowly they may come, and how large they are.

uvicorn limits only the pause between two requests; a client that sends a header byte a minute would
hold its connection for ever, and one that sends headers without end would fill the memory.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADER_BYTES = 64 * 1024
"""As in most servers; OpenAI's clients send less than one."""

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n"


class LimitedProtocol(HttpToolsProtocol):
    """One connection."""

    header_timeout_s: float

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._header_timer: asyncio.TimerHandle | None = None
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._header_timer is None:
            return
        self._header_bytes += len(data)
        if self._header_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_headers()

    def on_headers_complete(self) -> None:
        self._have_headers()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._have_headers()
        super().connection_lost(exc)

    def _await_headers(self) -> None:
        self._have_headers()
        self._header_bytes = 0
        self._header_timer = self.loop.call_later(self.header_timeout_s, self.transport.close)

    def _have_headers(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None


def protocol_class(header_timeout_s: float) -> type[LimitedProtocol]:
    """Return the protocol for `uvicorn.Config(http=...)`, which calls it with its own arguments."""
    return type("Protocol", (LimitedProtocol,), {"header_timeout_s": header_timeout_s})
