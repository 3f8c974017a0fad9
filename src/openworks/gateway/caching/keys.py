"""What makes two calls the same: a digest over everything that can change the answer."""

from __future__ import annotations

import hashlib
from typing import Final

from openworks.ports.upstream import Headers

_sha256 = hashlib.sha256


def cache_key(
    *,
    account: str,
    gateway: str,
    epoch: int,
    provider: str,
    target: bytes,
    credential: bytes,
    told: bytes,
    body: bytes,
    stream: bool = False,
    custom_key: bytes | None = None,
) -> bytes:
    """Return the 32 bytes under which the answer to a call is kept.

    Two calls share a key only when account, gateway, provider and credential are the same and the
    provider is sent the same bytes. There is no list of parameters that count: all of the body
    does, and every header but those that say who asks and not what.

    Args:
        account: The account's id.
        gateway: The gateway's id.
        epoch: The gateway's `cache_epoch`.
        provider: The provider's slug.
        target: The provider's path with its query, as it is sent.
        credential: What authorises the call at the provider; empty for none.
        told: What the headers say that can change the answer, as `told_by` returns it.
        body: What the provider is sent.
        stream: Whether the answer is asked for as a stream; counts beside a key of the caller's
            own, so that who asks for a whole answer gets no stream.
        custom_key: Takes the place of target, headers and body, and of nothing else.
    """
    if custom_key is not None:
        kind, target, told, body = b"s" if stream else b"w", b"", b"", custom_key
    else:
        kind = b"x"
    account_bytes, gateway_bytes, provider_bytes = (
        account.encode(),
        gateway.encode(),
        provider.encode(),
    )
    # Every length stands before the first part, so that no part can run into its neighbour.
    digest = _sha256(
        b"%b%d,%d,%d,%d,%d,%d,%d:%b%b%b%b%b%b"
        % (
            kind,
            epoch,
            len(account_bytes),
            len(gateway_bytes),
            len(provider_bytes),
            len(credential),
            len(target),
            len(told),
            account_bytes,
            gateway_bytes,
            provider_bytes,
            credential,
            target,
            told,
        )
    )
    digest.update(body)
    return digest.digest()


def told_by(headers: Headers) -> bytes:
    """Return what headers say apart from who asks: names, in lower case, and values."""
    # Headers may hold no line break, so that joined lines cannot be mistaken for other ones.
    return b"\n".join(
        [
            name + b":" + value
            for name, value in headers
            if name not in _SILENT and not name.startswith(_SILENT_PREFIXES)
        ]
    )


_SILENT: Final = frozenset(
    {
        # The credential is in the key as a digest.
        b"authorization",
        b"x-api-key",
        b"api-key",
        b"x-goog-api-key",
        # Who asks, by which way, and which attempt this is.
        b"b3",
        b"baggage",
        b"connection",
        b"content-length",
        b"forwarded",
        b"host",
        b"idempotency-key",
        b"origin",
        b"priority",
        b"referer",
        b"sentry-trace",
        b"traceparent",
        b"tracestate",
        b"user-agent",
        b"via",
        b"x-client-request-id",
        b"x-correlation-id",
        b"x-real-ip",
        b"x-request-id",
    }
)
_SILENT_PREFIXES: Final = (
    b"cf-",
    b"sec-",
    b"x-amz-date",
    b"x-b3-",
    b"x-datadog-",
    b"x-forwarded-",
    b"x-stainless-",
)
