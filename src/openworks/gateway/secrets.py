"""Which of a caller's headers hold our key, and which the provider's."""

from __future__ import annotations

import hmac

from openworks.ports.upstream import Headers

OUR_PREFIX = b"sk-ow-"
_NOBODYS = (b"", b"none")
_PROVIDER_AUTH = (b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key")


def take_our_secret(
    authorization: bytes | None, forward: Headers, token: bytes | None
) -> tuple[str | None, bool]:
    """Find the secret that opens this server, and take it out of what the provider will see.

    `cf-aig-authorization` comes first. Without it, a provider's auth header may hold one of our
    keys, or the access token: clients of a provider's own SDK have no other place for it. `none`
    there is what SDKs are given that insist on a key where none is needed; it is nobody's.

    Args:
        authorization: The value of `cf-aig-authorization`.
        forward: The headers for the provider; changed in place.
        token: The server's access token.

    Returns:
        The secret, and whether the caller brought a credential of the provider's.
    """
    secret = bearer(authorization).decode("latin-1") if authorization else None
    brought = False
    for index in range(len(forward) - 1, -1, -1):
        name, value = forward[index]
        if name not in _PROVIDER_AUTH:
            continue
        shown = _ours(value, token)
        if shown is not None:
            if secret is None:
                secret = shown.decode("latin-1")
            del forward[index]
        elif bearer(value) in _NOBODYS:
            del forward[index]
        else:
            brought = True
    return secret, brought


def _ours(value: bytes, token: bytes | None) -> bytes | None:
    shown = bearer(value)
    if token is not None and hmac.compare_digest(shown, token):
        return shown
    # Some providers have another word than `Bearer` there.
    last = shown.rpartition(b" ")[2]
    return last if last.startswith(OUR_PREFIX) else None


def bearer(value: bytes) -> bytes:
    """Return what follows `Bearer` in a header's value, or all of it."""
    return value[7:].strip() if value[:7].lower() == b"bearer " else value.strip()
