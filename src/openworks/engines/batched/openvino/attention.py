"""Attention over a paged cache, as OpenVINO's CPU plugin computes it for a mixed batch.

The operation is not part of a published operator set: its inputs are those of 2026.4, and `probe`
finds out whether the installed version still means the same by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import openvino as ov
from openvino import opset13 as ops
from openvino.op import _PagedAttentionExtension as PagedAttention

Value: TypeAlias = ov.Node | ov.Output
"""What flows in a graph: one output of a node, or the node that has only one."""
BLOCK_TOKENS = 32
"""Positions in a block; the plugin's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paging:
    """Inputs by which N pieces of sequences find their blocks, all int32."""

    past_lens: ov.Node  # [N]
    subsequence_begins: ov.Node  # [N + 1], rows of the batch
    block_indices: ov.Node  # [blocks of all pieces]
    block_indices_begins: ov.Node  # [N + 1]
    max_context_len: ov.Node  # []


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """The shape of a layer's attention."""

    num_kv_heads: int
    head_dim: int
    scale: float
    window: int | None
    """How many tokens a token sees, itself the last; None: all."""


def paged_attention(
    qkv: Sequence[Value], caches: Sequence[ov.Node], paging: Paging, heads: Heads
) -> ov.Output:
    """Write keys and values into the cache and attend over it.

    Args:
        qkv: Queries [T, heads · head_dim], keys and values [T, kv_heads · head_dim].
        caches: The inputs for the cache's keys and values, of dynamic type: compiling decides.
        paging: Where the pieces' blocks are.
        heads: The shape.

    Returns:
        [T, heads · head_dim].
    """
    node = PagedAttention(
        [
            *(_output(value) for value in qkv),
            *(cache.output(0) for cache in caches),
            paging.past_lens.output(0),
            paging.subsequence_begins.output(0),
            paging.block_indices.output(0),
            paging.block_indices_begins.output(0),
            ops.constant(np.array(heads.scale, dtype=np.float32)).output(0),
            _int(heads.window or 0),
            _none(np.float32),  # no slopes of ALiBi
            paging.max_context_len.output(0),
            _none(np.int32),  # no scores are wanted
            *(_none(np.int32), _none(np.int32, 2), _none(np.float32, 2)),  # no cache rotation
            *(_none(np.float32), _int(0), _int(0)),  # no sparse attention
            _none(np.float32, 4),  # no sinks
            *(_int(0), _none(np.int32), _none(np.int32), _none(np.int32)),  # no eviction
            _none(np.int32),  # no types of tokens
            *(_none(np.uint8), _none(np.int32)),  # no tree of guesses
        ]
    )
    for key, value in {
        "num_k_heads": heads.num_kv_heads,
        "k_head_size": heads.head_dim,
        "num_v_heads": heads.num_kv_heads,
        "v_head_size": heads.head_dim,
    }.items():
        node.rt_info[key] = value
    return node.output(0)


def _output(value: Value) -> ov.Output:
    return value.output(0) if isinstance(value, ov.Node) else value


def _int(value: int) -> ov.Output:
    return ops.constant(np.array(value, dtype=np.int32)).output(0)


def _none(kind: type[np.generic], rank: int = 1) -> ov.Output:
    """An input that is not used."""
    return ops.constant(np.empty((0,) * rank, dtype=kind)).output(0)
