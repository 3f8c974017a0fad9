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

    - `adapter_rows` int32 [P, t]: the rows of the batch that each page is for, filled up with 0;
    - `adapter_sums` int32 and `adapter_sum_begins` int32 [T]: row i of the batch adds up what
      came out at `adapter_sums[begins[i] : begins[i + 1]]` of the P · t places;
    - for each layer and group of projections `a_name` [P, PAGE_RANK · projections, in], and for
      each projection `b_name` [P, PAGE_RANK, out]: B is transposed, and scaled.

    A product for each page, rather than one over all of them with a mask, reads the matrices once
    and multiplies no row by another's adapter. P is at least 1, and the last of the sums is of
    something: what has no elements is not computed, and leaves anything behind.
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
        self._sums = make_input("adapter_sums", ov.Type.i32, [-1])
        self._begins = make_input("adapter_sum_begins", ov.Type.i32, [-1])

    def delta(self, layer: int, name: str, group: LinearGroup, x: ov.Node) -> ov.Node:
        """Compute what adapters add to a group: [T, in] → [T, sum of its widths]."""
        num_parts = len(group.widths)
        rows = ops.gather(x, self._rows, ints(0))  # [P, t, in]
        a = self._matrix(a_name(layer, name), [-1, PAGE_RANK * num_parts, group.num_inputs])
        inner = ops.matmul(rows, a, transpose_a=False, transpose_b=True)
        sizes = ints(*[PAGE_RANK] * num_parts)
        parts = ops.variadic_split(inner, ints(2), sizes).outputs() if num_parts > 1 else [inner]
        outs = []
        for part, (hidden, width) in enumerate(zip(parts, group.widths, strict=True)):
            b = self._matrix(b_name(layer, name, part), [-1, PAGE_RANK, width])
            outs.append(ops.matmul(hidden, b, transpose_a=False, transpose_b=False))
        out = ops.concat(outs, 2) if num_parts > 1 else outs[0]  # [P, t, sum of widths]
        table = ops.reshape(out, ints(-1, sum(group.widths)), special_zero=False)
        return ops.embedding_bag_offsets_sum(table, self._sums, self._begins)

    def _matrix(self, name: str, shape: Sequence[int]) -> ov.Node:
        node = self._make_input(name, self._kind, shape)
        return node if self._kind == ov.Type.f32 else ops.convert(node, ov.Type.f32)
