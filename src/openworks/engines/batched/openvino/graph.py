"""Builds a model's graph: a flat batch of tokens in, logits of the wanted rows out."""

from __future__ import annotations

from collections.abc import Sequence

import openvino as ov
from openvino import opset13 as ops

from openworks.engines.batched.memory import Spill
from openworks.engines.batched.openvino.adapter_graph import AdapterInputs
from openworks.engines.batched.openvino.attention import Heads, Paging, paged_attention
from openworks.engines.batched.openvino.constants import (
    Precision,
    float_constant,
    ints,
    number,
    weight_constant,
)
from openworks.engines.batched.openvino.linears import linear_groups
from openworks.engines.batched.spec import ModelSpec, Rope, UnsupportedModelError
from openworks.engines.batched.weights import Checkpoint


def check_spec(spec: ModelSpec) -> None:
    """Refuse what OpenVINO's attention cannot compute, and what is not built here.

    Raises:
        UnsupportedModelError: Names it.
    """
    refused = {
        "mixtures of experts": spec.experts is not None,
        "capped attention scores": spec.attention_softcap is not None,
        "attention sinks": spec.attention_sinks,
    }
    for what, is_there in refused.items():
        if is_there:
            raise UnsupportedModelError(f"The OpenVINO executor does not compute {what}.")


def distinct_ropes(spec: ModelSpec) -> list[Rope]:
    """Return the kinds of positions that layers have, in the order of their inputs."""
    return list(dict.fromkeys(layer.rope for layer in spec.layers))


