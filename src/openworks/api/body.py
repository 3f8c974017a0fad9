"""Reads a request's body, with a limit on its size and on how slowly it may come."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from starlette.types import Receive, Scope

from openworks.core.errors import (
    ClientClosedRequestError,
    PayloadTooLargeError,
    RequestTimeoutError,
    ServerOverloadedError,
)

_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """What a request body may be."""

    max_bytes: Annotated[int, Field(ge=1)] = 32 * _MIB
    """A larger body gets a 413, before it is read where its length is declared."""
    timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0
    """Seconds within which the whole body must have come; a slower one gets a 408."""
    max_total_bytes: Annotated[int, Field(ge=1)] = 512 * _MIB
    """Bodies of all requests under way together; a further one gets a 503."""


class BodyBudget:
    """The bytes of all bodies that are held at this moment."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held_bytes = 0

    def take(self, size: int) -> None:
        """Count bytes that have come.

        Raises:
            ServerOverloadedError: They are too many beside the others; they are not counted then.
        """
        if self._held_bytes + size > self._max_bytes:
            raise ServerOverloadedError(
                f"The requests under way hold {self._held_bytes / _MIB:.0f} MiB, and this one is "
                "too large beside them.",
                retry_after_s=1.0,
            )
        self._held_bytes += size

    def give_back(self, size: int) -> None:
        """Count bytes that are held no more."""
        self._held_bytes -= size


async def read_body(
    scope: Scope, receive: Receive, limits: BodyLimits, budget: BodyBudget
) -> bytes:
    """Return the whole body; its bytes are taken from `budget` until the caller gives them back.

    Raises:
        ServerOverloadedError: Too many bytes are held already.
        PayloadTooLargeError: It is over the limit.
        RequestTimeoutError: It came too slowly.
        ClientClosedRequestError: The client left before the end.
    """
    declared = dict(scope["headers"]).get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limits.max_bytes:
        raise _too_large(limits)
    try:
        async with asyncio.timeout(limits.timeout_s):
            return await _read(receive, limits, budget)
    except TimeoutError:
        raise RequestTimeoutError(
            f"The request's body did not arrive within {limits.timeout_s:g} seconds."
        ) from None


async def _read(receive: Receive, limits: BodyLimits, budget: BodyBudget) -> bytes:
    parts: list[bytes] = []
    size = 0
    with ExitStack() as undo:
        undo.callback(lambda: budget.give_back(size))
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientClosedRequestError("The client left before its request was complete.")
            part = message.get("body", b"")
            if size + len(part) > limits.max_bytes:
                raise _too_large(limits)
            budget.take(len(part))
            size += len(part)
            parts.append(part)
            if not message.get("more_body", False):
                undo.pop_all()
                return b"".join(parts)


def _too_large(limits: BodyLimits) -> PayloadTooLargeError:
    return PayloadTooLargeError(
        f"The request's body is over the limit of {limits.max_bytes / _MIB:g} MiB."
    )
