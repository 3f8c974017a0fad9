"""Rotary positions: the frequencies of every kind of scaling, in plain Python floats."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from openworks.engines.batched.spec import Rope, RopeKind, RopeScaling


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """What a position p turns pair i of a head by: the angle p · frequencies[i]."""

    frequencies: tuple[float, ...]
    """rotary_dim / 2 of them."""
    magnitude: float
    """What cosines and sines are multiplied by."""


def rotation(rope: Rope, context_tokens: int) -> Rotation:
    """Work out a layer's rotation.

    Args:
        rope: The layer's positions.
        context_tokens: The longest sequence that will be computed. `longrope` changes with the
            length; a cache of turned keys cannot, so it is taken at this length.
    """
    plain = tuple(
        rope.theta ** (-2 * pair / rope.rotary_dim) for pair in range(rope.rotary_dim // 2)
    )
    if rope.scaling is None:
        return Rotation(frequencies=plain, magnitude=1.0)
    return _SCALED[rope.scaling.kind](rope, rope.scaling, plain, context_tokens)


def _linear(
    rope: Rope, scaling: RopeScaling, plain: Sequence[float], context_tokens: int
) -> Rotation:
    return Rotation(frequencies=tuple(f / scaling.factor for f in plain), magnitude=1.0)


def _llama3(
    rope: Rope, scaling: RopeScaling, plain: Sequence[float], context_tokens: int
) -> Rotation:
    """Divide the slow frequencies, keep the fast ones, and go over smoothly in between."""

    def scaled(frequency: float) -> float:
        turns = scaling.original_context_tokens * frequency / (2 * math.pi)
        smooth = (turns - scaling.low_freq_factor) / (
            scaling.high_freq_factor - scaling.low_freq_factor
        )
        smooth = min(max(smooth, 0.0), 1.0)
        return frequency * ((1 - smooth) / scaling.factor + smooth)

    return Rotation(frequencies=tuple(scaled(f) for f in plain), magnitude=1.0)


def _yarn(
    rope: Rope, scaling: RopeScaling, plain: Sequence[float], context_tokens: int
) -> Rotation:
    """YaRN (arXiv 2309.00071), section 3.2, with the attention factor of section 3.4."""

    def pair_that_turns(num_turns: float) -> float:
        length = scaling.original_context_tokens / (num_turns * 2 * math.pi)
        return rope.rotary_dim * math.log(length) / (2 * math.log(rope.theta))

    low, high = pair_that_turns(scaling.beta_fast), pair_that_turns(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.rotary_dim - 1)
    span = high - low or 0.001

    def scaled(pair: int, frequency: float) -> float:
        slow = min(max((pair - low) / span, 0.0), 1.0)
        return frequency * (slow / scaling.factor + 1 - slow)

    return Rotation(
        frequencies=tuple(scaled(pair, f) for pair, f in enumerate(plain)),
        magnitude=_yarn_magnitude(scaling),
    )


def _yarn_magnitude(scaling: RopeScaling) -> float:
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.factor <= 1:
        return 1.0
    log = 0.1 * math.log(scaling.factor)
    if scaling.mscale and scaling.mscale_all_dim:
        return (scaling.mscale * log + 1) / (scaling.mscale_all_dim * log + 1)
    return log + 1


def _longrope(
    rope: Rope, scaling: RopeScaling, plain: Sequence[float], context_tokens: int
) -> Rotation:
    is_long = context_tokens > scaling.original_context_tokens
    factors = scaling.long_factors if is_long else scaling.short_factors
    magnitude = scaling.attention_factor
    if magnitude is None:
        magnitude = (
            math.sqrt(1 + math.log(scaling.factor) / math.log(scaling.original_context_tokens))
            if scaling.factor > 1
            else 1.0
        )
    return Rotation(
        frequencies=tuple(f / factor for f, factor in zip(plain, factors, strict=True)),
        magnitude=magnitude,
    )


_SCALED: dict[RopeKind, Callable[[Rope, RopeScaling, Sequence[float], int], Rotation]] = {
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
