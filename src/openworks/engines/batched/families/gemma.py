"""Gemma 1, 2 and 3: norms of 1 + weight, scaled embeddings, and from 2 on norms after blocks."""

from __future__ import annotations

from dataclasses import replace

from openworks.engines.batched.families.config import ModelConfig
from openworks.engines.batched.families.positions import (
    layers_of,
    read_rope,
    rope_of,
    with_local_rope,
)
from openworks.engines.batched.families.tensors import (
    attention_names,
    mlp_names,
    norm_names,
    shared_names,
    whole,
)
from openworks.engines.batched.spec import LayerSpec, ModelSpec, Rope, UnsupportedModelError

_HEAD_DIM = 256
_WINDOW = 4096
_CONTEXT = 131_072
_GLOBAL_THETA = 1_000_000.0
_LOCAL_THETA = 10_000.0


def read_gemma(config: ModelConfig) -> ModelSpec:
    """Describe a Gemma of the first generation."""
    spec = _decoder(config, heads=(16, 16), layers=None, post_norms=False, qk_norm=False)
    # Early configurations say "gelu" and mean its approximation, as the model was trained.
    return replace(spec, activation="gelu_tanh" if spec.activation == "gelu" else spec.activation)


def read_gemma2(config: ModelConfig) -> ModelSpec:
    """Describe a Gemma 2: every second layer slides, from the first; scores are capped."""
    head_dim = config.integer("head_dim", _HEAD_DIM)
    layers = layers_of(
        config,
        read_rope(config, head_dim),
        window=config.integer("sliding_window", _WINDOW),
        slides=[layer % 2 == 0 for layer in range(config.integer("num_hidden_layers", 26))],
    )
    spec = _decoder(config, heads=(8, 4), layers=layers, post_norms=True, qk_norm=False)
    return replace(
        spec,
        attention_scale=config.number("query_pre_attn_scalar", 256) ** -0.5,
        attention_softcap=_cap(config, "attn_logit_softcapping", 50.0),
        logits_softcap=_cap(config, "final_logit_softcapping", 30.0),
    )


def read_gemma3(config: ModelConfig) -> ModelSpec:
    """Describe a Gemma 3, or the text model of one that also sees.

    Layers that slide have a theta of their own, and no scaling.
    """
    config = _with_context(config.section("text_config") or config)
    head_dim = config.integer("head_dim", _HEAD_DIM)
    pattern = config.integer("sliding_window_pattern", 6)
    layers = layers_of(
        config,
        _global_rope(config, head_dim),
        window=config.integer("sliding_window", _WINDOW),
        slides=[(layer + 1) % pattern != 0 for layer in range(config.integer("num_hidden_layers"))],
    )
    layers = with_local_rope(layers, _local_rope(config, head_dim))
    spec = _decoder(config, heads=(8, 4), layers=layers, post_norms=True, qk_norm=True)
    return replace(
        spec,
        attention_scale=config.number("query_pre_attn_scalar", 256) ** -0.5,
        logits_softcap=_cap(config, "final_logit_softcapping", None),
    )


def _with_context(config: ModelConfig) -> ModelConfig:
    """Fill in the context, which the published text models leave to their default."""
    context = config.integer("max_position_embeddings", _CONTEXT)
    return ModelConfig({**config.fields, "max_position_embeddings": context})


def _global_rope(config: ModelConfig, head_dim: int) -> Rope:
    both = config.section("rope_parameters")
    section = both.section("full_attention") if both else config.section("rope_scaling")
    return rope_of(section or ModelConfig({}), config, head_dim, default_theta=_GLOBAL_THETA)


def _local_rope(config: ModelConfig, head_dim: int) -> Rope:
    both = config.section("rope_parameters")
    section = (both.section("sliding_attention") if both else None) or ModelConfig({})
    theta = section.number("rope_theta", config.number("rope_local_base_freq", _LOCAL_THETA))
    return rope_of(
        ModelConfig({**section.fields, "rope_theta": theta}),
        config,
        head_dim,
        default_theta=_LOCAL_THETA,
    )


def _cap(config: ModelConfig, key: str, default: float | None) -> float | None:
    """A cap that null switches off."""
    return config.optional_number(key) if key in config.fields else default


def _decoder(
    config: ModelConfig,
    *,
    heads: tuple[int, int],
    layers: tuple[LayerSpec, ...] | None,
    post_norms: bool,
    qk_norm: bool,
) -> ModelSpec:
    """Describe what all of them share.

    Args:
        config: Of a text model.
        heads: How many heads of queries and of keys there are if it does not say.
        layers: None for layers that see everything.
        post_norms: As in `ModelSpec`.
        qk_norm: As in `ModelSpec`.
    """
    if config.flag("use_bidirectional_attention", default=False):
        raise UnsupportedModelError("Attention in both directions is not known.")
    num_layers = config.integer("num_hidden_layers")
    head_dim = config.integer("head_dim", _HEAD_DIM)
    hidden_size = config.integer("hidden_size")
    bias = config.flag("attention_bias", default=False)
    tied = config.flag("tie_word_embeddings", default=True)
    names = shared_names(tied=tied)
    for layer in range(num_layers):
        names |= norm_names(layer, post_norms=post_norms, qk_norm=qk_norm)
        names |= attention_names(layer, qkv_bias=bias, output_bias=bias)
        names |= mlp_names(layer, bias=False)
    if layers is None:
        layers = layers_of(
            config, read_rope(config, head_dim), window=None, slides=[False] * num_layers
        )
    return ModelSpec(
        model_type=config.text("model_type"),
        num_layers=num_layers,
        hidden_size=hidden_size,
        intermediate_size=config.integer("intermediate_size"),
        vocab_size=config.integer("vocab_size", 262_208),
        num_heads=config.integer("num_attention_heads", heads[0]),
        num_kv_heads=config.integer("num_key_value_heads", heads[1]),
        head_dim=head_dim,
        context_tokens=config.integer("max_position_embeddings"),
        layers=layers,
        activation=config.activation(
            "hidden_activation", "hidden_act", default="gelu_pytorch_tanh"
        ),
        norm_eps=config.number("rms_norm_eps", 1e-6),
        norm_adds_one=True,
        post_norms=post_norms,
        qk_norm=qk_norm,
        qkv_bias=bias,
        output_bias=bias,
        attention_scale=head_dim**-0.5,
        embedding_scale=hidden_size**0.5,
        tied_embeddings=tied,
        tensors=whole(names),
    )
