"""Which projections of a layer read the same activations, and so are multiplied at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from openworks.engines.batched.spec import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearGroup:
    """Projections that are one multiplication."""

    modules: Sequence[str]
    """What they are called inside a layer, in the order of their outputs."""
    alias: str
    """What all of them together are called where checkpoints and adapters have them fused."""
    num_inputs: int
    widths: Sequence[int]
    """How many outputs each has."""


def linear_groups(spec: ModelSpec) -> Mapping[str, LinearGroup]:
    """Return a layer's groups, by the names that the graph gives them."""
    attended = spec.num_heads * spec.head_dim
    keys = spec.num_kv_heads * spec.head_dim
    hidden, inner = spec.hidden_size, spec.intermediate_size
    return {
        "qkv": LinearGroup(
            modules=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            alias="self_attn.qkv_proj",
            num_inputs=hidden,
            widths=(attended, keys, keys),
        ),
        "o": LinearGroup(
            modules=("self_attn.o_proj",),
            alias="self_attn.o_proj",
            num_inputs=attended,
            widths=(hidden,),
        ),
        "gate_up": LinearGroup(
            modules=("mlp.gate_proj", "mlp.up_proj"),
            alias="mlp.gate_up_proj",
            num_inputs=hidden,
            widths=(inner, inner),
        ),
        "down": LinearGroup(
            modules=("mlp.down_proj",), alias="mlp.down_proj", num_inputs=inner, widths=(hidden,)
        ),
    }
