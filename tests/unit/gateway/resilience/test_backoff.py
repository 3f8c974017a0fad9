from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworks.gateway.resilience.backoff import (
    MAX_DELAY_S,
    RetryBudget,
    delay_s,
    is_failure,
    is_retryable,
    retry_after_s,
)
from openworks.ports.gateways import RetryPolicy
from openworks.ports.upstream import FailureKind, UpstreamError
from tests.fakes import FakeClock


class Highest(random.Random):
    """Always draws (almost) the largest number."""

    def random(self) -> float:
        return 1.0


def error(kind: FailureKind) -> UpstreamError:
    return UpstreamError("It failed.", kind=kind, unread=False)


@pytest.mark.parametrize(
    ("backoff", "delays"),
    [
        ("constant", [0.5, 0.5, 0.5, 0.5]),
        ("linear", [0.5, 1.0, 1.5, 2.0]),
        ("exponential", [0.5, 1.0, 2.0, 4.0]),
    ],
)
def test_delays_grow_as_the_policy_says(backoff: str, delays: list[float]) -> None:
    policy = RetryPolicy(delay_ms=500, backoff=backoff)  # type: ignore[arg-type] # parametrized
    assert [delay_s(policy, attempt, Highest()) for attempt in (1, 2, 3, 4)] == delays


@given(
    st.integers(0, 60_000),
    st.sampled_from(["constant", "linear", "exponential"]),
    st.integers(1, 10**6),
    st.none() | st.floats(0, 60),
    st.randoms(use_true_random=False),
)
def test_delays_are_bounded_and_never_before_retry_after(
    delay_ms: int, backoff: str, attempt: int, after_s: float | None, rng: random.Random
) -> None:
    policy = RetryPolicy(delay_ms=delay_ms, backoff=backoff)  # type: ignore[arg-type] # drawn
    waited = delay_s(policy, attempt, rng, retry_after_s=after_s)
    assert waited is not None
    assert (after_s or 0.0) <= waited <= MAX_DELAY_S * 1.1 + 6


def test_jitter_spreads_over_the_whole_delay() -> None:
    policy = RetryPolicy(delay_ms=1_000, backoff="constant")
    rng = random.Random(7)
    drawn = [delay_s(policy, 1, rng) or 0.0 for _ in range(1_000)]
    assert min(drawn) < 0.05
    assert max(drawn) > 0.95


def test_a_long_retry_after_makes_another_try_senseless() -> None:
    assert delay_s(RetryPolicy(), 1, Highest(), retry_after_s=61) is None


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([(b"retry-after", b"7")], 7.0),
        ([(b"retry-after", b"0.5")], 0.5),
        ([(b"retry-after", b"7"), (b"retry-after-ms", b"250")], 0.25),
        ([(b"retry-after", b"Mon, 21 Sep 2026 14:13:30 GMT")], 10.0),
        ([(b"retry-after", b"Mon, 21 Sep 2026 14:13:30 -0000")], 10.0),
        ([(b"retry-after", b"Mon, 21 Sep 2026 14:13:10 GMT")], 0.0),
        ([(b"retry-after", b"soon")], None),
        ([(b"retry-after", b"-3")], None),
        ([(b"retry-after", b"nan")], None),
        ([(b"retry-after", b"\xff")], None),
        ([(b"retry-after", b"")], None),
        ([(b"content-type", b"x")], None),
    ],
)
def test_retry_after_is_read_in_every_spelling(
    headers: list[tuple[bytes, bytes]], expected: float | None
) -> None:
    assert retry_after_s(headers, now_s=1_790_000_000.0) == expected


@given(st.binary(max_size=40))
def test_no_retry_after_can_break_the_reader(value: bytes) -> None:
    after_s = retry_after_s([(b"retry-after", value)], now_s=1_790_000_000.0)
    assert after_s is None or after_s >= 0


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_passing_errors_are_asked_again(status: int) -> None:
    assert is_retryable(status)


@pytest.mark.parametrize("status", [200, 204, 301, 400, 401, 403, 404, 413, 422, 501])
def test_lasting_errors_are_not_asked_again(status: int) -> None:
    assert not is_retryable(status)
    assert is_failure(status) is (status >= 400)


def test_broken_connections_are_asked_again_and_nonsense_is_not() -> None:
    kinds: list[FailureKind] = ["connect", "tls", "timeout", "reset", "overloaded"]
    assert all(is_retryable(error(kind)) for kind in kinds)
    assert not is_retryable(error("protocol"))
    assert is_failure(error("protocol"))


def test_retries_are_a_tenth_of_the_traffic() -> None:
    budget = RetryBudget(FakeClock(), ratio=0.1, floor_per_s=0.0)
    granted = 0
    for _ in range(1_000):
        budget.earn()
        granted += budget.spend()
    assert 95 <= granted <= 100


def test_a_quiet_gateway_may_still_retry() -> None:
    clock = FakeClock()
    budget = RetryBudget(clock, ratio=0.1, floor_per_s=1.0)
    assert [budget.spend() for _ in range(11)] == [True] * 10 + [False]
    clock.advance(2)
    assert [budget.spend() for _ in range(3)] == [True, True, False]


def test_what_is_not_spent_does_not_pile_up() -> None:
    clock = FakeClock()
    budget = RetryBudget(clock, ratio=0.1, floor_per_s=1.0)
    for _ in range(100_000):
        budget.earn()
    clock.advance(10_000)
    granted = 0
    while budget.spend():
        granted += 1
    assert granted == 20
