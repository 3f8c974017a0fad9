from __future__ import annotations

import math
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openworks.core.ids import AccountId
from openworks.gateway.limits.admission import duration
from openworks.gateway.limits.base import LimitsConfig
from openworks.gateway.limits.local import LocalLimiter
from openworks.ports.gateways import Gateway, RateLimit, Selector, SpendRule, Technique
from openworks.ports.limits import Admission, Claim, Refusal, Spent
from tests.fakes import FakeClock
from tests.unit.gateway.limits.claims import ACCOUNT, claim, gateway

NOON_S = 1_790_000_000.0 // 86_400 * 86_400 + 43_200


class Clock(FakeClock):
    def jump(self, seconds: float) -> None:
        """Move the wall clock alone."""
        self._now_s += seconds


def make(config: LimitsConfig | None = None) -> tuple[LocalLimiter, Clock]:
    clock = Clock(NOON_S)
    return LocalLimiter(clock=clock, config=config or LimitsConfig()), clock


def admit(limiter: LocalLimiter, asked: Claim) -> Admission | Refusal:
    decision = limiter.admit(asked)
    assert isinstance(decision, Refusal) or hasattr(decision, "settle")
    return decision  # type: ignore[return-value]  # asserted just now


def passes(limiter: LocalLimiter, asked: Claim) -> bool:
    return not isinstance(admit(limiter, asked), Refusal)


def refused(limiter: LocalLimiter, asked: Claim) -> Refusal:
    decision = admit(limiter, asked)
    assert isinstance(decision, Refusal)
    return decision


def passed(limiter: LocalLimiter, asked: Claim) -> Admission:
    decision = admit(limiter, asked)
    assert not isinstance(decision, Refusal)
    return decision


def test_fixed_window_opens_again_at_its_edge() -> None:
    limiter, clock = make()
    asked = claim(gateway(RateLimit(limit=2, interval_s=60)))
    clock.advance(45)
    assert [passes(limiter, asked) for _ in range(3)] == [True, True, False]
    refusal = refused(limiter, asked)
    assert (refusal.kind, refusal.bucket, refusal.limit, refusal.used) == ("rate", "gateway", 2, 2)
    assert refusal.retry_after_s == 15
    clock.advance(15)
    assert passes(limiter, asked)


def test_sliding_window_forgets_each_request_at_its_own_time() -> None:
    limiter, clock = make()
    asked = claim(gateway(RateLimit(limit=2, interval_s=60, technique="sliding")))
    assert passes(limiter, asked)
    clock.advance(30)
    assert passes(limiter, asked)
    assert refused(limiter, asked).retry_after_s == 30
    clock.advance(30)
    assert [passes(limiter, asked) for _ in range(2)] == [True, False]


@pytest.mark.parametrize(
    ("per", "first", "second"),
    [
        ("key", {"key": "a"}, {"key": "b"}),
        ("model", {"model": "a"}, {"model": "b"}),
        ("provider", {"provider": "a"}, {"provider": "b"}),
        ("metadata.team", {"metadata": {"team": "a"}}, {"metadata": {"team": "b"}}),
        ("metadata.team", {"metadata": {"team": "a"}}, {}),
        ("gateway", {"account": AccountId("acme")}, {"account": AccountId("other")}),
    ],
)
def test_each_value_has_a_count_of_its_own(
    per: str,
    first: dict[str, str],
    second: dict[str, str],
) -> None:
    limiter, _ = make()
    of = gateway(RateLimit(limit=1, interval_s=60, per=per))
    assert passes(limiter, claim(of, **first))  # type: ignore[arg-type]  # keywords by name
    assert not passes(limiter, claim(of, **first))  # type: ignore[arg-type]
    assert passes(limiter, claim(of, **second))  # type: ignore[arg-type]


