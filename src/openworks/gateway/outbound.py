"""Posts to webhooks and collectors, over the same client that speaks to providers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final
from urllib.parse import quote, urlsplit

from openworks.core.errors import InvalidRequestError
from openworks.gateway.providers.addresses import parse_base_url
from openworks.ports.outbound import UndeliveredError
from openworks.ports.upstream import (
    Origin,
    Timeouts,
    Transport,
    UpstreamError,
    UpstreamRequest,
    UpstreamResponse,
)

_TIMEOUT_S: Final = 15.0
"""For everything together."""
_TIMEOUTS: Final = Timeouts(connect_s=5.0, first_byte_s=10.0, idle_s=5.0)
_MAX_ANSWER_BYTES: Final = 64 << 10
"""An answer of such a length is read, so that its connection can be used again."""
_MAX_RETRY_AFTER_S: Final = 300.0
_AGAIN: Final = frozenset({408, 425, 429})
"""Statuses below 500 after which the same request may be taken."""
_PATH: Final = "/%:@!$&'()*+,;=~-._"
_QUERY: Final = _PATH + "?"


class TransportOutbound:
    """`ports.outbound.Outbound`; redirects are not followed, as they could lead anywhere."""

    def __init__(self, transport: Transport, *, allow_private: bool) -> None:
        self._transport = transport
        self._allow_private = allow_private

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        origin, target = self._place(url)
        request = UpstreamRequest(
            origin=origin,
            method=b"POST",
            target=target,
            headers=[(name.encode(), value.encode()) for name, value in headers.items()],
            body=body,
        )
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                response = await self._transport.send(request, _TIMEOUTS)
                await _let_go(response)
        except TimeoutError:
            raise UndeliveredError(f"'{origin.host}' took more than {_TIMEOUT_S:g} s.") from None
        except UpstreamError as exc:
            raise UndeliveredError(exc.message, is_final=exc.kind == "protocol") from exc
        status = response.status
        if not 200 <= status < 300:
            raise UndeliveredError(
                f"'{origin.host}' answered {status}.",
                is_final=status < 500 and status not in _AGAIN,
                retry_after_s=_retry_after_s(response),
            )

    def _place(self, url: str) -> tuple[Origin, bytes]:
        """Return where a URL leads, and what stands there; no message repeats its path."""
        parts = urlsplit(url)
        try:
            origin, _ = parse_base_url(
                f"{parts.scheme}://{parts.netloc}", allow_private=self._allow_private
            )
        except InvalidRequestError as exc:
            raise UndeliveredError(exc.message, is_final=True) from exc
        target = quote(parts.path or "/", safe=_PATH)
        if parts.query:
            target += "?" + quote(parts.query, safe=_QUERY)
        return replace(origin, is_public=not self._allow_private), target.encode()


async def _let_go(response: UpstreamResponse) -> None:
    """End an answer, of which nothing but its head is of interest."""
    length = _header(response, b"content-length")
    if length.isdigit() and int(length) <= _MAX_ANSWER_BYTES:
        with suppress(UpstreamError):
            await response.read()
    else:
        response.abort()


def _retry_after_s(response: UpstreamResponse) -> float | None:
    text = _header(response, b"retry-after")
    return min(float(text), _MAX_RETRY_AFTER_S) if text.isdigit() else None


def _header(response: UpstreamResponse, wanted: bytes) -> bytes:
    return next((value for name, value in response.headers if name == wanted), b"")
