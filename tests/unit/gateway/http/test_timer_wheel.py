from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworks.gateway.http.timer_wheel import NEVER_S, TICK_S, TimerWheel


class Handle:
    def __init__(self, at_s: float, call: Callable[[], None]) -> None:
        self.at_s, self.call, self.cancelled = at_s, call, False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """Time that moves when told to, and the timers of it."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.handles: list[Handle] = []
        self.calls = 0

    def time(self) -> float:
        return self.now_s

    def call_later(self, delay_s: float, call: Callable[[], None], *_: Any) -> Handle:
        self.handles.append(Handle(self.now_s + delay_s, call))
        return self.handles[-1]

    def pending(self) -> list[Handle]:
        return [handle for handle in self.handles if not handle.cancelled]

    def run(self, seconds: float, step_s: float = 0.01) -> None:
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.now_s += step_s
            for handle in self.pending():
                if handle.at_s <= self.now_s:
                    self.handles.remove(handle)
                    self.calls += 1
                    handle.call()


class Thing:
    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.deadline_s = self.check_s = NEVER_S
        self.expired_s: list[float] = []

    def expire(self) -> None:
        self.expired_s.append(self.loop.now_s)


@pytest.fixture
def loop() -> Loop:
    return Loop()


def wheel_of(loop: Loop) -> TimerWheel:
    return TimerWheel(cast("asyncio.AbstractEventLoop", loop))


@given(delays_s=st.lists(st.floats(0.001, 40.0), min_size=1, max_size=20))
def test_each_expires_once_and_never_early(delays_s: list[float]) -> None:
    loop = Loop()
    wheel = wheel_of(loop)
    start_s = loop.now_s
    things = [Thing(loop) for _ in delays_s]
    for thing, delay_s in zip(things, delays_s, strict=True):
        wheel.arm(thing, delay_s)
    loop.run(max(delays_s) + 1.0)
    for thing, delay_s in zip(things, delays_s, strict=True):
        assert len(thing.expired_s) == 1
        assert delay_s <= thing.expired_s[0] - start_s + 1e-6 < delay_s + 3 * TICK_S


def test_deadline_that_moves_on_costs_no_timer_and_does_not_expire(loop: Loop) -> None:
    wheel, thing = wheel_of(loop), Thing(loop)
    for _ in range(200):
        wheel.arm(thing, 0.5)
        loop.run(0.1)
    assert not thing.expired_s
    assert len(loop.pending()) == 1
    loop.run(1.0)
    assert len(thing.expired_s) == 1


def test_deadline_that_comes_nearer_is_kept(loop: Loop) -> None:
    wheel, thing = wheel_of(loop), Thing(loop)
    wheel.arm(thing, 5.0)
    wheel.arm(thing, 0.2)
    loop.run(0.4)
    assert len(thing.expired_s) == 1
    loop.run(10.0)
    assert len(thing.expired_s) == 1


def test_deadline_taken_back_never_expires_and_the_wheel_comes_to_rest(loop: Loop) -> None:
    wheel, thing = wheel_of(loop), Thing(loop)
    wheel.arm(thing, 0.2)
    thing.deadline_s = math.inf
    loop.run(10.0)
    assert not thing.expired_s
    assert not loop.pending()
    wheel.arm(thing, 0.2)  # and turns again
    loop.run(0.5)
    assert len(thing.expired_s) == 1


def test_loop_that_stood_still_expires_all_that_is_due(loop: Loop) -> None:
    wheel = wheel_of(loop)
    things = [Thing(loop) for _ in range(50)]
    for i, thing in enumerate(things):
        wheel.arm(thing, 0.1 * i + 0.05)
    loop.now_s += 60.0
    loop.run(0.2)
    assert all(len(thing.expired_s) == 1 for thing in things)


def test_closed_wheel_expires_nothing(loop: Loop) -> None:
    wheel, thing = wheel_of(loop), Thing(loop)
    wheel.arm(thing, 0.2)
    wheel.close()
    loop.run(1.0)
    assert not thing.expired_s
    assert not loop.pending()
