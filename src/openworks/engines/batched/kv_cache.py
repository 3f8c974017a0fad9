"""The paged cache of keys and values: blocks of positions, written by slot and read by block."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from openworks.engines.batched.step import BlockCopy


class KvCache:
    """Keys and values of all layers; a position's are beside each other, as they are computed.

    A *slot* is one position's place: block · block_tokens + offset.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        num_blocks: int,
        block_tokens: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: str,
    ) -> None:
        """Set memory aside; the system hands it out as it is first written.

        It begins as zeros: what a mask hides is multiplied by zero, and must be finite for that.
        """
        self.block_tokens = block_tokens
        self.dtype = dtype
        self._num_kv_heads = num_kv_heads
        self._head_dim = head_dim
        self._row = 2 * num_kv_heads * head_dim
        self._data = torch.zeros(
            (num_layers, num_blocks, block_tokens * self._row), dtype=dtype, device=device
        )

    def copy_blocks(self, copies: Sequence[BlockCopy]) -> None:
        """Copy whole blocks, of all layers, in their order."""
        for copy in copies:
            self._data[:, copy.target] = self._data[:, copy.source]

    def write(self, layer: int, slots: Tensor, kv: Tensor) -> None:
        """Keep a step's keys and values.

        Args:
            layer: Of what layer they are.
            slots: int64 [tokens].
            kv: [tokens, 2 · kv_heads · head_dim], keys first, of the cache's type; made finite in
                place, as a block's next owner has its leftovers behind a mask.
        """
        torch.nan_to_num_(kv)
        self._data[layer].view(-1, self._row).index_copy_(0, slots, kv)

    def gather(self, layer: int, blocks: Tensor) -> tuple[Tensor, Tensor]:
        """Read sequences' blocks.

        Args:
            layer: Of what layer.
            blocks: int64 [sequences, m].

        Returns:
            Keys and values, each [sequences, kv_heads, m · block_tokens, head_dim].
        """
        num_sequences = blocks.shape[0]
        rows = self._data[layer].index_select(0, blocks.view(-1))
        return self.split(rows.view(num_sequences, -1, self._row))

    def split(self, kv: Tensor) -> tuple[Tensor, Tensor]:
        """Part keys from values: [sequences, positions, 2 · kv_heads · head_dim], as `gather`."""
        shape = (*kv.shape[:2], 2, self._num_kv_heads, self._head_dim)
        keys, values = kv.view(shape).unbind(2)
        return keys.transpose(1, 2), values.transpose(1, 2)
