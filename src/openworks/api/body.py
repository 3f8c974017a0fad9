"""Reads a request's body, with a limit on its size and on how slowly it may come."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.types import Receive, Scope

from openworks.core.errors import (
    ClientClosedRequestError,
    PayloadTooLargeError,
    RequestTimeoutError,
)

_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """What a request body may be."""

    max_bytes: int = 32 * _MIB
    """A larger body gets a 413, before it is read where its length is declared."""
    timeout_s: float = 60.0
    """Seconds within which the whole body must have come; a slower one gets a 408."""


async def read_body(scope: Scope, receive: Receive, limits: BodyLimits) -> bytes:
    """Return the whole body.

    Raises:
        PayloadTooLargeError: It is over the limit.
        RequestTimeoutError: It came too slowly.
        ClientClosedRequestError: The client left before the end.
    """
    declared = dict(scope["headers"]).get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limits.max_bytes:
        raise _too_large(limits)
    try:
        async with asyncio.timeout(limits.timeout_s):
            return await _read(receive, limits)
    except TimeoutError:
        raise RequestTimeoutError(
            f"The request's body did not arrive within {limits.timeout_s:g} seconds."
        ) from None


async def _read(receive: Receive, limits: BodyLimits) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientClosedRequestError("The client left before its request was complete.")
        part = message.get("body", b"")
        size += len(part)
        if size > limits.max_bytes:
            raise _too_large(limits)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _too_large(limits: BodyLimits) -> PayloadTooLargeError:
    return PayloadTooLargeError(
        f"The request's body is over the limit of {limits.max_bytes / _MIB:g} MiB."
    )
