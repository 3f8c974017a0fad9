"""Attention over a step: decodes of similar length in one padded call, each prompt chunk by itself.

What is looked up where is worked out once for a step and shared by its layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 # as everyone calls it
from torch import Tensor

from openworks.engines.batched.kv_cache import KvCache
from openworks.engines.batched.step import Piece

_SHORT_BLOCKS = 16
"""Decodes of up to so many blocks share a call; longer ones with those of up to twice the size."""


@dataclass(frozen=True, slots=True)
class Group:
    """Sequences whose queries are computed by one call."""

    start: int
    """The first of their rows in the step; sequences follow each other."""
    num_sequences: int
    num_queries: int
    """Of each sequence; 1 for decodes."""
    blocks: Tensor | None  # int64 [num_sequences, m]
    """What they read from the cache; None for a whole prompt, which needs only what it computes."""
    mask: Tensor | None  # [num_sequences, num_queries, m * block_tokens]
    """0 or -inf; None for a whole prompt, which is causal."""

    @property
    def end(self) -> int:
        return self.start + self.num_sequences * self.num_queries


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """How queries and keys make scores, besides their product."""

    scale: float
    softcap: float | None = None
    sinks: Tensor | None = None  # [heads]


def length_class(piece: Piece, block_tokens: int) -> int:
    """Say which decodes may share a call: those of one class waste at most half on padding."""
    num_blocks = piece.start // block_tokens + 1
    return max(num_blocks, _SHORT_BLOCKS).bit_length()


def plan_groups(
    pieces: Sequence[Piece],
    *,
    window: int | None,
    block_tokens: int,
    dtype: torch.dtype,
    device: str,
) -> list[Group]:
    """Work out the calls of a step, for layers with one window.

    Args:
        pieces: In the order of their rows: decodes by length class, then chunks.
        window: How many tokens a token sees; None: all before it.
        block_tokens: Of the cache.
        dtype: Of the masks.
        device: Where they go.
    """
    groups: list[Group] = []
    row = index = 0
    while index < len(pieces):
        end = index + 1
        if len(pieces[index].token_ids) == 1:
            kind = length_class(pieces[index], block_tokens)
            while (
                end < len(pieces)
                and len(pieces[end].token_ids) == 1
                and length_class(pieces[end], block_tokens) == kind
            ):
                end += 1
        group = _group(pieces[index:end], row, window, block_tokens, dtype, device)
        groups.append(group)
        row, index = group.end, end
    return groups


def _group(
    pieces: Sequence[Piece],
    row: int,
    window: int | None,
    block_tokens: int,
    dtype: torch.dtype,
    device: str,
) -> Group:
    num_queries = len(pieces[0].token_ids)
    if pieces[0].start == 0 and num_queries > 1 and (window is None or num_queries <= window):
        return Group(row, 1, num_queries, None, None)
    firsts, tables = [], []
    for piece in pieces:
        lowest = 0 if window is None else max(0, piece.start - window + 1)
        first = lowest // block_tokens
        last = (piece.start + num_queries - 1) // block_tokens
        firsts.append(first * block_tokens)
        tables.append(list(piece.blocks[first : last + 1]))
    width = max(map(len, tables))
    for table in tables:  # the mask hides what is read for padding
        table.extend([table[0]] * (width - len(table)))
    starts = torch.tensor([piece.start for piece in pieces])
    queries = starts[:, None] + torch.arange(num_queries)
    keys = torch.tensor(firsts)[:, None] + torch.arange(width * block_tokens)
    hidden = keys[:, None, :] > queries[:, :, None]
    if window is not None:
        hidden |= keys[:, None, :] <= queries[:, :, None] - window
    mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, float("-inf"))
    return Group(row, len(pieces), num_queries, torch.tensor(tables).to(device), mask.to(device))


def attend(
    queries: Tensor,
    kv: Tensor,
    cache: KvCache,
    layer: int,
    groups: Sequence[Group],
    scores: Scores,
) -> Tensor:
    """Compute one layer's attention.

    Args:
        queries: [tokens, heads, head_dim], of the cache's type.
        kv: [tokens, 2 · kv_heads · head_dim]; these are in the cache already.
        cache: Where the keys and values of earlier tokens are.
        layer: Which layer.
        groups: The step's calls, for this layer's window.
        scores: How scores are made.

    Returns:
        [tokens, heads · head_dim].
    """
    parts = []
    for group in groups:
        rows = slice(group.start, group.end)
        if group.blocks is None:
            keys, values = cache.split(kv[None, rows])
        else:
            keys, values = cache.gather(layer, group.blocks)
        if scores.softcap is None and scores.sinks is None:
            part = _fused(queries[rows], keys, values, group, scores.scale)
        else:
            part = _spelled_out(queries[rows], keys, values, group, scores)
        parts.append(part)
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _fused(queries: Tensor, keys: Tensor, values: Tensor, group: Group, scale: float) -> Tensor:
    """Call torch's kernel: with the heads that share keys as queries for decodes, or chunk-wise."""
    num_rows, num_heads, head_dim = queries.shape
    num_kv_heads = keys.shape[1]
    mask = None if group.mask is None else group.mask[:, None]
    if group.num_queries == 1:
        folded = queries.view(num_rows, num_kv_heads, -1, head_dim)
        found = F.scaled_dot_product_attention(folded, keys, values, mask, scale=scale)
        return found.reshape(num_rows, -1)
    if num_heads > num_kv_heads:
        keys = keys.repeat_interleave(num_heads // num_kv_heads, 1)
        values = values.repeat_interleave(num_heads // num_kv_heads, 1)
    found = F.scaled_dot_product_attention(
        queries.transpose(0, 1)[None], keys, values, mask, is_causal=mask is None, scale=scale
    )
    return found[0].transpose(0, 1).reshape(num_rows, -1)


def _spelled_out(
    queries: Tensor, keys: Tensor, values: Tensor, group: Group, scores: Scores
) -> Tensor:
    """Compute what torch's kernel has no room for: capped scores, and sinks."""
    num_rows, num_heads, head_dim = queries.shape
    num_kv_heads = keys.shape[1]
    shape = (group.num_sequences, group.num_queries, num_kv_heads, -1, head_dim)
    folded = queries.reshape(shape).permute(0, 2, 3, 1, 4)  # [n, kv_heads, heads each, q, d]
    products = torch.matmul(folded, keys[:, :, None].transpose(-1, -2)).float().mul_(scores.scale)
    if scores.softcap is not None:
        products = products.div_(scores.softcap).tanh_().mul_(scores.softcap)
    products = products + (
        _causal(group.num_queries, products) if group.mask is None else group.mask[:, None, None]
    )
    if scores.sinks is not None:
        sinks = scores.sinks.float().view(1, num_kv_heads, -1, 1, 1)
        sinks = sinks.expand(*products.shape[:-1], 1)
        weights = torch.softmax(torch.cat([products, sinks], -1), -1)[..., :-1]
    else:
        weights = torch.softmax(products, -1)
    found = torch.matmul(weights.to(values.dtype), values[:, :, None])
    return found.permute(0, 3, 1, 2, 4).reshape(num_rows, num_heads * head_dim)


def _causal(num_queries: int, like: Tensor) -> Tensor:
    mask = torch.full((num_queries, num_queries), float("-inf"), device=like.device)
    return mask.triu_(1)
