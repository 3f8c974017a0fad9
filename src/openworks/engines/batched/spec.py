"""What a model's `config.json` comes to: one description that every executor builds from.

Plain Python, without torch: whoever builds a graph of another library reads the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

RopeKind: TypeAlias = Literal["linear", "llama3", "yarn", "longrope"]
Activation: TypeAlias = Literal["silu", "gelu", "gelu_tanh"]


class UnsupportedModelError(Exception):
    """No family here reads this model; `transformers` may. The message names what is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """How a model reaches contexts longer than it was first trained on."""

    kind: RopeKind
    factor: float = 1.0
    original_context_tokens: int
    """The context before it was stretched."""
    attention_factor: float | None = None
    """What cosines and sines are multiplied by; None: as the kind has it."""
    low_freq_factor: float = 1.0
    """llama3 only, as `high_freq_factor`."""
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    """yarn only, as `beta_slow`, `mscale`, `mscale_all_dim` and `truncate`."""
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True
    short_factors: tuple[float, ...] = ()
    """longrope only, as `long_factors`: one for each frequency."""
    long_factors: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """Rotary positions of a layer; `rope.rotation` makes frequencies of it."""

    theta: float
    rotary_dim: int
    """How many values of a head turn: the first ones, value i with value i + rotary_dim / 2."""
    scaling: RopeScaling | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSpec:
    """In what a layer may differ from its neighbours."""

    rope: Rope
    window: int | None
    """A token sees this many tokens, itself the last; None: everything before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """The MLP as a mixture (GPT-OSS): the router's best few, weighted by softmax over them.

    One expert, of `gate`, `up` = its two projections with bias, gate clamped to at most `limit`,
    up to ±`limit`: `down((up + 1) · gate · sigmoid(alpha · gate))`.
    """

    num_experts: int
    num_chosen: int
    alpha: float
    limit: float
    is_packed: bool
    """Whether the checkpoint holds MXFP4: `mlp.experts.{gate_up,down}_proj_blocks`, uint8
    [experts, out, in / 32, 16], with `_scales`, uint8 [experts, out, in / 32]. Otherwise
    `mlp.experts.{gate_up,down}_proj` is [experts, in, out]. Gate and up alternate in `out`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSource:
    """Where one of our tensors is in the checkpoint."""

    name: str
    rows: tuple[int, int] | None = None
    """The part of a fused tensor's first axis, as start and end; None: all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A decoder of today's usual shape, with its variations.

    A layer computes `x += attention(norm(x))` and `x += mlp(norm(x))`, with an optional norm over
    what is added; norms are RMSNorm; the MLP is `down(act(gate) · up)`.
    """

    model_type: str
    num_layers: int
    hidden_size: int
    intermediate_size: int
    """Of one expert where there are several."""
    vocab_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    context_tokens: int
    """The longest context that the positions are made for."""
    layers: tuple[LayerSpec, ...]
    activation: Activation = "silu"

    norm_eps: float
    norm_adds_one: bool = False
    """Gemma: norms, those of queries and keys as well, multiply by 1 + weight."""
    post_norms: bool = False
    """Gemma 2, 3: `post_attention_norm` and `post_mlp_norm` over what a block adds."""
    qk_norm: bool = False
    """Qwen3, Gemma 3: RMSNorm over each head of queries and keys, before they are turned."""

    qkv_bias: bool = False
    output_bias: bool = False
    """Of `o_proj`."""
    mlp_bias: bool = False
    """Of `gate_proj`, `up_proj` and `down_proj`."""
    attention_scale: float
    """What query·key is multiplied by."""
    attention_softcap: float | None = None
    """Gemma 2: scores s become cap · tanh(s / cap), before the mask."""
    attention_sinks: bool = False
    """GPT-OSS: one more score for each head takes part in the softmax, and no value with it."""
    logits_softcap: float | None = None

    embedding_scale: float = 1.0
    """Gemma: what embeddings are multiplied by, rounded to the type that computes."""
    tied_embeddings: bool = False
    """The embedding is `lm_head` as well."""
    experts: Experts | None = None

    tensors: Mapping[str, TensorSource]
    """Our name → where it is. Our names, shapes as in the checkpoint ([out, in] for linears):

    `embed_tokens.weight`, `norm.weight`, `lm_head.weight` (unless tied), and with
    `layers.{i}.` before it: `input_norm.weight`, `mlp_norm.weight`, `post_attention_norm.weight`,
    `post_mlp_norm.weight`, `self_attn.{q,k,v,o}_proj.weight` and `.bias`,
    `self_attn.{q,k}_norm.weight`, `self_attn.sinks`, `mlp.{gate,up,down}_proj.weight` and `.bias`,
    or with experts `mlp.router.weight`, `mlp.router.bias` and the checkpoint's own
    `mlp.experts.*`.
    """
