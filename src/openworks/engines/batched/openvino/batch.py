"""Lays out pieces of a step as the inputs of the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F  # noqa: N812 # as everyone calls it
from torch import Tensor

from openworks.engines.batched.openvino.attention import BLOCK_TOKENS
from openworks.engines.batched.openvino.graph import distinct_ropes
from openworks.engines.batched.rope import rotation
from openworks.engines.batched.spec import ModelSpec
from openworks.engines.batched.step import Piece

_TILE_ROWS = 64
"""How many rows are multiplied by one copy of their adapter's page at most…"""
_TILE_STEP = 8
"""…and it is a multiple of this: kernels are made anew for every number of them."""


class BatchLayout:
    """What is looked up outside the graph: embeddings, and the turns of positions."""

    def __init__(self, spec: ModelSpec, embedding: Tensor, context_tokens: int) -> None:
        """Hold the embedding [vocab, hidden], of float32 or bfloat16."""
        self._embedding = embedding
        # Rounded as the weights are: such models were trained with the rounded factor.
        self._scale = float(torch.tensor(spec.embedding_scale, dtype=embedding.dtype))
        self._rotations = [rotation(rope, context_tokens) for rope in distinct_ropes(spec)]

    def inputs(self, pieces: Sequence[Piece], order: Sequence[int]) -> Mapping[str, Tensor]:
        """Lay out what does not depend on adapters, by the names of the graph's inputs.

        Args:
            pieces: In the order that their logits are wanted in.
            order: The order of their rows, as indices of `pieces`.
        """
        rows = [pieces[index] for index in order]
        return {
            **self._tokens(rows),
            **_paging(rows),
            "logit_rows": _logit_rows(pieces, order),
        }

    def _tokens(self, pieces: Sequence[Piece]) -> dict[str, Tensor]:
        token_ids = torch.tensor([token for piece in pieces for token in piece.token_ids])
        embeddings = F.embedding(token_ids, self._embedding).float()
        if self._scale != 1:
            embeddings *= self._scale
        found = {"embeddings": embeddings}
        positions = torch.cat(
            [
                torch.arange(piece.start, piece.start + len(piece.token_ids), dtype=torch.float32)
                for piece in pieces
            ]
        )
        for index, turn in enumerate(self._rotations):
            angles = positions[:, None] * torch.tensor(turn.frequencies)
            angles = torch.cat([angles, angles], 1)[:, None, None]
            found[f"cos.{index}"] = angles.cos() * turn.magnitude
            found[f"sin.{index}"] = angles.sin() * turn.magnitude
        return found


def _paging(pieces: Sequence[Piece]) -> dict[str, Tensor]:
    lengths = [len(piece.token_ids) for piece in pieces]
    ends = [piece.start + length for piece, length in zip(pieces, lengths, strict=True)]
    tables = [
        piece.blocks[: -(-end // BLOCK_TOKENS)] for piece, end in zip(pieces, ends, strict=True)
    ]
    return {
        "past_lens": ints([piece.start for piece in pieces]),
        "subsequence_begins": begins(lengths),
        "block_indices": ints([block for table in tables for block in table]),
        "block_indices_begins": begins([len(table) for table in tables]),
        "max_context_len": torch.tensor(max(ends), dtype=torch.int32),
    }


def _logit_rows(pieces: Sequence[Piece], order: Sequence[int]) -> Tensor:
    ends = dict(
        zip(order, accumulate(len(pieces[index].token_ids) for index in order), strict=True)
    )
    return ints(
        [
            row
            for index, piece in enumerate(pieces)
            for row in range(ends[index] - piece.num_logits, ends[index])
        ]
    )


def adapter_inputs(pieces: Sequence[Piece], owners: Sequence[int]) -> Mapping[str, Tensor]:
    """Lay out which rows of the batch each page is for: a lone row by page, others in tiles.

    Args:
        pieces: Of the batch, those with adapters last: the kernel that sums wants the last sum
            to be of something.
        owners: For each page that the step reads, its slot; at least one.
    """
    rows: dict[int, list[int]] = {}
    end = 0
    for piece in pieces:
        start, end = end, end + len(piece.token_ids)
        if piece.slot is not None:
            rows.setdefault(piece.slot, []).extend(range(start, end))
    # Without adapters there is a page of zeros, and something must be multiplied by it.
    rows = rows or {owners[0]: [end - 1]}
    alone = {slot: found for slot, found in rows.items() if len(found) == 1}
    by_page = [alone.get(slot, []) for slot in owners] if alone else []
    tiles = [
        (page, found[first : first + _TILE_ROWS])
        for page, slot in enumerate(owners)
        if slot in rows and slot not in alone
        for found in [rows[slot]]
        for first in range(0, len(found), _TILE_ROWS)
    ]
    longest = max((len(found) for _, found in tiles), default=1)
    width = -(-longest // _TILE_STEP) * _TILE_STEP
    sums: list[list[int]] = [[] for _ in range(end)]
    for place, found in enumerate(by_page):
        for row in found:
            sums[row].append(place)
    for number, (_, found) in enumerate(tiles):
        for place, row in enumerate(found, len(by_page) + number * width):
            sums[row].append(place)
    return {
        "adapter_rows": _table(by_page, 1).view(len(owners), 1 if alone else 0),
        "adapter_tile_pages": ints([page for page, _ in tiles]),
        "adapter_tile_rows": _table([found for _, found in tiles], width),
        "adapter_sums": ints([place for found in sums for place in found]),
        "adapter_sum_begins": begins([len(found) for found in sums])[:-1].clone(),
    }


def _table(rows: Sequence[Sequence[int]], width: int) -> Tensor:
    """Put rows of numbers below each other: int32 [n, width], filled up with 0."""
    filled = [value for row in rows for value in (*row, *[0] * (width - len(row)))]
    return ints(filled).view(len(rows), width)


def begins(lengths: Sequence[int]) -> Tensor:
    """Return where parts of these lengths begin, and the end of the last: int32 [n + 1]."""
    return F.pad(torch.cumsum(ints(lengths), 0, dtype=torch.int32), (1, 0))


def ints(values: Sequence[int]) -> Tensor:
    """Return int32 [n]."""
    return torch.tensor(values, dtype=torch.int32)
