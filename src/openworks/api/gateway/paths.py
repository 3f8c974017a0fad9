"""What the paths below `/gateway/v1` mean."""

from __future__ import annotations

import re
from typing import Final

from openworks.gateway.messages import GatewayRequest
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
    path, _, query = target.partition(b"?")
    if not path.startswith(PREFIX_BYTES):
        return None
    parts = path[len(PREFIX_BYTES) :].decode("latin-1").split("/", 3)
    if len(parts) < 2 or not _NAME.fullmatch(parts[0]) or not _NAME.fullmatch(parts[1]):
        return None
    provider = parts[2] if len(parts) > 2 else ""
    return GatewayRequest(
        method=method,
        account=parts[0],
        gateway=parts[1],
        provider=provider,
        endpoint=parts[3] if len(parts) > 3 else "",
        query=query,
        headers=headers,
        body=body,
        # A closed set, for metrics: a provider that nobody knows makes no label of its own.
        route=f"{_ROUTE}/{provider}" if provider in _LABELS else _ROUTE,
    )


_LABELS: Final = frozenset({"compat", "run", "openai", "anthropic", "workers-ai"})
