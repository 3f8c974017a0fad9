"""Whether to ask a provider again, and when."""

from __future__ import annotations

import random
from collections import OrderedDict
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from openworks.core.clock import Clock
from openworks.ports.gateways import RetryPolicy
from openworks.ports.upstream import Headers, UpstreamError

MAX_DELAY_S: Final = 60.0
MAX_RETRY_AFTER_S: Final = 60.0

_RETRYABLE: Final = frozenset(
    {
        408,  # the provider did not get the request in time
        409,  # a lock that is held, with several providers
        425,
        429,
        500,
        502,
        503,
        504,
        520, 521, 522, 523, 524,  # a provider behind Cloudflare that does not answer
        529,  # Anthropic is overloaded
    }
)  # fmt: skip


def is_failure(outcome: int | UpstreamError) -> bool:
    """Whether an attempt failed, so that the next step of a fallback is due: every error status.

    A 400 counts too, as documented: what one provider refuses another may take.
    """
    return isinstance(outcome, UpstreamError) or outcome >= 400


def is_retryable(outcome: int | UpstreamError) -> bool:
    """Whether the same provider may well do better when asked again.

    Only for attempts of whose answer the client has seen nothing. A provider that read a request
    and never answered may have charged for it; asking again is what the caller's policy says.
    """
    if isinstance(outcome, UpstreamError):
        return outcome.kind != "protocol"  # who does not speak HTTP will not learn it
    return outcome in _RETRYABLE


def delay_s(
    policy: RetryPolicy,
    attempt: int,
    rng: random.Random,
    *,
    retry_after_s: float | None = None,
) -> float | None:
    """Return how long to wait before asking again, None when that makes no sense.

    Full jitter: anything from nothing to the delay of the policy, so that many who failed together
    do not come back together. A provider's `Retry-After` is waited out in full, and a little more;
    when it is longer than a minute, another provider is the better choice.

    Args:
        policy: Says the delay and how it grows.
        attempt: How many attempts failed so far, from 1.
        rng: Where the jitter comes from.
        retry_after_s: What the provider said.
    """
    if retry_after_s is not None and retry_after_s > MAX_RETRY_AFTER_S:
        return None
    most_s = policy.delay_ms / 1000
    if policy.backoff == "linear":
        most_s *= attempt
    elif policy.backoff == "exponential":
        most_s *= 2 ** min(attempt - 1, 16)
    most_s = min(most_s, MAX_DELAY_S)
    if retry_after_s is not None:
        spread_s = max(most_s, retry_after_s) * 0.1
        return retry_after_s + rng.random() * spread_s
    return rng.random() * most_s


def retry_after_s(headers: Headers, *, now_s: float) -> float | None:
    """Return what `retry-after-ms` or `Retry-After` says in seconds from now, None when neither.

    Seconds and HTTP dates are understood; a date that has passed is 0.
    """
    after_s: float | None = None
    for name, value in headers:
        if name == b"retry-after-ms":
            milliseconds = _number(value)
            if milliseconds is not None:
                return milliseconds / 1000
        elif name == b"retry-after" and after_s is None:
            after_s = _number(value)
            if after_s is None:
                after_s = _seconds_until(value, now_s)
    return after_s


def _number(value: bytes) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if 0 <= number < 1e9 else None  # NaN compares false


def _seconds_until(value: bytes, now_s: float) -> float | None:
    try:
        date = parsedate_to_datetime(value.decode("ascii"))
    except (ValueError, UnicodeDecodeError, OverflowError):
        return None
    if date.tzinfo is None:  # `-0000`, which is still UTC
        date = date.replace(tzinfo=UTC)
    return max(date.timestamp() - now_s, 0.0)


class RetryBudgets:
    """A budget for each provider and credential: what fails for one caller is not another's loss.

    At most `limit` are kept; the one that was used longest ago goes first.
    """

    def __init__(self, clock: Clock, *, limit: int = 10_000) -> None:
        self._clock = clock
        self._limit = limit
        self._budgets: OrderedDict[tuple[str, bytes], RetryBudget] = OrderedDict()

    def of(self, key: tuple[str, bytes]) -> RetryBudget:
        """Return the budget of a provider's slug and a credential's digest."""
        budget = self._budgets.get(key)
        if budget is not None:
            self._budgets.move_to_end(key)
            return budget
        if len(self._budgets) >= self._limit:
            self._budgets.popitem(last=False)
        budget = self._budgets[key] = RetryBudget(self._clock)
        return budget


class RetryBudget:
    """Keeps retries to a share of the traffic, so that they cannot drown a provider that is ill.

    Every request earns `ratio` of a retry, and time earns `floor_per_s`, so that a quiet gateway
    may still retry; what is not spent in about ten seconds is forfeit.
    """

    __slots__ = ("_balance", "_clock", "_floor_per_s", "_most", "_ratio", "_since_s")

    def __init__(self, clock: Clock, *, ratio: float = 0.1, floor_per_s: float = 1.0) -> None:
        self._clock = clock
        self._ratio = ratio
        self._floor_per_s = floor_per_s
        self._most = floor_per_s * 10 + 100 * ratio
        self._balance = floor_per_s * 10
        self._since_s = clock.monotonic_s()

    def earn(self) -> None:
        """Count a request that is not a retry."""
        self._balance = min(self._balance + self._ratio, self._most)

    def spend(self) -> bool:
        """Take one retry out of the budget; False, and nothing taken, when there is none."""
        now_s = self._clock.monotonic_s()
        earned = (now_s - self._since_s) * self._floor_per_s
        self._since_s = now_s
        self._balance = min(self._balance + earned, self._most)
        if self._balance < 1:
            return False
        self._balance -= 1
        return True
