"""GPT-OSS: sinks in attention, layers that slide and layers that see all, experts."""

from __future__ import annotations

from openworks.engines.batched.families.config import ModelConfig
from openworks.engines.batched.families.positions import layers_of, read_rope
from openworks.engines.batched.families.tensors import (
    attention_names,
    norm_names,
    shared_names,
    whole,
)
from openworks.engines.batched.spec import Experts, ModelSpec, UnsupportedModelError

_THETA = 150_000.0
_WINDOW = 128


def read_gpt_oss(config: ModelConfig) -> ModelSpec:
    """Describe a GPT-OSS, with its experts as published (MXFP4) or unpacked to bfloat16."""
    num_layers = config.integer("num_hidden_layers")
    head_dim = config.integer("head_dim", 64)
    bias = config.flag("attention_bias", default=True)
    tied = config.flag("tie_word_embeddings", default=False)
    packed = _is_packed(config)
    names = shared_names(tied=tied)
    for layer in range(num_layers):
        names |= norm_names(layer, post_norms=False, qk_norm=False)
        names |= attention_names(layer, qkv_bias=bias, output_bias=bias)
        names |= _expert_names(layer, packed=packed)
    return ModelSpec(
        model_type=config.text("model_type"),
        num_layers=num_layers,
        hidden_size=config.integer("hidden_size"),
        intermediate_size=config.integer("intermediate_size"),
        vocab_size=config.integer("vocab_size"),
        num_heads=config.integer("num_attention_heads"),
        num_kv_heads=config.integer("num_key_value_heads"),
        head_dim=head_dim,
        context_tokens=config.integer("max_position_embeddings"),
        layers=layers_of(
            config,
            read_rope(config, head_dim, default_theta=_THETA),
            window=config.integer("sliding_window", _WINDOW),
            slides=[layer % 2 == 0 for layer in range(num_layers)],
        ),
        norm_eps=config.number("rms_norm_eps", 1e-5),
        qkv_bias=bias,
        output_bias=bias,
        attention_scale=head_dim**-0.5,
        attention_sinks=True,
        tied_embeddings=tied,
        experts=Experts(
            num_experts=config.integer("num_local_experts", 128),
            num_chosen=config.integer("num_experts_per_tok", 4),
            alpha=config.number("swiglu_alpha", 1.702),
            limit=config.number("swiglu_limit", 7.0),
            is_packed=packed,
        ),
        tensors=whole(names),
    )


def _is_packed(config: ModelConfig) -> bool:
    quantization = config.section("quantization_config")
    if quantization is None:
        return False
    method = quantization.text("quant_method")
    if method != "mxfp4":
        raise UnsupportedModelError(f"Experts quantised by '{method}' are not known.")
    return True


def _expert_names(layer: int, *, packed: bool) -> dict[str, str]:
    at = f"layers.{layer}"
    kinds = ("_blocks", "_scales", "_bias") if packed else ("", "_bias")
    names = [f"{at}.self_attn.sinks", f"{at}.mlp.router.weight", f"{at}.mlp.router.bias"]
    names += [
        f"{at}.mlp.experts.{module}{kind}"
        for module in ("gate_up_proj", "down_proj")
        for kind in kinds
    ]
    return {name: name for name in names}