def test_refused_call_is_counted_by_no_window() -> None:
    limiter, _ = make()
    of = gateway(
        RateLimit(limit=5, interval_s=60),
        RateLimit(limit=1, interval_s=60, per="key"),
        SpendRule(id="cap", limit=10, unit="tokens", window_s=3600),
    )
    assert passes(limiter, claim(of, key="a", tokens=2))
    for _ in range(10):
        assert refused(limiter, claim(of, key="a", tokens=2)).bucket == "key"
        assert refused(limiter, claim(of, key="b", tokens=9)).bucket == "cap"
    assert [passes(limiter, claim(of, key=each)) for each in "bcdef"] == [True] * 4 + [False]


def test_budget_is_reserved_before_and_settled_once_after() -> None:
    limiter, _ = make()
    of = gateway(SpendRule(id="cap", limit=1.0, window_s=86_400))
    first = passed(limiter, claim(of, cost_usd=0.7))
    refusal = refused(limiter, claim(of, cost_usd=0.4))
    assert (refusal.kind, refusal.bucket, refusal.limit, refusal.used) == ("spend", "cap", 1.0, 0.7)
    assert refusal.retry_after_s == 43_200
    first.settle(tokens=0, cost_usd=0.1)
    first.settle(tokens=0, cost_usd=0.0)
    (state,) = limiter.budgets(ACCOUNT, of)
    assert (state.spent, state.reserved) == (0.1, 0.0)
    assert passes(limiter, claim(of, cost_usd=0.9))
    assert not passes(limiter, claim(of, cost_usd=0.0))


@pytest.mark.parametrize("technique", ["fixed", "sliding"])
def test_call_that_outlives_its_window_counts_in_the_one_it_began_in(technique: Technique) -> None:
    limiter, clock = make()
    of = gateway(SpendRule(id="cap", limit=10, unit="tokens", window_s=3600, technique=technique))
    call = passed(limiter, claim(of, tokens=10))
    clock.advance(3600 + 61)
    assert passes(limiter, claim(of, tokens=8))
    call.settle(tokens=10, cost_usd=0.0)
    (state,) = limiter.budgets(ACCOUNT, of)
    assert (state.spent, state.reserved) == (0, 8)


def test_spend_rules_filter_and_partition() -> None:
    limiter, _ = make()
    of = gateway(
        SpendRule(
            id="team",
            limit=10,
            unit="tokens",
            window_s=3600,
            by={
                "model": Selector(mode="filter", values=("big",)),
                "metadata.team": Selector(mode="partition"),
            },
        )
    )
    red, blue = {"team": "red/1"}, {"team": "blue"}
    assert passes(limiter, claim(of, model="small", metadata=red, tokens=1000))
    assert passes(limiter, claim(of, model="big", metadata=red, tokens=10))
    assert not passes(limiter, claim(of, model="big", metadata=red, tokens=1))
    assert passes(limiter, claim(of, model="big", metadata=blue, tokens=9))
    states = {state.values: state.reserved for state in limiter.budgets(ACCOUNT, of)}
    assert states == {("red/1",): 10, ("blue",): 9}


def test_edited_gateway_keeps_what_was_counted() -> None:
    limiter, _ = make()
    assert passes(limiter, claim(gateway(RateLimit(limit=1, interval_s=60))))
    assert not passes(limiter, claim(gateway(RateLimit(limit=1, interval_s=60))))
    wider = gateway(RateLimit(limit=2, interval_s=60))
    assert [passes(limiter, claim(wider)) for _ in range(2)] == [True, False]


@pytest.mark.parametrize("technique", ["fixed", "sliding"])
def test_ledger_sums_are_restored_into_present_windows_alone(technique: Technique) -> None:
    limiter, clock = make()
    of = gateway(SpendRule(id="cap", limit=100, unit="tokens", window_s=3600, technique=technique))
    clock.advance(1800)

    def row(age_s: float, tokens: int) -> Spent:
        at_s = clock.now_s() - age_s
        return Spent(at_s=at_s, key_id=None, provider="p", model="m", tokens=tokens)

    limiter.restore(ACCOUNT, of, [row(60, 30), row(1200, 40), row(4000, 1000)])
    assert not passes(limiter, claim(of, tokens=31))
    assert passes(limiter, claim(of, tokens=30))
    assert limiter.budgets(ACCOUNT, of)[0].spent == 70


