"""Phi-3 and Phi-3.5, whose q/k/v and gate/up are each one tensor."""

from __future__ import annotations

from openworks.engines.batched.families.config import ModelConfig
from openworks.engines.batched.families.positions import layers_of, read_rope
from openworks.engines.batched.families.tensors import norm_names, shared_names, whole
from openworks.engines.batched.spec import ModelSpec, TensorSource

_ORIGINAL_CONTEXT = 4096


def read_phi3(config: ModelConfig) -> ModelSpec:
    """Describe a Phi-3."""
    config = _modern(config)
    num_layers = config.integer("num_hidden_layers")
    num_heads = config.integer("num_attention_heads")
    num_kv_heads = config.integer("num_key_value_heads", num_heads)
    hidden_size = config.integer("hidden_size")
    intermediate_size = config.integer("intermediate_size")
    head_dim = config.integer("head_dim", hidden_size // num_heads)
    tied = config.flag("tie_word_embeddings", default=False)
    tensors = whole(shared_names(tied=tied))
    for layer in range(num_layers):
        tensors |= whole(norm_names(layer, post_norms=False, qk_norm=False))
        at = f"layers.{layer}.self_attn"
        tensors[f"{at}.o_proj.weight"] = TensorSource(name=f"{at}.o_proj.weight")
        tensors |= _parts(
            f"{at}.qkv_proj.weight",
            {
                f"{at}.q_proj.weight": num_heads * head_dim,
                f"{at}.k_proj.weight": num_kv_heads * head_dim,
                f"{at}.v_proj.weight": num_kv_heads * head_dim,
            },
        )
        at = f"layers.{layer}.mlp"
        tensors[f"{at}.down_proj.weight"] = TensorSource(name=f"{at}.down_proj.weight")
        tensors |= _parts(
            f"{at}.gate_up_proj.weight",
            {
                f"{at}.gate_proj.weight": intermediate_size,
                f"{at}.up_proj.weight": intermediate_size,
            },
        )
    return ModelSpec(
        model_type=config.text("model_type"),
        num_layers=num_layers,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        vocab_size=config.integer("vocab_size"),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        context_tokens=config.integer("max_position_embeddings"),
        layers=layers_of(
            config,
            read_rope(config, head_dim),
            window=config.optional_integer("sliding_window"),
            slides=[True] * num_layers,
        ),
        activation=config.activation("hidden_act", default="silu"),
        norm_eps=config.number("rms_norm_eps", 1e-5),
        attention_scale=head_dim**-0.5,
        tied_embeddings=tied,
        tensors=tensors,
    )


def _parts(fused: str, rows: dict[str, int]) -> dict[str, TensorSource]:
    """Cut a fused tensor: our name → how many of its rows, in their order."""
    parts = {}
    start = 0
    for name, count in rows.items():
        parts[name] = TensorSource(name=fused, rows=(start, start + count))
        start += count
    return parts


def _modern(config: ModelConfig) -> ModelConfig:
    """Say `longrope` where early checkpoints say `su` or `yarn`, and fill in the first context."""
    fields = dict(config.fields)
    fields.setdefault("original_max_position_embeddings", _ORIGINAL_CONTEXT)
    for key in ("rope_parameters", "rope_scaling"):
        section = config.section(key)
        if section is not None:
            kind = section.text("rope_type", section.text("type", "default"))
            kind = "longrope" if kind in {"su", "yarn"} else kind
            fields[key] = {**section.fields, "rope_type": kind}
    return ModelConfig(fields)
