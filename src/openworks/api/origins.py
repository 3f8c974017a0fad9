"""Keeps pages of other sites away from an open server.

A server without keys listens on loopback alone, but every page in this machine's browser can reach
that: by a request of its own, or by a name of its own that it lets point at 127.0.0.1.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from openworks.api.answers import denying, send_error
from openworks.api.dialects import dialect_of
from openworks.core.errors import AppError, PermissionDeniedError
from openworks.services.keys import Keys


class OriginGuard:
    """An ASGI application around another. Where a key is needed, the key is guard enough."""

    def __init__(
        self,
        app: ASGIApp,
        keys: Keys,
        *,
        allowed_hosts: Sequence[str],
        allowed_origins: Sequence[str],
    ) -> None:
        self._app = app
        self._keys = keys
        self._allowed_hosts = frozenset(allowed_hosts)
        self._allowed_origins = frozenset(allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_socket = scope["type"] == "websocket"
        if (is_socket or scope["type"] == "http") and not await self._is_guarded():
            error = self._refusal(Headers(scope=scope))
            if error is not None:
                send = denying(send) if is_socket else send
                body = dialect_of(scope["path"]).error_body
                await send_error(send, error, [(b"connection", b"close")], body=body)
                return
        await self._app(scope, receive, send)

    async def _is_guarded(self) -> bool:
        try:
            return await self._keys.is_guarded()
        except AppError:
            return False

    def _refusal(self, headers: Headers) -> PermissionDeniedError | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if not is_trusted_host(host, self._allowed_hosts):
            name = _name_of(host)
            return PermissionDeniedError(
                f"This server is open and answers to names of this machine alone, not to "
                f"{name[:80]!r}; list it in server.allowed_hosts, or make a key.",
                code="host_not_allowed",
            )
        if origin is None or self._allowed_origins & {origin, "*"}:
            return None
        if urlsplit(origin).netloc == host:
            return None
        return PermissionDeniedError(
            f"Pages of {origin[:80]!r} may not call this open server; list them in "
            "server.cors_origins, or make a key.",
            code="origin_not_allowed",
        )


def is_trusted_host(host: str, allowed: frozenset[str]) -> bool:
    """Whether a `Host` header names this machine, or is one of `allowed`."""
    name = _name_of(host)
    return is_loopback(name) or name in allowed


def _name_of(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # such as a bracket that is not closed
        return ""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
