"""Which of several equal providers to ask: the healthier and faster, or a session's own."""

from __future__ import annotations

import hashlib
import random
from collections import OrderedDict
from collections.abc import Sequence
from math import exp
from typing import Generic, TypeVar

from openworks.core.clock import Clock

K = TypeVar("K")  # hashable, and with a `repr` that is the same in every process


class Scoreboard(Generic[K]):
    """Remembers how fast and how well each candidate answered, and chooses by it.

    Latency and error rate are moving averages. Both fade over `memory_s` while a candidate is not
    asked, so that one which had a bad time is tried again. At most `max_candidates` are known; the
    one that was asked longest ago is forgotten first.
    """

    def __init__(
        self, clock: Clock, *, memory_s: float = 30.0, max_candidates: int = 10_000
    ) -> None:
        self._clock = clock
        self._memory_s = memory_s
        self._max_candidates = max_candidates
        self._marks: OrderedDict[K, _Mark] = OrderedDict()

    def begin(self, key: K) -> None:
        """Count an attempt that starts; it ends with one `end`."""
        self._mark(key).pending += 1

    def end(self, key: K, *, ok: bool | None, first_byte_s: float | None = None) -> None:
        """Count how an attempt ended.

        Args:
            key: The candidate.
            ok: None when nothing was learnt, as when the client left.
            first_byte_s: How long the first byte took, if one came.
        """
        mark = self._mark(key)
        mark.pending = max(mark.pending - 1, 0)
        if ok is None:
            return
        now_s = self._clock.monotonic_s()
        kept = 0.8 * exp(-(now_s - mark.seen_s) / self._memory_s)
        mark.seen_s = now_s
        mark.error_rate = mark.error_rate * kept + (0.0 if ok else 1.0 - kept)
        if first_byte_s is not None:
            before_s = first_byte_s if mark.latency_s is None else mark.latency_s
            mark.latency_s = before_s * kept + first_byte_s * (1 - kept)

    def score(self, key: K) -> float:
        """Return what asking a candidate is expected to cost, in seconds; lower is better."""
        mark = self._marks.get(key)
        if mark is None:
            return 0.0  # unknown ones are tried first
        faded = exp(-(self._clock.monotonic_s() - mark.seen_s) / self._memory_s)
        latency_s = (mark.latency_s if mark.latency_s is not None else 0.05) * faded
        success = max(1.0 - mark.error_rate * faded, 0.02)
        return latency_s * (1 + mark.pending) / (success * success)

    def choose(self, candidates: Sequence[K], rng: random.Random) -> K:
        """Return the better of two drawn at random (the power of two choices).

        Always taking the best of all would send everyone to it at once.
        """
        if len(candidates) == 1:
            return candidates[0]
        first, second = rng.sample(candidates, 2)
        return first if self.score(first) <= self.score(second) else second

    def order(self, candidates: Sequence[K], rng: random.Random) -> list[K]:
        """Return all candidates: the chosen one, then the others as fallbacks, best first."""
        chosen = self.choose(candidates, rng)
        rest = [key for key in candidates if key != chosen]
        rest.sort(key=self.score)
        return [chosen, *rest]

    def _mark(self, key: K) -> _Mark:
        mark = self._marks.get(key)
        if mark is not None:
            self._marks.move_to_end(key)
            return mark
        if len(self._marks) >= self._max_candidates:
            self._marks.popitem(last=False)
        mark = self._marks[key] = _Mark(self._clock.monotonic_s())
        return mark


class _Mark:
    __slots__ = ("error_rate", "latency_s", "pending", "seen_s")

    def __init__(self, now_s: float) -> None:
        self.latency_s: float | None = None
        self.error_rate = 0.0
        self.pending = 0
        self.seen_s = now_s


def sticky(candidates: Sequence[K], session: str) -> K:
    """Return the same candidate for the same session, in every process (rendezvous hashing).

    When a candidate goes, only its own sessions move; when one comes, it takes an equal share from
    each of the others.
    """
    seed = hashlib.blake2b(session.encode(), digest_size=32).digest()

    def affinity(key: K) -> tuple[bytes, str]:
        name = repr(key)
        return hashlib.blake2b(name.encode(), key=seed, digest_size=8).digest(), name

    return max(candidates, key=affinity)
