"""Posts to webhooks and collectors; the address is checked where it is connected to."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from openworks.gateway.http.config import HttpConfig
from openworks.gateway.http.tls import client_context
from openworks.gateway.providers.addresses import is_public_address
from openworks.ports.outbound import UndeliveredError

_TIMEOUT_S: Final = 10.0
_MAX_CONNECTIONS: Final = 32
_MAX_RETRY_AFTER_S: Final = 300.0
_AGAIN: Final = frozenset({408, 425, 429})
"""Statuses below 500 after which the same request may be taken."""


class _PublicResolver(AbstractResolver):
    """Resolves names, and lets no private address through.

    The connection is made to what this returns, so a name that changes between two look-ups gains
    nothing.
    """

    def __init__(self, inner: AbstractResolver) -> None:
        self._inner = inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        allowed = [item for item in found if is_public_address(item["host"])]
        if not allowed:
            raise OSError(None, "private addresses are not allowed by the settings")
        return allowed

    async def close(self) -> None:
        await self._inner.close()


class AiohttpOutbound:
    """`ports.outbound.Outbound`. Must be made and used within one running loop."""

    def __init__(self, config: HttpConfig | None = None, *, allow_private: bool) -> None:
        """Connect to nothing yet.

        Raises:
            OSError: `ca_file` cannot be read or holds no certificate.
        """
        inner = aiohttp.ThreadedResolver()
        self._allow_private = allow_private
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=_MAX_CONNECTIONS,
                resolver=inner if allow_private else _PublicResolver(inner),
                ssl=client_context(config or HttpConfig()),
                use_dns_cache=False,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
            trust_env=False,
        )

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        host = self._host(url)
        try:
            # Not followed: a redirect could lead anywhere, and take the headers along.
            async with self._session.post(
                url, data=body, headers=dict(headers), allow_redirects=False
            ) as answer:
                status, retry_after = answer.status, answer.headers.get("retry-after", "")
        except TimeoutError:
            raise UndeliveredError(f"'{host}' gave no answer in {_TIMEOUT_S:g} s.") from None
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            # Not chained: the library's words repeat the URL.
            reason = getattr(exc, "strerror", None) or type(exc).__name__
            raise UndeliveredError(f"'{host}' could not be reached: {reason}.") from None
        if not 200 <= status < 300:
            raise UndeliveredError(
                f"'{host}' answered {status}.",
                is_final=status < 500 and status not in _AGAIN,
                retry_after_s=_seconds(retry_after),
            )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    def _host(self, url: str) -> str:
        """Return the host of a URL; addresses are checked here, as no resolver sees them."""
        host = urlsplit(url).hostname or ""
        try:
            ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return host
        if not self._allow_private and not is_public_address(host):
            raise UndeliveredError(
                f"'{host}' could not be reached: private addresses are not allowed by the "
                "settings.",
                is_final=True,
            )
        return host


def _seconds(text: str) -> float | None:
    return min(float(text), _MAX_RETRY_AFTER_S) if text.isascii() and text.isdigit() else None