class GraphBuilder:
    """Builds the graph of one model.

    Its inputs are, for T tokens of N pieces in one step:

    - `embeddings` float32 [T, hidden], and for each of `distinct_ropes` `cos.{i}` and `sin.{i}`
      float32 [T, 1, 1, rotary_dim];
    - those of `Paging`, by their names;
    - `key_cache.{layer}` and `value_cache.{layer}`, of shapes and types that compiling decides;
    - `logit_rows` int32 [R]: the rows of the batch whose logits are wanted;
    - with adapters, those of `AdapterInputs`.

    Its output is float32 [R, vocab_size].
    """

    def __init__(
        self,
        spec: ModelSpec,
        checkpoint: Checkpoint,
        *,
        precision: Precision,
        adapter_type: ov.Type | None,
        spill: Spill,
    ) -> None:
        """Hold what to build.

        Args:
            spec: Of the model.
            checkpoint: Open until `build` returns.
            precision: Of the linear layers' weights.
            adapter_type: What adapters' matrices are of; None for a graph that takes none.
            spill: Holds the weights for as long as the graph is used.
        """
        self._spec = spec
        self._checkpoint = checkpoint
        self._precision = precision
        self._spill = spill
        self._groups = linear_groups(spec)
        self._parameters: list[ov.op.Parameter] = []
        self._ropes = distinct_ropes(spec)
        self._turns = [
            (self._turn_input("cos", i, rope), self._turn_input("sin", i, rope))
            for i, rope in enumerate(self._ropes)
        ]
        self._paging = Paging(
            past_lens=self._input("past_lens", ov.Type.i32, [-1]),
            subsequence_begins=self._input("subsequence_begins", ov.Type.i32, [-1]),
            block_indices=self._input("block_indices", ov.Type.i32, [-1]),
            block_indices_begins=self._input("block_indices_begins", ov.Type.i32, [-1]),
            max_context_len=self._input("max_context_len", ov.Type.i32, []),
        )
        self._adapters = None if adapter_type is None else AdapterInputs(self._input, adapter_type)

    def build(self) -> ov.Model:
        """Read the weights, and build."""
        spec = self._spec
        x = self._input("embeddings", ov.Type.f32, [-1, spec.hidden_size])
        for layer in range(spec.num_layers):
            x = self._layer(layer, x)
        rows = ops.gather(x, self._input("logit_rows", ov.Type.i32, [-1]), ints(0))
        name = "embed_tokens.weight" if spec.tied_embeddings else "lm_head.weight"
        head = weight_constant(self._checkpoint.read(name), self._precision, self._spill)
        logits = _multiply(self._norm(rows, "norm.weight"), head)
        if spec.logits_softcap is not None:
            cap = number(spec.logits_softcap)
            logits = ops.multiply(ops.tanh(ops.divide(logits, cap)), cap)
        return ov.Model([ops.result(logits)], self._parameters, spec.model_type)

    def _input(self, name: str, kind: ov.Type, shape: Sequence[int]) -> ov.Node:
        node = ops.parameter(ov.PartialShape(list(shape)), kind, name=name)
        node.output(0).get_tensor().set_names({name})
        self._parameters.append(node)
        return node

    def _turn_input(self, kind: str, index: int, rope: Rope) -> ov.Node:
        return self._input(f"{kind}.{index}", ov.Type.f32, [-1, 1, 1, rope.rotary_dim])

    def _layer(self, layer: int, x: ov.Node) -> ov.Node:
        at = f"layers.{layer}"
        added = self._attention(layer, self._norm(x, f"{at}.input_norm.weight"))
        if self._spec.post_norms:
            added = self._norm(added, f"{at}.post_attention_norm.weight")
        x = ops.add(x, added)
        added = self._mlp(layer, self._norm(x, f"{at}.mlp_norm.weight"))
        if self._spec.post_norms:
            added = self._norm(added, f"{at}.post_mlp_norm.weight")
        return ops.add(x, added)

    def _norm(self, x: ov.Node, name: str) -> ov.Node:
        weight = self._checkpoint.read(name).float()
        if self._spec.norm_adds_one:
            weight = weight + 1
        mean = ops.reduce_mean(ops.power(x, number(2)), ints(-1), keep_dims=True)
        root = ops.sqrt(ops.add(mean, number(self._spec.norm_eps)))
        return ops.multiply(ops.multiply(x, ops.divide(number(1), root)), float_constant(weight))

    def _linear(self, layer: int, name: str, x: ov.Node) -> list[ov.Node]:
        """Multiply by a group of projections at once: [T, in] → [T, out] of each."""
        group = self._groups[name]
        modules = [f"layers.{layer}.{module}" for module in group.modules]
        weight = self._checkpoint.read_rows([f"{module}.weight" for module in modules])
        y = _multiply(x, weight_constant(weight, self._precision, self._spill))
        if self._checkpoint.has(f"{modules[0]}.bias"):
            bias = self._checkpoint.read_rows([f"{module}.bias" for module in modules])
            y = ops.add(y, float_constant(bias))
        if self._adapters is not None:
            y = ops.add(y, self._adapters.delta(layer, name, group, x))
        return _split(y, 1, group.widths)

    def _attention(self, layer: int, x: ov.Node) -> ov.Node:
        spec = self._spec
        q, k, v = self._linear(layer, "qkv", x)
        at = f"layers.{layer}.self_attn"
        turned = (
            self._turn(layer, q, spec.num_heads, f"{at}.q_norm.weight"),
            self._turn(layer, k, spec.num_kv_heads, f"{at}.k_norm.weight"),
            v,
        )
        caches = [
            self._input(f"{kind}_cache.{layer}", ov.Type.dynamic, [-1, -1, -1, -1])
            for kind in ("key", "value")
        ]
        heads = Heads(
            num_kv_heads=spec.num_kv_heads,
            head_dim=spec.head_dim,
            scale=spec.attention_scale,
            window=spec.layers[layer].window,
        )
        attended = paged_attention(turned, caches, self._paging, heads)
        return self._linear(layer, "o", attended)[0]

    def _turn(self, layer: int, x: ov.Node, num_heads: int, norm: str) -> ov.Node:
        """Turn queries or keys [T, heads · head_dim] by their positions, after their norm.

        The shapes and the order of operations are those that the compiler makes one kernel of.
        """
        spec = self._spec
        rope = spec.layers[layer].rope
        x = ops.reshape(x, ints(0, num_heads, 1, spec.head_dim), special_zero=True)
        if spec.qk_norm:
            x = self._norm(x, norm)
        turning, *rest = _split(x, 3, (rope.rotary_dim, spec.head_dim - rope.rotary_dim))
        half = rope.rotary_dim // 2
        first = ops.slice(turning, ints(0), ints(half), ints(1), ints(3))
        second = ops.slice(turning, ints(half), ints(rope.rotary_dim), ints(1), ints(3))
        crossed = ops.concat([ops.multiply(second, number(-1)), first], -1)
        cos, sin = self._turns[self._ropes.index(rope)]
        turned = ops.add(ops.multiply(turning, cos), ops.multiply(crossed, sin))
        if rest:
            turned = ops.concat([turned, *rest], -1)
        return ops.reshape(turned, ints(0, num_heads * spec.head_dim), special_zero=True)

    def _mlp(self, layer: int, x: ov.Node) -> ov.Node:
        gate, up = self._linear(layer, "gate_up", x)
        match self._spec.activation:
            case "silu":
                gate = ops.swish(gate)
            case "gelu":
                gate = ops.gelu(gate, "erf")
            case "gelu_tanh":
                gate = ops.gelu(gate, "tanh")
        return self._linear(layer, "down", ops.multiply(gate, up))[0]


def _multiply(x: ov.Node, weight: ov.Node) -> ov.Node:
    return ops.matmul(x, weight, transpose_a=False, transpose_b=True)


def _split(x: ov.Node, axis: int, widths: Sequence[int]) -> list[ov.Node]:
    """Cut along an axis; widths of 0 are left out."""
    widths = [width for width in widths if width]
    if len(widths) == 1:
        return [x]
    return list(ops.variadic_split(x, ints(axis), ints(*widths)).outputs())
