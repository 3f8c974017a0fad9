"""Llama 2, 3 and 3.1, and Mistral, which slides."""

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

_MISTRAL_WINDOW = 4096
"""What a Mistral slides by when its configuration does not say; null says that it does not."""


def read_llama(config: ModelConfig) -> ModelSpec:
    """Describe a Llama."""
    return _decoder(config, window=None)


def read_mistral(config: ModelConfig) -> ModelSpec:
    """Describe a Mistral."""
    if "sliding_window" in config.fields:
        return _decoder(config, window=config.optional_integer("sliding_window"))
    return _decoder(config, window=_MISTRAL_WINDOW)


def _decoder(config: ModelConfig, *, window: int | None) -> ModelSpec:
    num_layers = config.integer("num_hidden_layers")
    num_heads = config.integer("num_attention_heads")
    hidden_size = config.integer("hidden_size")
    head_dim = config.integer("head_dim", hidden_size // num_heads)
    attention_bias = config.flag("attention_bias", default=False)
    mlp_bias = config.flag("mlp_bias", default=False)
    tied = config.flag("tie_word_embeddings", default=False)
    names = shared_names(tied=tied)
    for layer in range(num_layers):
        names |= norm_names(layer, post_norms=False, qk_norm=False)
        names |= attention_names(layer, qkv_bias=attention_bias, output_bias=attention_bias)
        names |= mlp_names(layer, bias=mlp_bias)
    return ModelSpec(
        model_type=config.text("model_type"),
        num_layers=num_layers,
        hidden_size=hidden_size,
        intermediate_size=config.integer("intermediate_size"),
        vocab_size=config.integer("vocab_size"),
        num_heads=num_heads,
        num_kv_heads=config.integer("num_key_value_heads", num_heads),
        head_dim=head_dim,
        context_tokens=config.integer("max_position_embeddings"),
        layers=layers_of(
            config, read_rope(config, head_dim), window=window, slides=[True] * num_layers
        ),
        activation=config.activation("hidden_act", default="silu"),
        norm_eps=config.number("rms_norm_eps", 1e-6),
        qkv_bias=attention_bias,
        output_bias=attention_bias,
        mlp_bias=mlp_bias,
        attention_scale=head_dim**-0.5,
        tied_embeddings=tied,
        tensors=whole(names),
    )
