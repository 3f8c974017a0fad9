"""The seam between the engine's loop and what computes: torch, OpenVINO, or transformers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor

    from openworks.engines.batched.step import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterWeights:
    """One LoRA in host memory, ready to be put into a slot. Made by `adapter_file.read_adapter`."""

    rank: int
    pairs: Mapping[str, tuple[Tensor, Tensor]]
    """Module such as `layers.0.self_attn.q_proj` → (A [rank, in], B [rank, out]), B scaled; finite,
    and of the executor's `adapter_dtype`, so that a step only has to copy them."""
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheShape:
    """How an executor's cache of keys and values is cut."""

    num_blocks: int
    block_tokens: int
    """Positions in one block."""


class Executor(Protocol):
    """One model's weights with their cache; called on one thread, never at once.

    `run` is the only method that computes. It may be called between any two adapter changes;
    slots that no piece of a step names may hold anything.
    """

    vocab_size: int
    context_tokens: int
    """The longest sequence that the cache and the positions of the model allow."""
    cache: CacheShape
    num_slots: int
    """How many adapters can be in one step."""
    adapter_dtype: torch.dtype
    """What the matrices of adapters have to be of."""
    description: str
    """What runs where, for logs and `openworks doctor`: `torch int8, 2 threads`."""

    def run(self, step: Step) -> Tensor:
        """Compute a step.

        Returns:
            float32 logits [sum of `num_logits`, vocab_size], in the order of the pieces; on the
            executor's own device, and valid until the next call.
        """
        ...

    def put_adapter(self, slot: int, weights: AdapterWeights) -> None:
        """Copy an adapter into a slot that no running sequence uses.

        Raises:
            InvalidRequestError: Its shapes are not those of this model.
        """
        ...

    def drop_adapter(self, slot: int) -> None:
        """Forget a slot's adapter and give its memory back."""
        ...
