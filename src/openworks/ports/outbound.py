"""Posts to addresses that the owners of gateways name: webhooks and collectors of spans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from openworks.core.errors import ProviderError


class UndeliveredError(ProviderError):
    """The other side did not take it."""

    default_code = "undelivered"

    def __init__(
        self, message: str, *, is_final: bool = False, retry_after_s: float | None = None
    ) -> None:
        """Hold what happened.

        Args:
            message: Names the host, never the path, which may hold a secret.
            is_final: Sending the same again would end the same.
            retry_after_s: What the other side asked for.
        """
        super().__init__(message, retry_after_s=retry_after_s)
        self.is_final = is_final


class Outbound(Protocol):
    """Sends; where private addresses are not allowed, it reaches none, whatever a name means."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Return once the other side said that it has it (a 2xx).

        Raises:
            UndeliveredError: It did not.
        """
        ...
