"""Names of servers that accounts chose: they must not lead into private networks."""

from __future__ import annotations

import socket
from collections.abc import Container

import aiohttp
from aiohttp.abc import ResolveResult

from openworks.gateway.providers.addresses import NOT_PUBLIC, is_public_address


class PublicResolver(aiohttp.ThreadedResolver):
    """Resolves names, and lets no private address through.

    The connection is made to what this returns, so a name that changes between two look-ups gains
    nothing.
    """

    def __init__(self, hosts: Container[str] | None = None) -> None:
        """Check the names that `hosts` holds at the time; None for all."""
        super().__init__()
        self._hosts = hosts

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await super().resolve(host, port, family)
        if self._hosts is not None and host not in self._hosts:
            return found
        allowed = [each for each in found if is_public_address(each["host"])]
        if not allowed:
            raise OSError(None, NOT_PUBLIC)
        return allowed
