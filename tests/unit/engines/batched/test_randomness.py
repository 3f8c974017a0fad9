from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openworks.engines.batched.randomness import new_seed, uniform


@given(st.integers(), st.integers(0, 200), st.integers(0, 10**6))
def test_every_number_is_at_least_0_and_below_1(seed: int, answer: int, position: int) -> None:
    assert 0 <= uniform(seed, answer, position) < 1


def test_numbers_stay_what_they_were() -> None:
    # Whoever kept a seed gets the same answer from the next version.
    numbers = [uniform(7, 0, 0), uniform(7, 0, 1), uniform(7, 1, 0), uniform(-7, 0, 0)]
    assert numbers == [0.609394524568175, 0.1000788863334513, 0.98355711333702, 0.705180242389609]


def test_seeds_answers_and_positions_give_different_numbers() -> None:
    numbers = {
        uniform(seed, answer, position)
        for seed in range(20)
        for answer in range(20)
        for position in range(20)
    }
    assert len(numbers) == 20**3


def test_numbers_are_spread_evenly() -> None:
    counts = [0] * 10
    for position in range(10_000):
        counts[int(uniform(1, 0, position) * 10)] += 1
    assert all(850 < count < 1150 for count in counts)


def test_neighbouring_positions_of_neighbouring_seeds_do_not_go_together() -> None:
    pairs = [(uniform(seed, 0, 5), uniform(seed + 1, 0, 4)) for seed in range(2_000)]
    covariance = sum((x - 0.5) * (y - 0.5) for x, y in pairs) / len(pairs)
    assert abs(covariance) < 0.01


def test_fresh_seeds_differ() -> None:
    assert new_seed() != new_seed()
