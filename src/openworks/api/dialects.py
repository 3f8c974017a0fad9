"""How each of the APIs that this server speaks says no, and where it looks for a secret."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers

from openworks.core.errors import AppError
from openworks.core.json import JsonObject
from openworks.wire import anthropic
from openworks.wire.cloudflare import errors as cloudflare
from openworks.wire.openai import errors as openai


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One API's manners."""

    error_body: Callable[[AppError], JsonObject]
    secret: Callable[[Headers], str | None]
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """On every answer."""
    processing_header: bytes | None = None
    """Says how many milliseconds an answer took."""


def bearer(header: str | None) -> str | None:
    """Return the secret of an `Authorization: Bearer` header."""
    scheme, _, secret = (header or "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" and secret.strip() else None


def _openai_secret(headers: Headers) -> str | None:
    return bearer(headers.get("authorization"))


def _cloudflare_secret(headers: Headers) -> str | None:
    return bearer(headers.get("authorization")) or headers.get("x-auth-key")


OPENAI = Dialect(
    error_body=openai.error_body,
    secret=_openai_secret,
    headers=((b"openai-version", b"2020-10-01"),),
    processing_header=b"openai-processing-ms",
)


def _anthropic_secret(headers: Headers) -> str | None:
    return headers.get("x-api-key") or bearer(headers.get("authorization"))


ANTHROPIC = Dialect(error_body=anthropic.error_body, secret=_anthropic_secret)
CLOUDFLARE = Dialect(error_body=cloudflare.error_body, secret=_cloudflare_secret)


def dialect_of(path: str) -> Dialect:
    """Return the dialect for what is refused before its route is known."""
    return CLOUDFLARE if path.startswith("/client/v4/") else OPENAI
