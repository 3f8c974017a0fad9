"""A small Llama whose parameters bear the names that `transformers` gives them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaShape:
    """The sizes of the network."""

    vocabulary_size: int = 1024
    hidden_size: int = 192
    intermediate_size: int = 512
    num_layers: int = 6
    num_heads: int = 6
    max_positions: int = 2048
    rope_theta: float = 10000.0
    norm_epsilon: float = 1e-5

    @property
    def head_size(self) -> int:
        """Channels of one attention head."""
        return self.hidden_size // self.num_heads


class Attention(nn.Module):
    """Causal attention with rotary positions."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        size = shape.hidden_size
        self.num_heads = shape.num_heads
        self.q_proj = nn.Linear(size, size, bias=False)
        self.k_proj = nn.Linear(size, size, bias=False)
        self.v_proj = nn.Linear(size, size, bias=False)
        self.o_proj = nn.Linear(size, size, bias=False)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Mix positions; `hidden` is [batch, length, hidden_size]."""
        batch, length, size = hidden.shape
        query, key, value = (
            projection(hidden).view(batch, length, self.num_heads, -1).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = (rotate(part, cos, sin).to(value.dtype) for part in (query, key))
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        projected: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(batch, length, size))
        return projected


def rotate(part: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding, the two halves of a head paired as Llama in `transformers` does."""
    first, second = part.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class GatedMlp(nn.Module):
    """SwiGLU."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Transform every position by itself."""
        gated = functional.silu(self.gate_proj(hidden)) * self.up_proj(hidden)
        projected: Tensor = self.down_proj(gated)
        return projected


class Layer(nn.Module):
    """Attention and MLP, each behind a norm and around a residual."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = GatedMlp(shape)
        self.input_layernorm = nn.RMSNorm(shape.hidden_size, shape.norm_epsilon)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size, shape.norm_epsilon)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """One layer."""
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), cos, sin)
        after: Tensor = hidden + self.mlp(self.post_attention_layernorm(hidden))
        return after


class Llama(nn.Module):
    """The decoder; the output layer is the embedding itself."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocabulary_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_layers))
        self.norm = nn.RMSNorm(shape.hidden_size, shape.norm_epsilon)
        half = shape.head_size // 2
        frequencies = shape.rope_theta ** (-torch.arange(half) / half)
        angles = torch.arange(shape.max_positions)[:, None] * frequencies
        self.cos: Tensor
        self.sin: Tensor
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        residual_scale = (2 * self.shape.num_layers) ** -0.5
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, std=0.02)
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.data.mul_(residual_scale)

    def forward(self, ids: Tensor, answer_positions: Tensor) -> Tensor:
        """Logits where answers are predicted, and nowhere else.

        Args:
            ids: [batch, length].
            answer_positions: Indexes into the flattened batch, [num_answers].

        Returns:
            [num_answers, vocabulary_size].
        """
        length = ids.shape[1]
        cos, sin = self.cos[:length], self.sin[:length]
        hidden = self.embed_tokens(ids)
        for layer in self.layers:
            hidden = layer(hidden, cos, sin)
        chosen = self.norm(hidden).flatten(0, 1)[answer_positions]
        return functional.linear(chosen, self.embed_tokens.weight)
