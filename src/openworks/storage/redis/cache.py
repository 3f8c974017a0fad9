"""Answers that processes share: Redis behind the memory of each of them."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from openworks.core.clock import Clock
from openworks.ports.answers_cache import AnswerCache, CachedAnswer
from openworks.storage.redis.client import REDIS_ERRORS

_PREFIX: Final = b"openworks:answer:1:"  # the number counts up when the encoding changes
_BATCH: Final = 16


class RedisAnswerCache:
    """Looks into this process's memory, then into Redis, and keeps new answers in both.

    Redis being away, slow or full of nonsense is a miss, never an error: for `pause_s` after a
    failure it is left alone, so that an outage costs one timeout and not one for each miss. Reads
    that come together travel together, and so do writes, each kind over one connection.

    What waits is bounded: with `max_reads` waiting a further one is a miss, and beyond
    `max_pending_bytes` answers are not written (`dropped` counts them).
    """

    def __init__(
        self,
        client: Redis,
        *,
        local: AnswerCache,
        clock: Clock,
        max_answer_bytes: int = 2_000_000,
        max_pending_bytes: int = 32_000_000,
        max_reads: int = 1_000,
        pause_s: float = 1.0,
    ) -> None:
        """Take over nothing: whoever made `client` (with two connections or more) closes it."""
        self._client = client
        self._local = local
        self._clock = clock
        self._max_answer_bytes = max_answer_bytes
        self._max_pending_bytes = max_pending_bytes
        self._max_reads = max_reads
        self._pause_s = pause_s
        self._paused_until_s = 0.0
        self._reads: dict[bytes, list[asyncio.Future[CachedAnswer | None]]] = {}
        self._num_reads = 0
        self._writes: dict[bytes, tuple[CachedAnswer, float]] = {}
        self._pending_bytes = 0
        self._reader: asyncio.Task[None] | None = None
        self._writer: asyncio.Task[None] | None = None
        self.failures = 0
        """How often Redis did not answer, or not well."""
        self.dropped = 0
        """Answers that were not written as Redis was away or too slow."""

    def get(self, key: bytes) -> CachedAnswer | None:
        return self._local.get(key)

    async def fetch(self, key: bytes) -> CachedAnswer | None:
        found = self._local.get(key)
        if found is not None or self._is_paused() or self._num_reads >= self._max_reads:
            return found
        asked: asyncio.Future[CachedAnswer | None] = asyncio.get_running_loop().create_future()
        self._reads.setdefault(key, []).append(asked)
        self._num_reads += 1
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read_all())
        return await asked

    def put(self, key: bytes, answer: CachedAnswer, *, ttl_s: float) -> None:
        self._local.put(key, answer, ttl_s=ttl_s)
        size_bytes = answer.size_bytes
        if ttl_s <= 0 or size_bytes > self._max_answer_bytes:
            return
        before = self._writes.pop(key, None)
        if before is not None:
            self._pending_bytes -= before[0].size_bytes
        if self._is_paused() or self._pending_bytes + size_bytes > self._max_pending_bytes:
            self.dropped += 1
            return
        self._writes[key] = (answer, ttl_s)
        self._pending_bytes += size_bytes
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())

    async def close(self) -> None:
        """Write what waits, as far as Redis takes it; readers get a miss."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        if self._writer is not None:
            await self._writer

    async def _read_all(self) -> None:
        asked: list[tuple[bytes, list[asyncio.Future[CachedAnswer | None]]]] = []
        try:
            while self._reads:
                asked = [(key, self._reads.pop(key)) for key in [*self._reads][:_BATCH]]
                found = await self._load([key for key, _ in asked])
                for (_, waiting), answer in zip(asked, found, strict=True):
                    self._answer(waiting, answer)
                asked = []
        finally:
            for waiting in (*(waiting for _, waiting in asked), *self._reads.values()):
                self._answer(waiting, None)
            self._reads.clear()

    def _answer(
        self, waiting: list[asyncio.Future[CachedAnswer | None]], answer: CachedAnswer | None
    ) -> None:
        self._num_reads -= len(waiting)
        for future in waiting:
            if not future.done():  # its client may have left
                future.set_result(answer)

    async def _load(self, keys: list[bytes]) -> list[CachedAnswer | None]:
        missing: list[CachedAnswer | None] = [None] * len(keys)
        if self._is_paused():
            return missing
        try:
            async with self._client.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.get(_PREFIX + key)
                    pipeline.pttl(_PREFIX + key)
                replies = await pipeline.execute(raise_on_error=False)
        except REDIS_ERRORS:
            self._pause()
            return missing
        return [
            self._decoded(key, body, ttl_ms)
            for key, body, ttl_ms in zip(keys, replies[::2], replies[1::2], strict=True)
        ]

    def _decoded(self, key: bytes, body: object, ttl_ms: object) -> CachedAnswer | None:
        if isinstance(body, RedisError) or isinstance(ttl_ms, RedisError):
            self.failures += 1
            return None
        if not isinstance(body, bytes) or not isinstance(ttl_ms, int) or ttl_ms <= 0:
            return None
        try:
            answer = msgspec.msgpack.decode(body, type=CachedAnswer)
        except msgspec.DecodeError:  # which validation errors are as well
            self.failures += 1
            return None
        self._local.put(key, answer, ttl_s=ttl_ms / 1000)
        return answer

    async def _write_all(self) -> None:
        while self._writes:
            batch = [(key, *self._writes.pop(key)) for key in [*self._writes][:_BATCH]]
            self._pending_bytes -= sum(answer.size_bytes for _, answer, _ in batch)
            if not await self._save(batch):
                self.dropped += len(batch) + len(self._writes)
                self._writes.clear()
                self._pending_bytes = 0

    async def _save(self, batch: list[tuple[bytes, CachedAnswer, float]]) -> bool:
        try:
            async with self._client.pipeline(transaction=False) as pipeline:
                for key, answer, ttl_s in batch:
                    ttl_ms = max(int(ttl_s * 1000), 1)
                    pipeline.set(_PREFIX + key, msgspec.msgpack.encode(answer), px=ttl_ms)
                replies = await pipeline.execute(raise_on_error=False)
        except REDIS_ERRORS:
            self._pause()
            return False
        # A server that is full refuses what is new; what it has can still be read.
        refused = sum(isinstance(reply, RedisError) for reply in replies)
        self.failures += refused
        self.dropped += refused
        return True

    def _is_paused(self) -> bool:
        return self._clock.monotonic_s() < self._paused_until_s

    def _pause(self) -> None:
        self.failures += 1
        self._paused_until_s = self._clock.monotonic_s() + self._pause_s
