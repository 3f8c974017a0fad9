"""What a round is for every contestant: prompts of equal length, and figures from token times."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

PROMPT_TOKENS = 17
WORDS = range(256, 500)
"""Ids that are words of every vocabulary of `random_model`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """So many streams at once, stream i with adapter `adapters[i]`."""

    streams: int
    tokens: int
    adapters: tuple[int | None, ...]
    """One for each stream; None for the base model."""
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One round of one contestant."""

    tokens_per_s: float
    """Of all streams together, while all of them decode; where they never do, from the first token
    to the last."""
    first_token_p50_ms: float
    between_p50_ms: float
    between_p99_ms: float


def prompts(round_: Round) -> list[list[int]]:
    """Return one prompt of random words for each stream."""
    rng = random.Random(round_.seed)
    return [rng.choices(WORDS, k=PROMPT_TOKENS) for _ in range(round_.streams)]


def figures(times_s: Sequence[Sequence[float]]) -> Figures:
    """Turn the times at which each stream's tokens came, since the start, into figures."""
    begin_s = max(times[0] for times in times_s)
    end_s = min(times[-1] for times in times_s)
    if end_s <= begin_s:  # one after another
        begin_s = min(times[0] for times in times_s)
        end_s = max(times[-1] for times in times_s)
    inside = sum(begin_s < at <= end_s for times in times_s for at in times)
    gaps = sorted(
        later - earlier
        for times in times_s
        for earlier, later in pairwise(times)
        if earlier >= begin_s
    )
    return Figures(
        tokens_per_s=inside / (end_s - begin_s),
        first_token_p50_ms=1000 * statistics.median(times[0] for times in times_s),
        between_p50_ms=1000 * statistics.median(gaps),
        between_p99_ms=1000 * gaps[min(len(gaps) - 1, int(len(gaps) * 0.99))],
    )
