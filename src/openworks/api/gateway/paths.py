"""What the paths below `/gateway/v1` mean."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from openworks.gateway.messages import GatewayRequest
from openworks.gateway.providers.registry import CUSTOM_PREFIX, Providers
from openworks.ports.upstream import Headers

PREFIX: Final = "/gateway/v1/"
PREFIX_BYTES: Final = PREFIX.encode()
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ROUTE: Final = "/gateway/v1/{account}/{gateway}"


def read_target(
    method: bytes, target: bytes, headers: Headers, body: bytes = b""
) -> GatewayRequest | None:
    """Return the request that a path means; None when it is none of the data plane's.

    `/gateway/v1/{account}/{gateway}[/{provider}[/{endpoint}]]`, with everything after the provider
    left as it was encoded.
    """
    place = _place(target)
    if place is None:
        return None
    account, gateway, provider, endpoint, query, route = place
    return GatewayRequest(
        method=method,
        account=account,
        gateway=gateway,
        provider=provider,
        endpoint=endpoint,
        query=query,
        headers=headers,
        body=body,
        route=route,
    )


@lru_cache(maxsize=1024)  # callers ask for few paths, each of them again and again
def _place(target: bytes) -> tuple[str, str, str, str, bytes, str] | None:
    path, _, query = target.partition(b"?")
    if not path.startswith(PREFIX_BYTES):
        return None
    parts = path[len(PREFIX_BYTES) :].decode("latin-1").split("/", 3)
    if len(parts) < 2 or not _NAME.fullmatch(parts[0]) or not _NAME.fullmatch(parts[1]):
        return None
    provider = parts[2] if len(parts) > 2 else ""
    # A closed set, for metrics: a provider that nobody knows makes no label of its own.
    label = "custom" if provider.startswith(CUSTOM_PREFIX) else provider
    route = f"{_ROUTE}/{label}" if label in _labels() else _ROUTE
    return parts[0], parts[1], provider, parts[3] if len(parts) > 3 else "", query, route


@lru_cache(maxsize=1)
def _labels() -> frozenset[str]:
    return frozenset({"compat", "run", "custom", *Providers().slugs()})