def test_values_beyond_the_bound_share_one_count_and_never_pass_too_often() -> None:
    limiter, clock = make(LimitsConfig(max_values_per_rule=10))
    of = gateway(RateLimit(limit=3, interval_s=60, per="metadata.user"))
    admitted = {
        user: sum(passes(limiter, claim(of, metadata={"user": user})) for _ in range(5))
        for user in range(1000)
    }
    assert [admitted[user] for user in range(10)] == [3] * 10
    assert sum(admitted[user] for user in range(10, 1000)) == 3
    clock.advance(60)
    assert passes(limiter, claim(of, metadata={"user": 999}))


def test_bound_over_all_rules_gives_place_once_buckets_are_idle() -> None:
    limiter, clock = make(LimitsConfig(max_buckets=4))
    one = gateway(RateLimit(limit=1, interval_s=60, per="key"), name="one")
    two = gateway(RateLimit(limit=1, interval_s=60, per="key"), name="two")
    assert all(passes(limiter, claim(one, key=str(number))) for number in range(4))
    assert [passes(limiter, claim(two, key=key)) for key in "ab"] == [True, False]
    clock.advance(60)
    assert [passes(limiter, claim(two, key=key)) for key in "ab"] == [True, True]


def test_gateways_beyond_the_bound_are_refused_until_one_is_idle() -> None:
    limiter, clock = make(LimitsConfig(max_gateways=1))
    one = gateway(RateLimit(limit=1, interval_s=60), name="one")
    two = gateway(RateLimit(limit=1, interval_s=60), name="two")
    assert passes(limiter, claim(one))
    assert refused(limiter, claim(two)).kind == "unavailable"
    clock.advance(60)
    assert passes(limiter, claim(two))


@pytest.mark.parametrize("technique", ["fixed", "sliding"])
def test_wall_clock_jumps_neither_open_nor_freeze_rates(technique: Technique) -> None:
    limiter, clock = make()
    asked = claim(gateway(RateLimit(limit=1, interval_s=60, technique=technique)))
    assert passes(limiter, asked)
    for jump_s in (3600.0, -7200.0):
        clock.jump(jump_s)
        assert not passes(limiter, asked)
    clock.advance(60)
    assert passes(limiter, asked)


@pytest.mark.parametrize("technique", ["fixed", "sliding"])
def test_wall_clock_that_goes_back_takes_the_budget_along(technique: Technique) -> None:
    limiter, clock = make()
    of = gateway(SpendRule(id="cap", limit=10, unit="tokens", window_s=3600, technique=technique))
    call = passed(limiter, claim(of, tokens=10))
    clock.jump(-100_000.0)
    assert not passes(limiter, claim(of, tokens=1))
    call.settle(tokens=4, cost_usd=0.0)
    assert limiter.budgets(ACCOUNT, of)[0].spent == 4
    assert [passes(limiter, claim(of, tokens=tokens)) for tokens in (7, 6)] == [False, True]
    clock.advance(3600 + 61)
    assert passes(limiter, claim(of, tokens=10))


