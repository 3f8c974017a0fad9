"""Answers in this process's memory: bounded in bytes, least recently used out first."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from openworks.core.clock import Clock
from openworks.ports.answers_cache import CachedAnswer

MAX_ANSWER_BYTES: Final = 25_000_000
_ENTRY_BYTES: Final = 300  # the key, the tuple and their places in the dict


class MemoryAnswerCache:
    """The cache of one process, in the order of use.

    Lifetimes run on the monotonic clock: when the time of day jumps, nothing expires early or late.
    """

    def __init__(
        self, *, max_bytes: int, clock: Clock, max_answer_bytes: int = MAX_ANSWER_BYTES
    ) -> None:
        self._entries: OrderedDict[bytes, tuple[CachedAnswer, float, int]] = OrderedDict()
        self._max_bytes = max_bytes
        self._max_answer_bytes = min(max_answer_bytes, max_bytes)
        self._now_s = clock.monotonic_s
        self.size_bytes = 0
        """What the entries take, roughly; at most `max_bytes`."""
        self.evictions = 0
        """How many answers made room for others before they expired."""

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> CachedAnswer | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._now_s() >= entry[1]:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry[0]

    async def fetch(self, key: bytes) -> CachedAnswer | None:
        return self.get(key)

    def put(self, key: bytes, answer: CachedAnswer, *, ttl_s: float) -> None:
        size_bytes = answer.size_bytes + _ENTRY_BYTES
        if key in self._entries:
            self._drop(key)
        if ttl_s <= 0 or size_bytes > self._max_answer_bytes:
            return
        self._entries[key] = (answer, self._now_s() + ttl_s, size_bytes)
        self.size_bytes += size_bytes
        while self.size_bytes > self._max_bytes:
            _, (_, _, freed_bytes) = self._entries.popitem(last=False)
            self.size_bytes -= freed_bytes
            self.evictions += 1

    def _drop(self, key: bytes) -> None:
        self.size_bytes -= self._entries.pop(key)[2]
