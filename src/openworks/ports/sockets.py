"""How the gateway holds a WebSocket to a provider."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from openworks.ports.upstream import Timeouts, UpstreamRequest

SocketMessage: TypeAlias = str | bytes


class ProviderSocket(Protocol):
    """An open WebSocket; `close` it, however it ends."""

    @property
    def subprotocol(self) -> str | None:
        """What the provider chose of those that were offered."""
        ...

    @property
    def close_code(self) -> int | None:
        """Why the provider ended it, once `receive` gave None."""
        ...

    async def send(self, message: SocketMessage) -> None:
        """Send; waits while the provider reads slowly.

        Raises:
            UpstreamError: The connection is gone.
        """
        ...

    async def receive(self) -> SocketMessage | None:
        """Return the next message, or None when the provider has closed.

        Raises:
            UpstreamError: The connection broke.
        """
        ...

    async def close(self, code: int = 1000) -> None:
        """Close; safe to call twice."""
        ...


class SocketDialer(Protocol):
    """Opens them."""

    async def connect(
        self, request: UpstreamRequest, subprotocols: Sequence[str], timeouts: Timeouts
    ) -> ProviderSocket:
        """Open a WebSocket at the place of `request`, with its headers.

        Raises:
            UpstreamError: The provider cannot be reached, or gives none; the message says which
                status it answered.
        """
        ...
