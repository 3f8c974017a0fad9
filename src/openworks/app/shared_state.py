"""Limits and cached answers: in this process, or shared with others through Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from openworks.app.settings import GatewaySettings, SettingsError
from openworks.core.clock import Clock
from openworks.core.ids import new_id
from openworks.gateway.caching.memory import MemoryAnswerCache
from openworks.gateway.limits.base import LimitsConfig
from openworks.gateway.limits.local import LocalLimiter
from openworks.gateway.limits.restoring import RestoringLimiter
from openworks.gateway.limits.shared import SharedLimiter, SharedLimitsConfig
from openworks.ports.answers_cache import AnswerCache
from openworks.ports.limits import Limiter
from openworks.ports.logs import Analytics

_MIB = 1 << 20


@asynccontextmanager
async def open_limiter(
    settings: GatewaySettings, analytics: Analytics, clock: Clock
) -> AsyncIterator[Limiter]:
    """Count requests and money for as long as the block lasts.

    Raises:
        SettingsError: Redis is asked for, and its client is not installed.
    """
    if settings.redis_url is None:
        counts = LocalLimiter(clock=clock, config=LimitsConfig())
        yield RestoringLimiter(counts, counts.restore, analytics, clock)
        return
    try:
        from openworks.storage.redis.client import make_client
        from openworks.storage.redis.limits import RedisCounts
    except ImportError as exc:
        raise _not_installed(exc) from exc
    client = make_client(settings.redis_url)
    shared = SharedLimiter(
        RedisCounts(client),
        clock=clock,
        new_id=new_id,
        config=LimitsConfig(),
        shared=SharedLimitsConfig(
            when_down=settings.redis_when_down, processes=settings.redis_processes
        ),
    )
    await shared.open()
    try:
        yield RestoringLimiter(shared, shared.restore, analytics, clock)
    finally:
        await shared.close()
        await client.aclose()


@asynccontextmanager
async def open_cache(settings: GatewaySettings, clock: Clock) -> AsyncIterator[AnswerCache]:
    """Keep answers for as long as the block lasts; those in Redis outlast it.

    Raises:
        SettingsError: Redis is asked for, and its client is not installed.
    """
    local = MemoryAnswerCache(max_bytes=settings.cache_mib * _MIB, clock=clock)
    if settings.redis_url is None:
        yield local
        return
    try:
        from openworks.storage.redis.cache import RedisAnswerCache
        from openworks.storage.redis.client import make_client
    except ImportError as exc:
        raise _not_installed(exc) from exc
    client = make_client(settings.redis_url, max_connections=2)
    cache = RedisAnswerCache(client, local=local, clock=clock)
    try:
        yield cache
    finally:
        await cache.close()
        await client.aclose()


def _not_installed(error: ImportError) -> SettingsError:
    return SettingsError(
        f"Setting 'gateway.redis_url' needs the extra 'redis': pip install 'openworks[redis]' "
        f"({error.name} is missing)."
    )
