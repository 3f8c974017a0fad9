"""Whether one call may use the cache, and what of an answer may be kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from openworks.ports.gateways import Gateway
from openworks.ports.upstream import Headers

MAX_TTL_S: Final = 31 * 86_400
KEYED_TTL_S: Final = 300
"""How long an answer with a key of the caller's own is kept when nobody says."""


@dataclass(slots=True, kw_only=True)  # made for every call: a frozen one takes three times as long
class CachePlan:
    """How one call uses the cache."""

    ttl_s: int
    custom_key: bytes | None = None
    """The caller's `cf-aig-cache-key`, in the place of the body in the key."""
    semantic_threshold: float | None = None
    """How alike another prompt must be; None when only the same one will do."""


def plan(
    gateway: Gateway, *, ttl_s: int | None, skip: bool | None, custom_key: bytes | None
) -> CachePlan | None:
    """Return how a call uses the cache, None for not at all.

    A skipped cache is neither read nor written. Lifetimes under Cloudflare's minimum of 60 s are
    kept as asked; those over its maximum of a month are cut to that.

    Args:
        gateway: Says what holds when the call is silent.
        ttl_s: `cf-aig-cache-ttl`; 0 turns the cache off.
        skip: `cf-aig-skip-cache`.
        custom_key: `cf-aig-cache-key`; empty is as good as none.
    """
    if skip:
        return None
    if ttl_s is None:
        ttl_s = gateway.cache_ttl_s or (KEYED_TTL_S if custom_key else 0)
    if ttl_s <= 0:
        return None
    return CachePlan(
        ttl_s=min(ttl_s, MAX_TTL_S),
        custom_key=custom_key or None,
        # Who names the answer means that one, not one that is like it.
        semantic_threshold=None if custom_key else gateway.semantic_threshold,
    )


def may_store(status: int, headers: Headers, body: bytes, *, stream: bool) -> bool:
    """Whether a whole answer is fit to be given again: a 200 that ended well and is no error.

    A stream must show the end that its protocol has, so that one which a server closed early
    without breaking the framing is not replayed for a month. The caller vouches for the rest: that
    the body is whole, and unchanged by guards that belong to one caller.
    """
    if status != 200 or not body:
        return False
    if not stream:
        return not body[:64].lstrip().replace(b" ", b"").startswith(b'{"error"')
    if any(name == b"content-encoding" and value != b"identity" for name, value in headers):
        return False  # its end cannot be seen
    if b"error" in body and any(mark in body for mark in _FAILED):
        return False
    tail = body[-256:]
    return any(mark in tail for mark in _ENDED) or any(mark in body for mark in _ENDED)


# Quotes and line breaks are escaped inside JSON strings, so that no generated text can hold these.
_ENDED: Final = (
    b"data: [DONE]",
    b"data:[DONE]",
    b'"type":"message_stop"',
    b'"type": "message_stop"',
    b'"type":"response.completed"',
    b'"type": "response.completed"',
    b'"type":"message-end"',
    b'"event_type":"stream-end"',
    b'"finishReason":',
    b'"stopReason":',
    b"event: done",
)
_FAILED: Final = (
    b"event: error",
    b'data: {"error"',
    b'data:{"error"',
    b'"type":"error"',
    b'"type": "error"',
)


def stored_headers(headers: Headers) -> Headers:
    """Return the headers of an answer that still hold when it is given again.

    Cookies, dates, rate limits and everything about one connection are the first caller's alone.
    """
    return [
        (name, value)
        for name, value in headers
        if name not in _NOT_STORED and not name.startswith(_NOT_STORED_PREFIXES)
    ]


_NOT_STORED: Final = frozenset(
    {
        b"age",
        b"alt-svc",
        b"connection",
        b"content-length",
        b"date",
        b"expires",
        b"keep-alive",
        b"nel",
        b"report-to",
        b"retry-after",
        b"server-timing",
        b"set-cookie",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"via",
    }
)
_NOT_STORED_PREFIXES: Final = (b"cf-", b"x-ratelimit-", b"anthropic-ratelimit-", b"ratelimit")


def replay(body: bytes, *, piece_bytes: int = 65_536) -> list[memoryview]:
    """Cut a stored stream into pieces for writing; together they are the body, without a copy."""
    whole = memoryview(body)
    return [whole[start : start + piece_bytes] for start in range(0, len(body), piece_bytes)]