def test_headers_tell_of_the_tightest_window_and_budget() -> None:
    limiter, _ = make()
    of = gateway(
        RateLimit(limit=100, interval_s=60),
        RateLimit(limit=5, interval_s=360, per="key"),
        SpendRule(id="day", limit=2.5, window_s=86_400),
        SpendRule(id="tokens", limit=1_000_000, unit="tokens", window_s=86_400),
    )
    assert passed(limiter, claim(of, tokens=10, cost_usd=0.25)).remaining == [
        (b"x-ratelimit-limit-requests", b"5"),
        (b"x-ratelimit-remaining-requests", b"4"),
        (b"x-ratelimit-reset-requests", b"6m0s"),
        (b"cf-aig-budget-limit", b"2.500000"),
        (b"cf-aig-budget-remaining", b"2.250000"),
    ]
    assert passed(limiter, claim(gateway(name="free"))).remaining == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.12, "120ms"), (1, "1s"), (59.2, "1m0s"), (360, "6m0s"), (3661, "1h1m1s")],
)
def test_durations_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text


Step = tuple[Literal["admit", "settle", "wait"], int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["admit", "admit", "settle", "wait"]), st.integers(0, 9), st.integers(1, 40)
    ),
    max_size=120,
)


@settings(deadline=None)
@given(steps=STEPS, log_limit=st.sampled_from([0, 10_000]), limit=st.integers(1, 6))
def test_no_interval_ever_holds_more_than_a_sliding_limit(
    steps: list[Step], log_limit: int, limit: int
) -> None:
    limiter, clock = make(LimitsConfig(log_limit=log_limit))
    of = gateway(
        RateLimit(limit=limit, interval_s=60, technique="sliding"),
        RateLimit(limit=2, interval_s=10, technique="fixed", per="key"),
    )
    admitted: list[tuple[float, str]] = []
    for kind, choice, amount in steps:
        if kind == "wait":
            clock.advance(amount / 7)
            continue
        key = str(choice % 3)
        if passes(limiter, claim(of, key=key)):
            admitted.append((clock.now_s(), key))
        elif log_limit:  # exact: a refusal is always justified
            now_s = clock.now_s()
            in_interval = [at_s for at_s, _ in admitted if at_s > now_s - 60]
            in_window = [at_s for at_s, by in admitted if by == key and at_s // 10 == now_s // 10]
            assert len(in_interval) >= limit or len(in_window) >= 2
    for at_s, _ in admitted:
        assert sum(at_s <= other_s < at_s + 60 for other_s, _ in admitted) <= limit
    for at_s, key in admitted:
        same = [o for o, by in admitted if by == key and o // 10 == at_s // 10]
        assert len(same) <= 2


@settings(deadline=None)
@given(steps=STEPS, technique=st.sampled_from(["fixed", "sliding"]), limit=st.integers(1, 60))
def test_spent_and_reserved_never_exceed_a_budget_and_equal_the_ledger(
    steps: list[Step], technique: Technique, limit: int
) -> None:
    limiter, clock = make()
    rule = SpendRule(id="cap", limit=limit, unit="tokens", window_s=60, technique=technique)
    of: Gateway = gateway(rule)
    ledger: list[list[float]] = []  # admitted at, tokens; estimates until they are settled
    open_calls: list[tuple[Admission, int, list[float]]] = []
    for kind, choice, amount in steps:
        if kind == "wait":
            clock.advance(amount / 7)
        elif kind == "settle" and open_calls:
            call, estimate, entry = open_calls.pop(choice % len(open_calls))
            entry[1] = min(amount, estimate)
            call.settle(tokens=int(entry[1]), cost_usd=0.0)
        elif kind == "admit":
            decision = admit(limiter, claim(of, tokens=amount))
            if not isinstance(decision, Refusal):
                ledger.append([clock.now_s(), amount])
                open_calls.append((decision, amount, ledger[-1]))
        since_s = math.floor(clock.now_s() / 60) * 60 if technique == "fixed" else None
        for state in limiter.budgets(ACCOUNT, of):
            counted = state.spent + state.reserved
            assert counted <= limit
            if since_s is not None:
                assert counted == sum(used for at_s, used in ledger if at_s >= since_s)
            else:
                now_s = clock.now_s()
                inside = sum(used for at_s, used in ledger if at_s > now_s - 60)
                assert inside <= counted <= sum(u for t, u in ledger if t > now_s - 62)
