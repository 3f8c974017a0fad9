"""Answers to questions that mean the same, found by comparing vectors."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from dataclasses import dataclass
from math import sqrt
from operator import mul
from typing import Final

from openworks.core.clock import Clock
from openworks.core.errors import AppError
from openworks.ports.answers_cache import CachedAnswer
from openworks.ports.text import Embedder, EmbeddingRequest

_BLOCK: Final = 64  # dimensions that are compared before a candidate is given up


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """What a look into the cache found, and what `put` needs when it found nothing."""

    scope: bytes
    vector: tuple[float, ...]
    """Of unit length; empty when the embedder failed, and nothing can be put."""
    answer: CachedAnswer | None = None
    similarity: float = 0.0
    """The cosine of the two questions; 0.0 without an answer."""


@dataclass(slots=True)
class _Entry:
    vector: tuple[float, ...]
    tails: tuple[float, ...]
    answer: CachedAnswer
    expires_s: float
    size_bytes: int


class SemanticCache:
    """Remembers a bounded set of answered questions, each in the scope of everything else in it.

    A scope is a digest over account, gateway, credential and all of the request but its last user
    text (`questions.question_scope`), so that only questions that could share an answer are
    compared. A scope that is full forgets its oldest entry; when the whole is too large, the scope
    that was used longest ago loses its oldest ones.
    """

    def __init__(
        self,
        *,
        embedder: Embedder,
        clock: Clock,
        max_entries_per_scope: int = 500,
        max_bytes: int = 64_000_000,
    ) -> None:
        self._embedder = embedder
        self._now_s = clock.monotonic_s
        self._scopes: OrderedDict[bytes, list[_Entry]] = OrderedDict()
        self._max_entries_per_scope = max_entries_per_scope
        self._max_bytes = max_bytes
        self.size_bytes = 0
        """What all entries take, roughly; at most `max_bytes`."""
        self.embedder_failures = 0
        """How often a question could not be embedded, which counts as a miss."""

    async def look(self, scope: bytes, text: str, *, threshold: float) -> Likeness:
        """Embed a question and return the answer to the one most like it in its scope."""
        vector = await self._embed(text)
        entries = self._alive(scope) if vector else []
        best, similarity = None, threshold
        if entries:
            tails = _tails(vector)
            for entry in entries:
                found = _cosine(vector, tails, entry, similarity)
                if found is not None:
                    best, similarity = entry, found
        if best is None:
            return Likeness(scope=scope, vector=vector)
        self._scopes.move_to_end(scope)
        return Likeness(
            scope=scope, vector=vector, answer=best.answer, similarity=min(similarity, 1.0)
        )

    def put(self, likeness: Likeness, answer: CachedAnswer, *, ttl_s: float) -> None:
        """Keep the answer to the question of a look that found none."""
        vector = likeness.vector
        # A tuple keeps floats as objects of 32 bytes, the price of a scan without numpy.
        size_bytes = answer.size_bytes + 40 * len(vector) + 500
        if not vector or ttl_s <= 0 or size_bytes > self._max_bytes:
            return
        entries = self._scopes.setdefault(likeness.scope, [])
        self._scopes.move_to_end(likeness.scope)
        if len(entries) >= self._max_entries_per_scope:
            self.size_bytes -= entries.pop(0).size_bytes
        expires_s = self._now_s() + ttl_s
        entries.append(_Entry(vector, _tails(vector), answer, expires_s, size_bytes))
        self.size_bytes += size_bytes
        while self.size_bytes > self._max_bytes:
            self._forget_one()

    async def _embed(self, text: str) -> tuple[float, ...]:
        try:
            result = await self._embedder.embed(EmbeddingRequest(inputs=[text]))
        except AppError:
            self.embedder_failures += 1
            return ()
        vector = array("f")
        vector.frombytes(result.vectors[0])
        length = sqrt(sum(map(mul, vector, vector)))
        return tuple(x / length for x in vector) if length else ()

    def _alive(self, scope: bytes) -> list[_Entry]:
        entries = self._scopes.get(scope)
        if not entries:
            return []
        now_s = self._now_s()
        if any(entry.expires_s <= now_s for entry in entries):
            kept = [entry for entry in entries if entry.expires_s > now_s]
            self.size_bytes -= sum(e.size_bytes for e in entries) - sum(e.size_bytes for e in kept)
            entries[:] = kept
            if not kept:
                del self._scopes[scope]
        return entries

    def _forget_one(self) -> None:
        scope, entries = next(iter(self._scopes.items()))
        self.size_bytes -= entries.pop(0).size_bytes
        if not entries:
            del self._scopes[scope]


def _tails(vector: tuple[float, ...]) -> tuple[float, ...]:
    """Return the length of what is left of a vector after each block."""
    squares = [
        sum(map(mul, vector[i : i + _BLOCK], vector[i : i + _BLOCK]))
        for i in range(0, len(vector), _BLOCK)
    ]
    return tuple(sqrt(max(sum(squares[i:]), 0.0)) for i in range(1, len(squares) + 1))


def _cosine(
    vector: tuple[float, ...], tails: tuple[float, ...], entry: _Entry, least: float
) -> float | None:
    """Return the cosine of two unit vectors, None as soon as it cannot reach `least`.

    What the remaining dimensions can still add is bounded by the product of their lengths
    (Cauchy-Schwarz), so that unlike vectors are told apart after one or two blocks.
    """
    other = entry.vector
    if len(other) != len(vector):
        return None
    total = 0.0
    for block, (tail, other_tail) in enumerate(zip(tails, entry.tails, strict=True)):
        start = block * _BLOCK
        total += sum(map(mul, vector[start : start + _BLOCK], other[start : start + _BLOCK]))
        if total + tail * other_tail < least - 1e-6:
            return None
    return total if total >= least - 1e-6 else None
