"""The kernels behind a linear layer: float32, bfloat16, and int8 by oneDNN, found out at load."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812 # as everyone calls it
from torch import Tensor

from openworks.engines.threads import SMALL_MODEL_BYTES

Precision: TypeAlias = Literal["float32", "bfloat16", "int8"]

_INT8_MAX = 127
_UINT8_ZERO = 128
_ROUNDING = 1.5 * 2**23
_TOLERANCE = 0.03
"""Of the self-test's result, relative; int8 rounding alone comes to a little over 0.01."""


class Linear(Protocol):
    """A weight matrix with its bias, in whatever form its kernel wants."""

    in_features: int
    out_features: int

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply.

        Args:
            x: [rows, in_features], in the type that activations have (`activation_dtype`).

        Returns:
            [rows, out_features], of the same type; the caller's own, to write into.
        """
        ...


class DenseLinear:
    """float32 or bfloat16: the type of the weight."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Hold a weight [out, in] and a bias [out] of its type."""
        self.out_features, self.in_features = weight.shape
        self._weight = weight
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self._weight, self._bias)


class Int8Linear:
    """int8 weights with a scale for each output, activations quantised row by row.

    oneDNN takes one scale for all activations. Each row is divided by its own before and
    multiplied after, which is exact, so that no row depends on what else is in the batch.
    Activations are uint8 around 128: signed ones fall to a path some hundred times slower.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Quantise a weight [out, in]; the bias [out] becomes float32."""
        self.out_features, self.in_features = weight.shape
        weight = weight.float()
        self._scales = weight.abs().amax(1).clamp_min_(_SMALLEST).div_(_INT8_MAX)  # [out]
        quantised = weight.div(self._scales[:, None]).round_().to(torch.int8)
        self._packed: Tensor = torch.ops.onednn.qlinear_prepack(quantised, None)
        self._zeros = torch.zeros(self.out_features, dtype=torch.int64)
        self._bias = None if bias is None else bias.float()

    def __call__(self, x: Tensor) -> Tensor:
        quantised, scales = quantise_rows(x)
        y: Tensor = torch.ops.onednn.qlinear_pointwise.default(
            quantised,
            1.0,
            _UINT8_ZERO,
            self._packed,
            self._scales,
            self._zeros,
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        y.mul_(scales)
        return y if self._bias is None else y.add_(self._bias)


_SMALLEST = 1e-12
"""Keeps the scale of a row of zeros from being zero."""


def quantise_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise activations, each row by its own largest value.

    Args:
        x: float32 [rows, n].

    Returns:
        uint8 [rows, n] around 128, and float32 scales [rows, 1].
    """
    scales = x.abs().amax(1, keepdim=True).clamp_min_(_SMALLEST).div_(_INT8_MAX)
    # A float of this size has no fraction: adding it rounds, and leaves the number in the lowest
    # byte. torch has vector code from int32 to uint8, and none from float32.
    shifted = x.div(scales).add_(_ROUNDING + _UINT8_ZERO)
    return shifted.view(torch.int32).to(torch.uint8), scales


def activation_dtype(precision: Precision) -> torch.dtype:
    """Return the type of what flows between layers.

    int8 has float32 there: rows are quantised from it, and scaled in it, faster than in bfloat16.
    """
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def storage_dtype(precision: Precision) -> torch.dtype:
    """Return the type of what is kept and not multiplied in int8: embeddings, cache, adapters."""
    return torch.float32 if precision == "float32" else torch.bfloat16


def make_linear(weight: Tensor, bias: Tensor | None, precision: Precision, device: str) -> Linear:
    """Make a weight [out, in] ready for its kernel; of int8, the given tensors are let go."""
    match precision:
        case "int8":
            return Int8Linear(weight, bias)
        case "float32" | "bfloat16":
            dtype = activation_dtype(precision)
            return DenseLinear(
                weight.to(device, dtype), None if bias is None else bias.to(device, dtype)
            )


def choose_precision(
    wanted: Literal["auto"] | Precision, device: str, *, model_bytes: int
) -> tuple[Precision, str]:
    """Choose what computes.

    Args:
        wanted: What the settings ask for; `auto` is int8 on processors that are good at it.
        device: `cpu` or `cuda`.
        model_bytes: The size of the weights as stored.

    Returns:
        The precision, and why it is this one.
    """
    if wanted in {"float32", "bfloat16"}:
        return wanted, "as asked for"
    if device != "cpu":
        return "bfloat16", f"int8 kernels are for processors, not for {device}"
    if wanted == "auto" and model_bytes < SMALL_MODEL_BYTES:
        return "float32", "the model is small"
    fault = int8_fault()
    if fault is not None:
        return "bfloat16", fault
    return "int8", "as asked for" if wanted == "int8" else "the processor multiplies int8 exactly"


def int8_fault(make: Callable[[Tensor, Tensor | None], Linear] = Int8Linear) -> str | None:
    """Test the int8 kernels, which are no public part of torch.

    Args:
        make: What quantises a weight and multiplies by it.

    Returns:
        Why they cannot be used here; None if they can.
    """
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(96, 256, generator=generator)
    x = torch.randn(5, 256, generator=generator)
    try:
        found = make(weight, None)(x)
        # The largest products there are: without VNNI, pairs of them saturate at 16 bits.
        largest = make(torch.ones(32, 256), None)(torch.ones(2, 256))
    except (AttributeError, NotImplementedError, RuntimeError, TypeError) as exc:
        return f"this torch has no int8 kernels for this processor ({type(exc).__name__})"
    expected = x @ weight.t()
    if float((found - expected).norm() / expected.norm()) > _TOLERANCE:
        return "torch's int8 kernels give wrong results here"
    if not torch.allclose(largest, torch.full_like(largest, 256.0), rtol=_TOLERANCE):
        return "this processor has no VNNI: int8 products saturate"
    return None
