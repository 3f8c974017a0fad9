"""Opens clients of Redis or Valkey that fail fast and never ask twice by themselves."""

from __future__ import annotations

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

REDIS_ERRORS = (RedisError, OSError, TimeoutError)
"""Whatever the client raises when the server is gone, slow, loading or refuses."""


def make_client(url: str, *, timeout_s: float = 0.5, max_connections: int = 1) -> Redis:
    """Return a client that connects on first use; close it with `await client.aclose()`.

    Args:
        url: `redis://`, `rediss://` or `unix://`, with user, password and database where needed.
        timeout_s: For connecting and for each answer.
        max_connections: A caller beyond them gets an error at once, so one caller needs one.
    """
    # Trying again is decided by who holds the client: a retry in here would hide an outage from
    # the breaker, and run a script twice without its knowledge.
    return Redis.from_url(
        url,
        decode_responses=False,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        max_connections=max_connections,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
    )
