"""What the operator may choose about connections to providers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpConfig:
    """Bounds of the connections to providers, and whom to trust."""

    client: Literal["http1", "aiohttp"] = "http1"
    """`http1` is several times faster; `aiohttp` is for servers that it cannot talk to."""
    max_connections: int = 512
    """Per origin; further requests wait."""
    max_waiting: int = 1024
    """Requests per origin that wait for a connection; further ones are refused."""
    max_origins: int = 4096
    """Origins with a connection or a request; requests to further ones are refused."""
    idle_expiry_s: float = 30.0
    """How long an unused connection is kept; shorter than servers keep theirs."""
    max_body_bytes: int = 256 * 1024 * 1024
    """Of an answer that is read whole; a longer one is an error."""
    verify: bool = True
    """Whether a provider must prove its name; False is for tests on closed networks."""
    ca_file: str | None = None
    """Certificates (PEM) to trust besides the system's."""
    proxy: str | None = None
    """Forward through this HTTP proxy (`http://host:port`); always with aiohttp."""
