"""Memory of torch as tensors of OpenVINO, without a copy."""

from __future__ import annotations

import openvino as ov
import torch
from torch import Tensor

_TYPES = {
    torch.float32: ov.Type.f32,
    torch.bfloat16: ov.Type.bf16,
    torch.int32: ov.Type.i32,
}


def shared_tensor(values: Tensor) -> ov.Tensor:
    """Return the same memory, which must be contiguous.

    The tensor holds it; a request that is given the tensor holds neither.
    """
    kind = _TYPES[values.dtype]
    if values.numel() == 0:
        return ov.Tensor(kind, ov.Shape(list(values.shape)))
    # numpy has no bfloat16; the bits are what counts.
    bits = values.view(torch.uint16) if values.dtype == torch.bfloat16 else values
    return ov.Tensor(bits.numpy(), ov.Shape(list(values.shape)), kind)
