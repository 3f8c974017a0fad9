"""How a call ended, in the words of its record and of its answer."""

from __future__ import annotations

import asyncio

from openworks.core.errors import AppError, ClientClosedRequestError, ProviderTimeoutError
from openworks.ports.calls import Outcome
from openworks.ports.upstream import Headers, UpstreamError


def ending_of(error: BaseException | None, status: int) -> tuple[Outcome, int, str | None]:
    """Return outcome, status and error code of a call that ended with `error` or `status`."""
    match error:
        case None if status < 400:
            return "ok", status, None
        case None:
            return "error", status, "provider_status"
        case AppError():
            return "error", error.status, error.code
        case GeneratorExit() | asyncio.CancelledError():
            closed = ClientClosedRequestError
            return "client_closed", closed.status, closed.default_code
        case _:
            return "error", 500, "internal_error"


def as_app_error(error: UpstreamError) -> AppError:
    """Return what the caller is told of a provider that gave no answer."""
    if error.kind == "timeout":
        return ProviderTimeoutError(error.message)
    return error


def type_of(headers: Headers) -> str:
    """Return the content type that headers state."""
    for name, value in headers:
        if name == b"content-type":
            return value.decode("latin-1")
    return "application/json"


def header_safe(text: str) -> bytes:
    """Write a name that came in a body as a header's value."""
    return "".join(char if char.isprintable() and char.isascii() else "?" for char in text).encode()
