"""What comes to the data plane and what leaves it, whichever server speaks HTTP in front of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from openworks.core.errors import AppError
from openworks.ports.upstream import Headers

JSON_HEADER = (b"content-type", b"application/json")


@dataclass(slots=True, kw_only=True)
class GatewayRequest:
    """One request, with its whole body. Not frozen: it is made on the fast path."""

    method: bytes
    account: str
    """As the path names it."""
    gateway: str
    provider: str
    """A provider's slug, `compat`, `run`, or empty for the universal endpoint."""
    endpoint: str
    """What follows the provider in the path, still percent-encoded, without its first slash."""
    query: bytes
    headers: Headers
    body: bytes
    route: str
    """The path template, for records and metrics: a closed set."""


@dataclass(slots=True, kw_only=True)
class GatewayAnswer:
    """What the caller is told: exactly one of `body` and `chunks` is there."""

    status: int
    headers: Headers
    """Without framing: `content-length` and `transfer-encoding` are the server's."""
    body: bytes | None = None
    chunks: AsyncGenerator[bytes, None] | None = None
    """Closing it early ends the call at the provider too. If it raises `UpstreamError`, what was
    sent is not whole, and the connection must be cut so that the caller can tell."""
    error: AppError | None = None
    """Why the gateway itself refused: for those who say so in another dialect than `body`'s."""
