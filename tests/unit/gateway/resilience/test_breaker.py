from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworks.gateway.resilience.breaker import (
    REFUSED,
    Breaker,
    BreakerConfig,
    Breakers,
    BreakerState,
    Verdict,
    verdict,
)
from openworks.ports.upstream import UpstreamError
from tests.fakes import FakeClock

CONFIG = BreakerConfig(min_calls=4, open_s=5.0, probes=2)


def breaker_of(clock: FakeClock) -> Breaker:
    return Breaker(CONFIG, clock)


def call(breaker: Breaker, said: Verdict, *, retry_after_s: float | None = None) -> bool:
    ticket = breaker.admit()
    if ticket == REFUSED:
        return False
    breaker.record(ticket, said, retry_after_s=retry_after_s)
    return True


def state_of(breaker: Breaker) -> BreakerState:
    """Read the state anew: a type checker believes that a property stays as it was."""
    return breaker.state


def opened(clock: FakeClock) -> Breaker:
    breaker = breaker_of(clock)
    for _ in range(4):
        call(breaker, "error")
    assert state_of(breaker) == "open"
    return breaker


def test_it_opens_at_the_error_rate_and_not_before_enough_calls() -> None:
    breaker = breaker_of(FakeClock())
    for said in ("error", "error", "ok"):
        assert call(breaker, said)
    assert state_of(breaker) == "closed"
    call(breaker, "error")
    assert state_of(breaker) == "open"
    assert breaker.admit() == REFUSED
    assert not breaker.allows()


def test_errors_fade_out_of_the_window() -> None:
    clock = FakeClock()
    breaker = breaker_of(clock)
    for _ in range(3):
        call(breaker, "error")
    clock.advance(31)
    for _ in range(3):
        call(breaker, "ok")
    call(breaker, "error")
    assert state_of(breaker) == "closed"
    assert breaker.view("p", "m").calls == 4


def test_repeated_truncations_open_it_whatever_the_rate() -> None:
    breaker = breaker_of(FakeClock())
    for _ in range(50):
        call(breaker, "ok")
    for _ in range(3):
        assert state_of(breaker) == "closed"
        call(breaker, "truncated")
    assert state_of(breaker) == "open"


def test_a_whole_answer_between_truncations_starts_their_count_again() -> None:
    breaker = breaker_of(FakeClock())
    for _ in range(20):
        call(breaker, "ok")
    for _ in range(4):
        call(breaker, "truncated")
        call(breaker, "truncated")
        call(breaker, "ok")
    assert state_of(breaker) == "closed"


def test_retry_after_opens_it_at_once_for_that_long() -> None:
    clock = FakeClock()
    breaker = breaker_of(clock)
    call(breaker, "error", retry_after_s=20)
    assert breaker.open_for_s == pytest.approx(20)
    clock.advance(19.9)
    assert breaker.admit() == REFUSED
    clock.advance(0.1)
    assert breaker.admit() != REFUSED


def test_no_retry_after_keeps_it_open_for_ever() -> None:
    breaker = breaker_of(FakeClock())
    call(breaker, "error", retry_after_s=10**9)
    assert breaker.open_for_s == 300


def test_one_probe_at_a_time_and_enough_of_them_close_it() -> None:
    clock = FakeClock()
    breaker = opened(clock)
    clock.advance(5)
    assert breaker.allows()
    probe = breaker.admit()
    assert probe != REFUSED
    assert state_of(breaker) == "half_open"
    assert breaker.admit() == REFUSED
    breaker.record(probe, "ok")
    assert call(breaker, "ok")
    assert state_of(breaker) == "closed"
    assert breaker.view("p", "m").errors == 0


def test_a_failed_probe_opens_it_for_twice_as_long() -> None:
    clock = FakeClock()
    breaker = opened(clock)
    clock.advance(5)
    call(breaker, "error")
    assert breaker.open_for_s == pytest.approx(10)
    clock.advance(10)
    call(breaker, "ok")
    call(breaker, "ok")
    for _ in range(4):
        call(breaker, "error")
    assert breaker.open_for_s == pytest.approx(5)  # closed in between, it begins anew


def test_a_probe_that_learnt_nothing_makes_room_for_another() -> None:
    clock = FakeClock()
    breaker = opened(clock)
    clock.advance(5)
    call(breaker, "neutral")
    assert state_of(breaker) == "half_open"
    assert call(breaker, "ok")


def test_a_probe_that_is_never_heard_of_is_forgotten() -> None:
    clock = FakeClock()
    breaker = opened(clock)
    clock.advance(5)
    assert breaker.admit() != REFUSED
    clock.advance(59)
    assert breaker.admit() == REFUSED
    clock.advance(1)
    assert breaker.admit() != REFUSED


def test_news_from_before_it_opened_changes_nothing() -> None:
    clock = FakeClock()
    breaker = breaker_of(clock)
    old = breaker.admit()
    for _ in range(4):
        call(breaker, "error")
    clock.advance(5)
    probe = breaker.admit()
    breaker.record(old, "error")
    assert state_of(breaker) == "half_open"
    breaker.record(probe, "ok")
    breaker.record(old, "ok")
    assert state_of(breaker) == "half_open"


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (200, "ok"),
        (302, "ok"),
        (400, "neutral"),
        (401, "neutral"),
        (404, "neutral"),
        (408, "error"),
        (429, "error"),
        (500, "error"),
        (529, "error"),
        (UpstreamError("x", kind="reset", unread=False), "error"),
        (UpstreamError("x", kind="overloaded", unread=True), "neutral"),
    ],
)
def test_faults_of_the_caller_say_nothing_about_the_provider(
    outcome: int | UpstreamError, expected: Verdict
) -> None:
    assert verdict(outcome) == expected


def test_circuits_are_bounded_and_open_ones_stay() -> None:
    clock = FakeClock()
    breakers = Breakers(clock, CONFIG, max_breakers=3)
    call(breakers.of(("p", b"", "bad")), "error", retry_after_s=60)
    for number in range(10):
        breakers.of(("p", b"", str(number)))
    assert len(breakers) == 3
    assert breakers.of(("p", b"", "bad")).state == "open"


def test_the_snapshot_shows_what_is_not_well_and_no_credential() -> None:
    breakers = Breakers(FakeClock(), CONFIG)
    call(breakers.of(("openai", b"secret", "gpt-5")), "ok")
    call(breakers.of(("groq", b"secret", "llama")), "error", retry_after_s=60)
    (view,) = breakers.snapshot()
    assert (view.provider, view.model, view.state, view.open_for_s) == (
        "groq",
        "llama",
        "open",
        60.0,
    )
    assert "secret" not in repr(breakers.snapshot(all_states=True))


steps = st.lists(
    st.one_of(
        st.sampled_from(["ok", "error", "truncated", "neutral", "lost"]), st.floats(0.1, 100.0)
    ),
    max_size=80,
)


@given(steps)
def test_every_breaker_lets_a_call_pass_again_in_time(todo: list[str | float]) -> None:
    clock = FakeClock()
    breaker = breaker_of(clock)
    for step in todo:
        if isinstance(step, float):
            clock.advance(step)
            continue
        ticket = breaker.admit()
        if ticket != REFUSED and step != "lost":
            breaker.record(ticket, step)  # type: ignore[arg-type] # a verdict
        view = breaker.view("p", "m")
        assert 0 <= view.errors <= view.calls
    clock.advance(301)
    assert breaker.allows()
    assert breaker.admit() != REFUSED
