"""Weights as constants of a graph, in the forms that OpenVINO's CPU kernels multiply directly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, assert_never

import numpy as np
import openvino as ov
import torch
from openvino import opset13 as ops
from torch import Tensor

from openworks.engines.batched.memory import Spill

Precision: TypeAlias = Literal["float32", "bfloat16", "int8", "int4"]

_INT8_MAX = 127
_INT4_MAX = 7
_INT4_GROUPS = (64, 32)
"""How many weights of a row share a scale: the first of these that divides it."""
_SMALLEST = 1e-12
"""Keeps the scale of a row of zeros from being zero."""


def weight_constant(weight: Tensor, precision: Precision, spill: Spill) -> ov.Node:
    """Put a linear layer's weight into a graph.

    Args:
        weight: [out, in], of any float.
        precision: How it is kept. int8 has a scale for each output, int4 one for each group of
            inputs; a row that no group divides is kept in int8.
        spill: Where its values are until they are compiled.

    Returns:
        A node of float32 [out, in] that the compiler folds into the multiplication.
    """
    match precision:
        case "float32":
            return ops.constant(spill.keep(weight.float()).numpy(), shared_memory=True)
        case "bfloat16":
            return _bfloat16(weight, spill)
        case "int8":
            return _int8(weight.float(), spill)
        case "int4":
            group = next((size for size in _INT4_GROUPS if weight.shape[1] % size == 0), None)
            if group is None:
                return _int8(weight.float(), spill)
            return _int4(weight.float(), group, spill)
        case _:
            assert_never(precision)


def float_constant(values: Tensor) -> ov.Node:
    """Put numbers into a graph as float32."""
    return ops.constant(values.float().contiguous().numpy(), shared_memory=True)


def ints(*values: int) -> ov.Node:
    """Put axes, shapes or bounds into a graph."""
    return ops.constant(np.array(values, dtype=np.int64))


def number(value: float) -> ov.Node:
    """Put one float32 into a graph."""
    return ops.constant(np.array(value, dtype=np.float32))


def _bfloat16(weight: Tensor, spill: Spill) -> ov.Node:
    bits = spill.keep(weight.to(torch.bfloat16)).view(torch.uint16)
    return ops.convert(_packed(bits, weight.shape, ov.Type.bf16), ov.Type.f32)


def _int8(weight: Tensor, spill: Spill) -> ov.Node:
    scales = weight.abs().amax(1, keepdim=True).clamp_min_(_SMALLEST).div_(_INT8_MAX)
    quantised = spill.keep(weight.div(scales).round_().to(torch.int8))
    values = ops.convert(ops.constant(quantised.numpy(), shared_memory=True), ov.Type.f32)
    return ops.multiply(values, float_constant(scales))


def _int4(weight: Tensor, group: int, spill: Spill) -> ov.Node:
    num_out, num_in = weight.shape
    grouped = weight.view(num_out, num_in // group, group)
    scales = grouped.abs().amax(2, keepdim=True).clamp_min_(_SMALLEST).div_(_INT4_MAX)
    quantised = grouped.div(scales).round_().to(torch.int8).view(-1, 2)
    # Two to a byte, the first in the low half.
    pairs = spill.keep((quantised[:, 0] & 0xF) | (quantised[:, 1] << 4)).view(torch.uint8)
    values = ops.convert(_packed(pairs, grouped.shape, ov.Type.i4), ov.Type.f32)
    scaled = ops.multiply(values, float_constant(scales))
    return ops.reshape(scaled, ints(num_out, num_in), special_zero=False)


def _packed(bits: Tensor, shape: Sequence[int], kind: ov.Type) -> ov.Node:
    """Put bits into a graph that numpy has no type for."""
    return ops.constant(ov.Tensor(bits.numpy(), ov.Shape(list(shape)), kind))
