"""How calls are added up: levels of time, families of properties, histogram buckets, columns.

Plain names and numbers, for the writer, the queries, the tables and their migration alike.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

MINUTE_S: Final = 60
HOUR_S: Final = 3600
DAY_S: Final = 86_400
LEVELS_S: Final = (MINUTE_S, HOUR_S, DAY_S)

MINUTES_KEPT_S: Final = 3 * DAY_S
"""How long sums by the minute are kept; those by the hour and by the day stay."""

DIMENSIONS: Final = (
    "gateway_id",
    "provider",
    "model",
    "key_id",
    "route",
    "status",
    "cached",
    "stream",
)
FAMILIES: Final[dict[str, tuple[str, ...]]] = {
    "route": ("route",),
    "model": ("provider", "model"),
    "key": ("key_id",),
    "status": ("status", "cached", "stream"),
}
"""Every call counts once in each family of `call_rollups`, which knows only these properties (and
account, gateway and time): so a family stays small however many models and keys there are.
`call_sums` crosses all properties, without histograms."""

SUMS: Final = (
    "requests",
    "errors",
    "cached_calls",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "cost_usd",
    "duration_ms",
    "first_tokens",
    "first_token_ms",
)
"""`first_tokens` counts the calls that had one; the two `_ms` are sums."""

BOUNDS_MS: Final = tuple(1.5**power for power in range(31))
"""Upper ends of the buckets, from 1 ms to 192 s; a last bucket has no end."""
NUM_BUCKETS: Final = len(BOUNDS_MS) + 1
DURATION_BUCKETS: Final = tuple(f"d{index:02}" for index in range(NUM_BUCKETS))
FIRST_TOKEN_BUCKETS: Final = tuple(f"f{index:02}" for index in range(NUM_BUCKETS))

ROLLUP_KEY: Final = ("family", "level_s", "account_id", "bucket_s", *DIMENSIONS)
ROLLUP_VALUES: Final = (*SUMS, *DURATION_BUCKETS, *FIRST_TOKEN_BUCKETS)
SUMS_KEY: Final = ("level_s", "account_id", "bucket_s", *DIMENSIONS)


def quantiles_ms(counts: Sequence[int], shares: Sequence[float]) -> list[float] | None:
    """Estimate the durations below which each share of the calls stays; None without calls.

    Inside a bucket, durations are taken as spread evenly on a logarithmic scale; the last bucket
    counts as its lower end.

    Args:
        counts: Calls in each bucket.
        shares: Each in (0, 1].
    """
    seen = list(accumulate(counts))
    total = seen[-1]
    if not total:
        return None
    found = []
    for share in shares:
        rank = share * total
        index = bisect_left(seen, rank)
        inside = 1 - (seen[index] - rank) / counts[index]
        found.append(1.5 ** (index + inside - 1) if index < len(BOUNDS_MS) else BOUNDS_MS[-1])
    return found
