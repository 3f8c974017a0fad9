from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openworks.gateway.limits.base import LimitsConfig
from openworks.gateway.limits.local import LocalLimiter
from openworks.gateway.limits.turns import Turns
from openworks.ports.gateways import Concurrency, RateLimit, SpendRule
from openworks.ports.limits import Admission, Refusal
from tests.fakes import FakeClock
from tests.unit.gateway.limits.claims import ACCOUNT, claim, gateway


async def settle_down() -> None:
    """Let everything that can run do so."""
    for _ in range(20):
        await asyncio.sleep(0)


class Crowd:
    """Callers that wait, and the order in which they got their turns."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.order: list[str] = []
        self.refused: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def send(self, key: str, count: int = 1) -> None:
        for _ in range(count):
            self.tasks.append(asyncio.create_task(self._enter(key)))
        await settle_down()

    async def _enter(self, key: str) -> None:
        refused = await self.turns.enter(key)
        (self.order if refused is None else self.refused).append(key)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_keys_that_compete_get_turns_by_their_weights() -> None:
    turns = Turns(Concurrency(limit=1, queue=1000, weights={"a": 3.0, "c": 0.5}))
    assert turns.try_enter("first")
    crowd = Crowd(turns)
    for key in "abc":
        await crowd.send(key, 200)
    turns.leave("first")
    await settle_down()
    for _ in range(179):
        turns.leave(crowd.order[-1])
        await settle_down()
    shares = Counter(crowd.order)
    assert shares["a"] == pytest.approx(120, abs=2)
    assert shares["b"] == pytest.approx(40, abs=2)
    assert shares["c"] == pytest.approx(20, abs=2)
    await crowd.close()


async def test_key_that_comes_late_does_not_wait_behind_the_crowd() -> None:
    turns = Turns(Concurrency(limit=1, queue=1000))
    assert turns.try_enter("greedy")
    crowd = Crowd(turns)
    await crowd.send("greedy", 100)
    await crowd.send("late")
    turns.leave("greedy")
    await settle_down()
    turns.leave("greedy")
    await settle_down()
    assert crowd.order == ["greedy", "late"] or crowd.order == ["late", "greedy"]
    await crowd.close()


async def test_key_at_its_cap_leaves_the_slot_to_others() -> None:
    turns = Turns(Concurrency(limit=3, per_key_limit=2))
    assert turns.try_enter("a")
    assert turns.try_enter("a")
    assert not turns.try_enter("a")
    crowd = Crowd(turns)
    await crowd.send("a")
    await crowd.send("b")
    assert crowd.order == ["b"]
    turns.leave("a")
    await settle_down()
    assert crowd.order == ["b", "a"]


async def test_full_queue_refuses_the_newest_of_who_waits_most() -> None:
    turns = Turns(Concurrency(limit=1, queue=4))
    assert turns.try_enter("x")
    crowd = Crowd(turns)
    await crowd.send("greedy", 6)
    assert crowd.refused == ["greedy"] * 2
    await crowd.send("other", 3)
    assert Counter(crowd.refused) == {"greedy": 4, "other": 1}
    assert turns.waiting == 4
    await crowd.close()
    assert turns.waiting == 0


async def test_wait_ends_with_a_refusal_after_its_time() -> None:
    turns = Turns(Concurrency(limit=1, wait_s=0.01))
    assert turns.try_enter("a")
    refused = await turns.enter("b")
    assert isinstance(refused, Refusal)
    assert refused.kind == "concurrency"
    assert turns.waiting == 0
    turns.leave("a")
    assert turns.is_idle()


async def test_slot_given_to_a_call_that_leaves_goes_to_the_next() -> None:
    turns = Turns(Concurrency(limit=1))
    assert turns.try_enter("a")
    crowd = Crowd(turns)
    await crowd.send("b")
    await crowd.send("c")
    turns.leave("a")  # b has the slot, and has not run yet
    crowd.tasks[0].cancel()
    await settle_down()
    assert crowd.order == ["c"]
    assert turns.running == 1


async def test_wider_limit_lets_waiters_in_at_once() -> None:
    turns = Turns(Concurrency(limit=1))
    assert turns.try_enter("a")
    crowd = Crowd(turns)
    await crowd.send("b", 3)
    turns.set_policy(Concurrency(limit=3))
    await settle_down()
    assert (turns.running, turns.waiting) == (3, 1)
    await crowd.close()


Event = tuple[str, str, int]


@settings(deadline=None, max_examples=200)
@given(
    events=st.lists(
        st.tuples(
            st.sampled_from(["enter", "enter", "leave", "cancel", "spin"]),
            st.sampled_from("abc"),
            st.integers(0, 20),
        ),
        max_size=60,
    ),
    cap=st.sampled_from([None, 1, 2]),
)
def test_no_slot_is_lost_or_given_twice(events: list[Event], cap: int | None) -> None:
    async def scenario() -> None:
        turns = Turns(Concurrency(limit=3, per_key_limit=cap, queue=5))
        crowd = Crowd(turns)
        left: Counter[str] = Counter()
        for kind, key, number in events:
            if kind == "enter":
                crowd.tasks.append(asyncio.create_task(crowd._enter(key)))
            elif kind == "leave" and Counter(crowd.order)[key] > left[key]:
                left[key] += 1
                turns.leave(key)
            elif kind == "cancel" and crowd.tasks:
                crowd.tasks[number % len(crowd.tasks)].cancel()
            elif kind == "spin":
                await asyncio.sleep(0)
            assert 0 <= turns.running <= 3
        await settle_down()
        held = Counter(crowd.order) - left
        assert turns.running == held.total()
        assert cap is None or all(count <= cap for count in held.values())
        if turns.waiting:  # nobody waits for a free slot
            assert turns.running == 3 or cap is not None
        for key in held.elements():
            turns.leave(key)
            left[key] += 1
            await settle_down()
        while sum((Counter(crowd.order) - left).values()):
            key = next((Counter(crowd.order) - left).elements())
            left[key] += 1
            turns.leave(key)
            await settle_down()
        assert turns.is_idle()
        await asyncio.gather(*crowd.tasks, return_exceptions=True)

    asyncio.run(scenario())


async def test_call_waits_for_its_turn_and_settling_gives_it_back() -> None:
    limiter = LocalLimiter(clock=FakeClock(), config=LimitsConfig())
    of = gateway(concurrency=Concurrency(limit=1))
    first = limiter.admit(claim(of, key="a"))
    assert not isinstance(first, Refusal)
    assert hasattr(first, "settle")
    second = limiter.admit(claim(of, key="b"))
    assert asyncio.iscoroutine(second)
    waiting: asyncio.Task[Admission | Refusal] = asyncio.create_task(second)
    await settle_down()
    assert not waiting.done()
    first.settle(tokens=0, cost_usd=0.0)
    first.settle(tokens=0, cost_usd=0.0)
    admission = await waiting
    assert not isinstance(admission, Refusal)
    admission.settle(tokens=0, cost_usd=0.0)


async def test_call_over_its_rate_does_not_wait_for_a_turn() -> None:
    limiter = LocalLimiter(clock=FakeClock(), config=LimitsConfig())
    of = gateway(RateLimit(limit=1, interval_s=60), concurrency=Concurrency(limit=1))
    assert hasattr(limiter.admit(claim(of)), "settle")
    later = limiter.admit(claim(of))
    assert asyncio.iscoroutine(later)
    refused = await later
    assert isinstance(refused, Refusal)
    assert refused.kind == "rate"


async def test_refusal_by_a_budget_gives_the_turn_back() -> None:
    limiter = LocalLimiter(clock=FakeClock(), config=LimitsConfig())
    of = gateway(
        SpendRule(id="cap", limit=1, unit="tokens", window_s=60), concurrency=Concurrency(limit=1)
    )
    for _ in range(3):
        assert isinstance(limiter.admit(claim(of, tokens=2)), Refusal)
    assert hasattr(limiter.admit(claim(of, tokens=1)), "settle")
    assert limiter.budgets(ACCOUNT, of)[0].reserved == 1
