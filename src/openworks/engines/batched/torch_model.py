"""The decoder in torch: what a `ModelSpec` describes, computed over the rows of a mixed step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 # as everyone calls it
from torch import Tensor

from openworks.engines.batched.attention import Group, Scores, attend
from openworks.engines.batched.experts import ExpertsMlp
from openworks.engines.batched.kv_cache import KvCache
from openworks.engines.batched.linear import (
    Linear,
    Precision,
    activation_dtype,
    make_linear,
    storage_dtype,
)
from openworks.engines.batched.lora import AdapterStack, Segment, Site
from openworks.engines.batched.rope import Rotation, rotation
from openworks.engines.batched.spec import Activation, ModelSpec, Rope
from openworks.engines.batched.weights import Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What layers share of one step."""

    token_ids: Tensor  # int64 [tokens]
    positions: Tensor  # float32 [tokens]
    slots: Tensor  # int64 [tokens]
    """Where in the cache their keys and values go."""
    groups: Mapping[int | None, Sequence[Group]]
    """The calls of attention, by window."""
    logit_rows: Tensor  # int64
    """The rows whose logits are wanted, in the order they are wanted in."""
    segments: Sequence[Segment]
    """The adapters' part."""


class _Norm:
    """RMSNorm, in float32 whatever the activations are."""

    def __init__(self, weight: Tensor, spec: ModelSpec, device: str) -> None:
        weight = weight.to(device=device, dtype=torch.float32)
        self._weight = weight + 1 if spec.norm_adds_one else weight
        self._eps = spec.norm_eps

    def __call__(self, x: Tensor) -> Tensor:
        normed = F.rms_norm(x.float(), self._weight.shape, self._weight, self._eps)
        return normed.to(x.dtype)


