"""Names of tensors: how checkpoints and adapters of these families call what is ours."""

from __future__ import annotations

from collections.abc import Mapping

from openworks.engines.batched.spec import TensorSource

_PREFIXES = ("language_model.model.", "model.language_model.", "language_model.", "model.")


def bare_name(name: str) -> str:
    """Take off what stands before a text model's tensors and modules.

    `model.layers.0…` of a language model, and `language_model.model.layers.0…` and
    `model.language_model.layers.0…` of one that also sees, are all `layers.0…`.
    """
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def whole(names: Mapping[str, str]) -> dict[str, TensorSource]:
    """Sources of tensors that are in the checkpoint as we want them: our name → its name."""
    return {ours: TensorSource(name=theirs) for ours, theirs in names.items()}


def shared_names(*, tied: bool) -> dict[str, str]:
    """Name what belongs to no layer."""
    names = {"embed_tokens.weight": "embed_tokens.weight", "norm.weight": "norm.weight"}
    return names if tied else {**names, "lm_head.weight": "lm_head.weight"}


def attention_names(layer: int, *, qkv_bias: bool, output_bias: bool) -> dict[str, str]:
    """Name a layer's projections around attention."""
    names = []
    for module, has_bias in (
        ("q_proj", qkv_bias),
        ("k_proj", qkv_bias),
        ("v_proj", qkv_bias),
        ("o_proj", output_bias),
    ):
        names.append(f"layers.{layer}.self_attn.{module}.weight")
        if has_bias:
            names.append(f"layers.{layer}.self_attn.{module}.bias")
    return {name: name for name in names}


def mlp_names(layer: int, *, bias: bool) -> dict[str, str]:
    """Name a layer's projections of the MLP."""
    kinds = ("weight", "bias") if bias else ("weight",)
    names = [
        f"layers.{layer}.mlp.{module}.{kind}"
        for module in ("gate_proj", "up_proj", "down_proj")
        for kind in kinds
    ]
    return {name: name for name in names}


def norm_names(layer: int, *, post_norms: bool, qk_norm: bool) -> dict[str, str]:
    """Name a layer's norms: of two as Llama has them, or of four as Gemma 2 has them."""
    at = f"layers.{layer}"
    names = {f"{at}.input_norm.weight": f"{at}.input_layernorm.weight"}
    if post_norms:
        names |= {
            f"{at}.post_attention_norm.weight": f"{at}.post_attention_layernorm.weight",
            f"{at}.mlp_norm.weight": f"{at}.pre_feedforward_layernorm.weight",
            f"{at}.post_mlp_norm.weight": f"{at}.post_feedforward_layernorm.weight",
        }
    else:
        names[f"{at}.mlp_norm.weight"] = f"{at}.post_attention_layernorm.weight"
    if qk_norm:
        names |= {
            f"{at}.self_attn.{norm}.weight": f"{at}.self_attn.{norm}.weight"
            for norm in ("q_norm", "k_norm")
        }
    return names
