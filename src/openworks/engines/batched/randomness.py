"""Random numbers that depend on a request alone, not on what shares its batch.

Each is a hash of (seed, answer, position), so that there is no generator whose state a neighbour,
a preemption or another batch size could move.
"""

from __future__ import annotations

import secrets
from typing import Protocol

_MASK = 2**64 - 1
_GAMMA = 0x9E3779B97F4A7C15
_FIRST_FACTOR = 0xBF58476D1CE4E5B9
_SECOND_FACTOR = 0x94D049BB133111EB


class NewSeed(Protocol):
    """Make the seed of a request that names none; an argument, so that tests can choose."""

    def __call__(self) -> int:
        """Return a fresh 64-bit number."""
        ...


def new_seed() -> int:
    """Return 64 bits from the operating system's generator."""
    return secrets.randbits(64)


def uniform(seed: int, answer: int, position: int) -> float:
    """Return the number in [0, 1) that chooses one token.

    SplitMix64's output function (Steele, Lea, Flood 2014, doi:10.1145/2660193.2660195) over each
    part in turn; the top 53 bits become the float.

    Args:
        seed: Any integer, negative ones included; taken modulo 2**64.
        answer: Which of the request's `n` answers.
        position: How many tokens the answer has already.
    """
    state = _mixed(seed)
    state = _mixed(state + answer)
    return (_mixed(state + position) >> 11) / 2**53


def _mixed(value: int) -> int:
    value = (value + _GAMMA) & _MASK
    value = ((value ^ (value >> 30)) * _FIRST_FACTOR) & _MASK
    value = ((value ^ (value >> 27)) * _SECOND_FACTOR) & _MASK
    return value ^ (value >> 31)
