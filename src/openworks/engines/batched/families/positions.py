"""Reads positions of a `config.json`: its rotary scaling in both spellings, its sliding windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast, get_args

from openworks.engines.batched.families.config import ModelConfig
from openworks.engines.batched.spec import (
    LayerSpec,
    Rope,
    RopeKind,
    RopeScaling,
    UnsupportedModelError,
)


def read_rope(config: ModelConfig, head_dim: int, *, default_theta: float = 10_000.0) -> Rope:
    """Read `rope_parameters`, or the older `rope_theta` with `rope_scaling`."""
    section = config.section("rope_parameters") or config.section("rope_scaling") or ModelConfig({})
    return rope_of(section, config, head_dim, default_theta=default_theta)


def rope_of(
    section: ModelConfig, config: ModelConfig, head_dim: int, *, default_theta: float
) -> Rope:
    """Read one set of rotary parameters; what it lacks is taken from `config` itself."""
    theta = section.number("rope_theta", config.number("rope_theta", default_theta))
    partial = section.number("partial_rotary_factor", config.number("partial_rotary_factor", 1.0))
    return Rope(
        theta=theta, rotary_dim=int(head_dim * partial), scaling=_scaling_of(section, config)
    )


def _scaling_of(section: ModelConfig, config: ModelConfig) -> RopeScaling | None:
    kind = section.text("rope_type", section.text("type", "default"))
    # `dynamic` stretches what is beyond the model's own context, and nothing beyond it is served.
    if kind in {"default", "dynamic"}:
        return None
    if kind not in get_args(RopeKind):
        raise UnsupportedModelError(f"Rotary scaling '{kind}' is not known.")
    context = config.integer("max_position_embeddings")
    original = config.integer(
        "original_max_position_embeddings",
        section.integer("original_max_position_embeddings", context),
    )
    return RopeScaling(
        kind=cast("RopeKind", kind),
        factor=section.number("factor", context / original),
        original_context_tokens=original,
        attention_factor=section.optional_number("attention_factor"),
        low_freq_factor=section.number("low_freq_factor", 1.0),
        high_freq_factor=section.number("high_freq_factor", 4.0),
        beta_fast=section.number("beta_fast", 32.0),
        beta_slow=section.number("beta_slow", 1.0),
        mscale=section.optional_number("mscale"),
        mscale_all_dim=section.optional_number("mscale_all_dim"),
        truncate=section.flag("truncate", default=True),
        short_factors=section.numbers("short_factor"),
        long_factors=section.numbers("long_factor"),
    )


def layers_of(
    config: ModelConfig, rope: Rope, *, window: int | None, slides: Sequence[bool]
) -> tuple[LayerSpec, ...]:
    """Describe every layer.

    Args:
        config: `layer_types`, where it is given, says which layers slide.
        rope: The positions of all layers.
        window: Of layers that slide.
        slides: For each layer, whether it slides if `layer_types` does not say.
    """
    kinds = config.texts("layer_types")
    unknown = set(kinds) - {"sliding_attention", "full_attention"}
    if unknown:
        raise UnsupportedModelError(f"Layers of type '{min(unknown)}' are not known.")
    if kinds:
        slides = [kind == "sliding_attention" for kind in kinds]
    return tuple(LayerSpec(rope=rope, window=window if slide else None) for slide in slides)


def with_local_rope(layers: Sequence[LayerSpec], rope: Rope) -> tuple[LayerSpec, ...]:
    """Give layers that slide positions of their own, as Gemma 3 has them."""
    return tuple(layer if layer.window is None else replace(layer, rope=rope) for layer in layers)
