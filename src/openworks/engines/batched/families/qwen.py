"""Qwen 1.5, 2 and 2.5, with biases, and Qwen 3, which norms its queries and keys instead."""

from __future__ import annotations

from openworks.engines.batched.families.config import ModelConfig
from openworks.engines.batched.families.positions import layers_of, read_rope
from openworks.engines.batched.families.tensors import (
    attention_names,
    mlp_names,
    norm_names,
    shared_names,
    whole,
)
from openworks.engines.batched.spec import ModelSpec

_WINDOW = 4096
_FULL_LAYERS = 28
"""How many layers, from the first, do not slide when the configuration does not say."""
_QWEN3_HEAD_DIM = 128


def read_qwen2(config: ModelConfig) -> ModelSpec:
    """Describe a Qwen 1.5, 2 or 2.5."""
    head_dim = config.integer(
        "head_dim", config.integer("hidden_size") // config.integer("num_attention_heads")
    )
    return _decoder(config, head_dim, qkv_bias=True, output_bias=False, qk_norm=False)


def read_qwen3(config: ModelConfig) -> ModelSpec:
    """Describe a Qwen 3 that is not a mixture of experts."""
    bias = config.flag("attention_bias", default=False)
    head_dim = config.integer("head_dim", _QWEN3_HEAD_DIM)
    return _decoder(config, head_dim, qkv_bias=bias, output_bias=bias, qk_norm=True)


def _decoder(
    config: ModelConfig, head_dim: int, *, qkv_bias: bool, output_bias: bool, qk_norm: bool
) -> ModelSpec:
    num_layers = config.integer("num_hidden_layers")
    num_heads = config.integer("num_attention_heads")
    tied = config.flag("tie_word_embeddings", default=False)
    window = None
    if config.flag("use_sliding_window", default=False):
        window = config.integer("sliding_window", _WINDOW)
    num_full = config.integer("max_window_layers", _FULL_LAYERS)
    names = shared_names(tied=tied)
    for layer in range(num_layers):
        names |= norm_names(layer, post_norms=False, qk_norm=qk_norm)
        names |= attention_names(layer, qkv_bias=qkv_bias, output_bias=output_bias)
        names |= mlp_names(layer, bias=False)
    return ModelSpec(
        model_type=config.text("model_type"),
        num_layers=num_layers,
        hidden_size=config.integer("hidden_size"),
        intermediate_size=config.integer("intermediate_size"),
        vocab_size=config.integer("vocab_size"),
        num_heads=num_heads,
        num_kv_heads=config.integer("num_key_value_heads", num_heads),
        head_dim=head_dim,
        context_tokens=config.integer("max_position_embeddings"),
        layers=layers_of(
            config,
            read_rope(config, head_dim),
            window=window,
            slides=[layer >= num_full for layer in range(num_layers)],
        ),
        activation=config.activation("hidden_act", default="silu"),
        norm_eps=config.number("rms_norm_eps", 1e-6),
        qk_norm=qk_norm,
        qkv_bias=qkv_bias,
        output_bias=output_bias,
        attention_scale=head_dim**-0.5,
        tied_embeddings=tied,
        tensors=whole(names),
    )
