from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from openworks.gateway.resilience.choice import Scoreboard, sticky
from tests.fakes import FakeClock

NAMES = ["a", "b", "c"]


def shares(board: Scoreboard[str], names: list[str], *, draws: int = 3_000) -> Counter[str]:
    rng = random.Random(11)
    return Counter(board.choose(names, rng) for _ in range(draws))


def seen(board: Scoreboard[str], name: str, *, ok: bool, first_byte_s: float, times: int) -> None:
    for _ in range(times):
        board.begin(name)
        board.end(name, ok=ok, first_byte_s=first_byte_s)


def test_the_faster_of_two_is_asked() -> None:
    board: Scoreboard[str] = Scoreboard(FakeClock())
    seen(board, "a", ok=True, first_byte_s=0.9, times=5)
    seen(board, "b", ok=True, first_byte_s=0.1, times=5)
    assert shares(board, ["a", "b"]) == {"b": 3_000}


def test_errors_weigh_more_than_speed() -> None:
    board: Scoreboard[str] = Scoreboard(FakeClock())
    seen(board, "a", ok=False, first_byte_s=0.1, times=20)
    seen(board, "b", ok=True, first_byte_s=0.5, times=20)
    assert shares(board, ["a", "b"]) == {"b": 3_000}


def test_a_busy_one_is_spared() -> None:
    board: Scoreboard[str] = Scoreboard(FakeClock())
    for name in NAMES:
        seen(board, name, ok=True, first_byte_s=0.1, times=1)
    for _ in range(10):
        board.begin("a")
    assert shares(board, NAMES)["a"] == 0


def test_the_second_best_is_asked_too() -> None:
    board: Scoreboard[str] = Scoreboard(FakeClock())
    for name, first_byte_s in zip(NAMES, (0.1, 0.2, 0.3), strict=True):
        seen(board, name, ok=True, first_byte_s=first_byte_s, times=5)
    found = shares(board, NAMES)
    assert 1_800 < found["a"] < 2_200
    assert 800 < found["b"] < 1_200
    assert found["c"] == 0


def test_a_bad_time_is_forgotten() -> None:
    clock = FakeClock()
    board: Scoreboard[str] = Scoreboard(clock)
    seen(board, "a", ok=False, first_byte_s=1.0, times=20)
    seen(board, "b", ok=True, first_byte_s=0.1, times=20)
    clock.advance(300)
    seen(board, "b", ok=True, first_byte_s=0.1, times=5)
    assert shares(board, ["a", "b"]) == {"a": 3_000}


def test_the_order_begins_with_the_choice_and_has_everyone() -> None:
    board: Scoreboard[str] = Scoreboard(FakeClock())
    for name, first_byte_s in zip(NAMES, (0.3, 0.2, 0.1), strict=True):
        seen(board, name, ok=True, first_byte_s=first_byte_s, times=5)
    for seed in range(20):
        order = board.order(NAMES, random.Random(seed))
        assert sorted(order) == NAMES
        assert order[1:] == sorted(order[1:], key=board.score)
    assert board.order(["a"], random.Random(1)) == ["a"]


def test_the_same_draws_give_the_same_choices() -> None:
    board: Scoreboard[str] = Scoreboard(FakeClock())
    assert shares(board, NAMES) == shares(board, NAMES)


def test_candidates_are_bounded() -> None:
    board: Scoreboard[str] = Scoreboard(FakeClock(), max_candidates=2)
    for name in NAMES:
        seen(board, name, ok=True, first_byte_s=0.5, times=1)
    assert board.score("a") == 0.0
    assert board.score("c") > 0.0


@given(st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=8, unique=True), st.text())
def test_a_session_moves_only_when_its_own_candidate_goes(names: list[str], session: str) -> None:
    chosen = sticky(names, session)
    assert sticky(names[::-1], session) == chosen
    for name in names:
        if name != chosen:
            assert sticky([other for other in names if other != name], session) == chosen


def test_sessions_spread_evenly() -> None:
    found = Counter(sticky(NAMES, f"session-{number}") for number in range(6_000))
    assert all(1_850 < count < 2_150 for count in found.values())
