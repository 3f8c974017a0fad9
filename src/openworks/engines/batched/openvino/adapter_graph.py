"""Adapters in the graph: what they add to linear layers, a product for each of their pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import openvino as ov
from openvino import opset13 as ops

from openworks.engines.batched.openvino.constants import ints
from openworks.engines.batched.openvino.linears import LinearGroup

PAGE_RANK = 8
"""How much of an adapter's rank is one page; an adapter's last is filled up with zeros."""


def a_name(layer: int, group: str) -> str:
    """Name the input for A of a group's projections."""
    return f"adapter_a.{layer}.{group}"


def b_name(layer: int, group: str, part: int) -> str:
    """Name the input for B of one projection."""
    return f"adapter_b.{layer}.{group}.{part}"


class AdapterInputs:
    """The inputs by which P pages of adapters take part in a step of T tokens.

    - `adapter_rows` int32 [P, t]: the row of the batch that each page is for, 0 where there is
      none or are several; t is 0 when no page has just one, else 1;
    - `adapter_tile_pages` int32 [Q] and `adapter_tile_rows` int32 [Q, u]: the pages of several
      rows, and those, filled up with 0;
    - `adapter_sums` int32 and `adapter_sum_begins` int32 [T]: row i of the batch adds up what
      came out at `adapter_sums[begins[i] : begins[i + 1]]` of the P · t + Q · u places;
    - for each layer and group of projections `a_name` [P, PAGE_RANK · projections, in], and for
      each projection `b_name` [P, PAGE_RANK, out]: B is transposed, and scaled.

    A product for each page, rather than one over all of them with a mask, reads the matrices once
    and multiplies no row by another's adapter. All pages of a product have as many rows as the
    one with the most, so that those with several are multiplied apart, by copies of the pages. t
    or Q may be 0, not both, and the last of the sums is of something: what has no elements is not
    computed, and leaves anything behind.
    """

    def __init__(
        self, make_input: Callable[[str, ov.Type, Sequence[int]], ov.Node], kind: ov.Type
    ) -> None:
        """Make the inputs that all layers share.

        Args:
            make_input: Makes one by name, type and shape.
            kind: What the matrices are of: float32 or bfloat16.
        """
        self._make_input = make_input
        self._kind = kind
        self._rows = make_input("adapter_rows", ov.Type.i32, [-1, -1])
        self._tile_pages = make_input("adapter_tile_pages", ov.Type.i32, [-1])
        self._tile_rows = make_input("adapter_tile_rows", ov.Type.i32, [-1, -1])
        self._sums = make_input("adapter_sums", ov.Type.i32, [-1])
        self._begins = make_input("adapter_sum_begins", ov.Type.i32, [-1])

    def delta(self, layer: int, name: str, group: LinearGroup, x: ov.Node) -> ov.Node:
        """Compute what adapters add to a group: [T, in] → [T, sum of its widths]."""
        a = self._matrix(a_name(layer, name), [-1, PAGE_RANK * len(group.widths), group.num_inputs])
        bs = [
            self._matrix(b_name(layer, name, part), [-1, PAGE_RANK, width])
            for part, width in enumerate(group.widths)
        ]
        tiles = [ops.gather(matrix, self._tile_pages, ints(0)) for matrix in (a, *bs)]
        table = ops.concat(
            [
                _product(ops.gather(x, self._rows, ints(0)), a, bs, sum(group.widths)),
                _product(
                    ops.gather(x, self._tile_rows, ints(0)), tiles[0], tiles[1:], sum(group.widths)
                ),
            ],
            0,
        )
        return ops.embedding_bag_offsets_sum(table, self._sums, self._begins)

    def _matrix(self, name: str, shape: Sequence[int]) -> ov.Node:
        node = self._make_input(name, self._kind, shape)
        return node if self._kind == ov.Type.f32 else ops.convert(node, ov.Type.f32)


def _product(rows: ov.Node, a: ov.Node, bs: Sequence[ov.Node], width: int) -> ov.Node:
    """Multiply rows [P, t, in] by a page each: → [P · t, width], their sum."""
    inner = ops.matmul(rows, a, transpose_a=False, transpose_b=True)
    sizes = ints(*[PAGE_RANK] * len(bs))
    parts = ops.variadic_split(inner, ints(2), sizes).outputs() if len(bs) > 1 else [inner]
    outs = [
        ops.matmul(part, b, transpose_a=False, transpose_b=False)
        for part, b in zip(parts, bs, strict=True)
    ]
    out = ops.concat(outs, 2) if len(bs) > 1 else outs[0]
    return ops.reshape(out, ints(-1, width), special_zero=False)
