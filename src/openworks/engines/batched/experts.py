"""The mixture-of-experts MLP of GPT-OSS, each expert computed once for the rows that chose it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from openworks.engines.batched.linear import Precision, activation_dtype, make_linear
from openworks.engines.batched.lora import AdapterStack, Segment
from openworks.engines.batched.spec import ModelSpec
from openworks.engines.batched.weights import Checkpoint

_FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
"""The values of a 4-bit float, e2m1, by its bits."""
_SCALE_BIAS = 127


class ExpertsMlp:
    """A router, and experts of which each row takes the best few; adapters do not reach them."""

    def __init__(
        self,
        spec: ModelSpec,
        checkpoint: Checkpoint,
        at: str,
        precision: Precision,
        device: str,
    ) -> None:
        """Read one layer's experts, `at` being the layer."""
        assert spec.experts is not None
        self._experts = spec.experts
        dtype = activation_dtype(precision)
        # The router stays as it was: a wrong choice is a greater error than any rounding.
        self._router = make_linear(
            checkpoint.read(f"{at}.mlp.router.weight", torch.float32),
            checkpoint.read(f"{at}.mlp.router.bias", torch.float32),
            "float32",
            device,
        )
        self._pairs = []
        gate_up = _weights(
            checkpoint, f"{at}.mlp.experts.gate_up_proj", packed=self._experts.is_packed
        )
        down = _weights(checkpoint, f"{at}.mlp.experts.down_proj", packed=self._experts.is_packed)
        gate_up_bias = checkpoint.read(f"{at}.mlp.experts.gate_up_proj_bias", dtype)
        down_bias = checkpoint.read(f"{at}.mlp.experts.down_proj_bias", dtype)
        for expert in range(self._experts.num_experts):
            # Gate and up alternate in the checkpoint; here they follow each other.
            weight = torch.cat([gate_up[expert, 0::2], gate_up[expert, 1::2]]).to(dtype)
            bias = torch.cat([gate_up_bias[expert, 0::2], gate_up_bias[expert, 1::2]])
            self._pairs.append(
                (
                    make_linear(weight, bias, precision, device),
                    make_linear(
                        down[expert].to(dtype, copy=True),
                        down_bias[expert].clone(),
                        precision,
                        device,
                    ),
                )
            )

    def forward(self, x: Tensor, adapters: AdapterStack, segments: Sequence[Segment]) -> Tensor:
        """Compute [tokens, hidden]; adapters and segments are those of the other kind of MLP."""
        best, chosen = self._router(x.float()).topk(self._experts.num_chosen, dim=-1)
        shares = torch.softmax(best, -1).to(x.dtype)
        found = torch.zeros_like(x)
        for expert in torch.unique(chosen).tolist():
            rows, rank = torch.where(chosen == expert)
            gate_up_proj, down_proj = self._pairs[expert]
            gate, up = gate_up_proj(x[rows]).chunk(2, -1)
            gate = gate.clamp(max=self._experts.limit)
            up = up.clamp(-self._experts.limit, self._experts.limit)
            inner = (up + 1).mul_(gate).mul_(torch.sigmoid(gate * self._experts.alpha))
            found.index_add_(0, rows, down_proj(inner).mul_(shares[rows, rank, None]))
        return found


def _weights(checkpoint: Checkpoint, name: str, *, packed: bool) -> Tensor:
    """Read all experts' weights [experts, out, in], bfloat16 if they are packed."""
    if not packed:
        return checkpoint.read(name).transpose(1, 2)
    blocks = checkpoint.read(f"{name}_blocks")  # [experts, out, in / 32, 16]
    scales = checkpoint.read(f"{name}_scales")  # [experts, out, in / 32]
    return unpack_mxfp4(blocks, scales)


def unpack_mxfp4(blocks: Tensor, scales: Tensor) -> Tensor:
    """Unpack 4-bit floats that share a power of two by 32 (OCP Microscaling Formats, 5.2).

    Args:
        blocks: uint8 [..., n, 16], two values in a byte, the lower four bits first.
        scales: uint8 [..., n], exponents of two with a bias of 127.

    Returns:
        bfloat16 [..., n * 32].
    """
    values = torch.tensor(_FP4, dtype=torch.bfloat16, device=blocks.device)
    pairs = torch.stack([values[(blocks & 15).int()], values[(blocks >> 4).int()]], -1)
    exponents = scales.int() - _SCALE_BIAS
    scaled = torch.ldexp(pairs.flatten(-2), exponents[..., None])
    return scaled.to(torch.bfloat16).flatten(-2)