class _Turns:
    """Rotary positions: the cosines and sines of a step, for one rotation."""

    def __init__(self, found: Rotation, dtype: torch.dtype, device: str) -> None:
        self._frequencies = torch.tensor(found.frequencies, dtype=torch.float32, device=device)
        self._magnitude = found.magnitude
        self._dtype = dtype

    def of(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and signed sines, each [tokens, 1, rotary_dim]."""
        angles = positions[:, None, None] * self._frequencies
        cosines, sines = angles.cos() * self._magnitude, angles.sin() * self._magnitude
        return (
            torch.cat([cosines, cosines], -1).to(self._dtype),
            torch.cat([-sines, sines], -1).to(self._dtype),
        )


def _turn(heads: Tensor, cosines: Tensor, sines: Tensor) -> None:
    """Turn the first values of [tokens, heads, head_dim] in place: i with i + rotary_dim / 2."""
    rotary_dim = cosines.shape[-1]
    turned = heads[..., :rotary_dim]
    swapped = turned.roll(rotary_dim // 2, -1)
    turned.mul_(cosines).addcmul_(swapped, sines)


def _activate(gate: Tensor, kind: Activation) -> Tensor:
    """Apply the activation; returns a tensor of its own."""
    if kind == "silu":
        return F.silu(gate)
    return F.gelu(gate, approximate="tanh" if kind == "gelu_tanh" else "none")


class TorchModel:
    """Weights of one model, and the forward pass."""

    def __init__(
        self,
        spec: ModelSpec,
        checkpoint: Checkpoint,
        *,
        precision: Precision,
        device: str,
        context_tokens: int,
    ) -> None:
        """Read the weights, tensor by tensor.

        Args:
            spec: Of the model.
            checkpoint: Open; needed no longer than this call.
            precision: Of the linear layers.
            device: `cpu` or `cuda`.
            context_tokens: The longest sequence that will be computed.
        """
        self._spec = spec
        self._dtype = activation_dtype(precision)
        loader = _Loader(spec, checkpoint, precision, device)
        self._embedding = checkpoint.read("embed_tokens.weight", storage_dtype(precision)).to(
            device
        )
        self._turns = {
            rope: _Turns(rotation(rope, context_tokens), self._dtype, device)
            for rope in {layer.rope for layer in spec.layers}
        }
        self._layers = [_Layer(index, spec, loader) for index in range(spec.num_layers)]
        self._norm = loader.norm("norm.weight")
        head = self._embedding if spec.tied_embeddings else loader.weight(["lm_head.weight"])
        self._head = make_linear(head, None, precision, device)
        # Rounded as the weights are: such models were trained with the rounded factor.
        self._embedding_scale = float(
            torch.tensor(spec.embedding_scale, dtype=self._embedding.dtype)
        )
        self.sites: Sequence[Site] = loader.sites

    def forward(self, batch: Batch, cache: KvCache, adapters: AdapterStack) -> Tensor:
        """Compute a step; returns float32 logits [logit_rows, vocab]."""
        x = F.embedding(batch.token_ids, self._embedding).to(self._dtype)
        if self._embedding_scale != 1:
            x.mul_(self._embedding_scale)
        turns = {rope: turns.of(batch.positions) for rope, turns in self._turns.items()}
        for layer in self._layers:
            layer.forward(x, batch, turns, cache, adapters)
        logits = self._head(self._norm(x.index_select(0, batch.logit_rows))).float()
        cap = self._spec.logits_softcap
        return logits if cap is None else logits.div_(cap).tanh_().mul_(cap)


class _Loader:
    """Reads a model's layers, and numbers the linear ones that adapters may change."""

    def __init__(
        self, spec: ModelSpec, checkpoint: Checkpoint, precision: Precision, device: str
    ) -> None:
        self.precision = precision
        self.device = device
        self.sites: list[Site] = []
        self._spec = spec
        self._checkpoint = checkpoint
        # int8 is made of float32; of bfloat16 it would be the same, as it is read as it is stored.
        self._dtype = None if precision == "int8" else activation_dtype(precision)

    def has(self, name: str) -> bool:
        return self._checkpoint.has(name)

    def weight(self, names: Sequence[str]) -> Tensor:
        """Read tensors as one, under each other."""
        return self._checkpoint.read_rows(names, self._dtype)

    def norm(self, name: str) -> _Norm:
        return _Norm(self._checkpoint.read(name), self._spec, self.device)

    def linear(self, modules: Sequence[str], *, alias: str | None = None) -> tuple[int, Linear]:
        """Read modules as one linear layer; returns its number among the sites as well."""
        weights = [self._checkpoint.read(f"{module}.weight", self._dtype) for module in modules]
        parts, start = {}, 0
        for module, weight in zip(modules, weights, strict=True):
            parts[module] = (start, start + weight.shape[0])
            start += weight.shape[0]
        self.sites.append(Site(in_features=weights[0].shape[1], parts=parts, alias=alias))
        weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        del weights
        bias = None
        if self.has(f"{modules[0]}.bias"):
            bias = self.weight([f"{module}.bias" for module in modules])
        return len(self.sites) - 1, make_linear(weight, bias, self.precision, self.device)

    def experts(self, at: str) -> ExpertsMlp:
        return ExpertsMlp(self._spec, self._checkpoint, at, self.precision, self.device)


class _Layer:
    """One layer: attention and MLP, each added to what flows past."""

    def __init__(self, index: int, spec: ModelSpec, loader: _Loader) -> None:
        at = f"layers.{index}"
        self._index = index
        self._spec = spec
        self._rope: Rope = spec.layers[index].rope
        self._window = spec.layers[index].window
        self._num_turned = spec.num_heads + spec.num_kv_heads
        self._queries_end = spec.num_heads * spec.head_dim
        self._keys_end = self._num_turned * spec.head_dim
        self._input_norm = loader.norm(f"{at}.input_norm.weight")
        self._mlp_norm = loader.norm(f"{at}.mlp_norm.weight")
        self._post_attention_norm = self._post_mlp_norm = None
        if spec.post_norms:
            self._post_attention_norm = loader.norm(f"{at}.post_attention_norm.weight")
            self._post_mlp_norm = loader.norm(f"{at}.post_mlp_norm.weight")
        self._query_norm = self._key_norm = None
        if spec.qk_norm:
            self._query_norm = loader.norm(f"{at}.self_attn.q_norm.weight")
            self._key_norm = loader.norm(f"{at}.self_attn.k_norm.weight")
        self._qkv_site, self._qkv = loader.linear(
            [f"{at}.self_attn.{module}_proj" for module in ("q", "k", "v")],
            alias=f"{at}.self_attn.qkv_proj",
        )
        self._output_site, self._output = loader.linear([f"{at}.self_attn.o_proj"])
        sinks = None
        if spec.attention_sinks:
            sinks = loader.weight([f"{at}.self_attn.sinks"]).to(loader.device)
        self._scores = Scores(
            scale=spec.attention_scale, softcap=spec.attention_softcap, sinks=sinks
        )
        self._mlp = loader.experts(at) if spec.experts else _GatedMlp(at, spec, loader)

    def forward(
        self,
        x: Tensor,
        batch: Batch,
        turns: Mapping[Rope, tuple[Tensor, Tensor]],
        cache: KvCache,
        adapters: AdapterStack,
    ) -> None:
        """Add this layer to `x` [tokens, hidden], in place."""
        added = self._attention(self._input_norm(x), batch, turns, cache, adapters)
        if self._post_attention_norm is not None:
            added = self._post_attention_norm(added)
        x.add_(added)
        added = self._mlp.forward(self._mlp_norm(x), adapters, batch.segments)
        if self._post_mlp_norm is not None:
            added = self._post_mlp_norm(added)
        x.add_(added)

    def _attention(
        self,
        x: Tensor,
        batch: Batch,
        turns: Mapping[Rope, tuple[Tensor, Tensor]],
        cache: KvCache,
        adapters: AdapterStack,
    ) -> Tensor:
        qkv = self._qkv(x)
        if batch.segments:
            adapters.add(self._qkv_site, x, qkv, batch.segments)
        heads = qkv[:, : self._keys_end].view(x.shape[0], self._num_turned, -1)
        if self._query_norm is not None and self._key_norm is not None:
            queries, keys = heads[:, : self._spec.num_heads], heads[:, self._spec.num_heads :]
            queries.copy_(self._query_norm(queries))
            keys.copy_(self._key_norm(keys))
        _turn(heads, *turns[self._rope])
        kv = qkv[:, self._queries_end :].to(cache.dtype)
        cache.write(self._index, batch.slots, kv)
        queries = heads[:, : self._spec.num_heads].to(cache.dtype)
        found = attend(
            queries, kv, cache, self._index, batch.groups[self._window], self._scores
        ).to(x.dtype)
        added = self._output(found)
        if batch.segments:
            adapters.add(self._output_site, found, added, batch.segments)
        return added


class _GatedMlp:
    """`down(act(gate) · up)`."""

    def __init__(self, at: str, spec: ModelSpec, loader: _Loader) -> None:
        self._activation: Activation = spec.activation
        self._gate_up_site, self._gate_up = loader.linear(
            [f"{at}.mlp.gate_proj", f"{at}.mlp.up_proj"], alias=f"{at}.mlp.gate_up_proj"
        )
        self._down_site, self._down = loader.linear([f"{at}.mlp.down_proj"])

    def forward(self, x: Tensor, adapters: AdapterStack, segments: Sequence[Segment]) -> Tensor:
        gate_up = self._gate_up(x)
        if segments:
            adapters.add(self._gate_up_site, x, gate_up, segments)
        gate, up = gate_up.chunk(2, 1)
        inner = _activate(gate, self._activation).mul_(up)
        added = self._down(inner)
        if segments:
            adapters.add(self._down_site, inner, added, segments)
        return added
