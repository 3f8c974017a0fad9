"""The executor in torch, on a processor or on CUDA: steps in, logits out."""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from openworks.core.errors import ModelUnavailableError
from openworks.engines.batched.attention import Group, length_class, plan_groups
from openworks.engines.batched.executor import AdapterWeights, CacheShape
from openworks.engines.batched.families.choice import read_spec
from openworks.engines.batched.kv_cache import KvCache
from openworks.engines.batched.linear import Precision, choose_precision, storage_dtype
from openworks.engines.batched.lora import AdapterStack
from openworks.engines.batched.spec import ModelSpec
from openworks.engines.batched.step import Piece, Step
from openworks.engines.batched.torch_model import Batch, TorchModel
from openworks.engines.batched.weights import Checkpoint, weights_bytes

_BLOCK_TOKENS = 16

log = logging.getLogger(__name__)


class TorchExecutor:
    """A model with its cache and adapter slots, on the thread that calls it."""

    def __init__(
        self,
        model: TorchModel,
        spec: ModelSpec,
        *,
        precision: Precision,
        device: str,
        context_tokens: int,
        cache_tokens: int,
        num_slots: int,
    ) -> None:
        """Hold a model; see `load`."""
        num_blocks = -(-cache_tokens // _BLOCK_TOKENS)
        dtype = storage_dtype(precision)
        self.vocab_size = spec.vocab_size
        self.context_tokens = min(context_tokens, num_blocks * _BLOCK_TOKENS)
        self.cache = CacheShape(num_blocks=num_blocks, block_tokens=_BLOCK_TOKENS)
        self.num_slots = num_slots
        self.description = (
            f"torch {precision}, {torch.get_num_threads()} threads"
            if device == "cpu"
            else f"torch {precision}, {torch.cuda.get_device_name()}"
        )
        self._model = model
        self._device = device
        self._windows = {layer.window for layer in spec.layers}
        self._kv = KvCache(
            num_layers=spec.num_layers,
            num_blocks=num_blocks,
            block_tokens=_BLOCK_TOKENS,
            num_kv_heads=spec.num_kv_heads,
            head_dim=spec.head_dim,
            dtype=dtype,
            device=device,
        )
        self.adapter_dtype = dtype
        self._adapters = AdapterStack(model.sites, dtype=dtype, device=device)

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        precision: Literal["auto"] | Precision,
        device: str,
        context_tokens: int,
        cache_tokens: int,
        num_slots: int,
        threads: int,
    ) -> TorchExecutor:
        """Load a model.

        Args:
            folder: With `config.json` and the weights, as the Hub has them.
            precision: Of the linear layers; what cannot be had is bfloat16, and logged.
            device: `cpu` or `cuda`.
            context_tokens: The longest sequence; the model's own limit is kept as well.
            cache_tokens: How many positions the cache holds, of all sequences together.
            num_slots: How many adapters can be in one step.
            threads: Of the processor; set for the whole process.

        Raises:
            UnsupportedModelError: No family reads it; `transformers` may.
            ModelUnavailableError: The weights are not whole, or there is no such device.
        """
        if device == "cuda" and not torch.cuda.is_available():
            raise ModelUnavailableError("There is no CUDA device here.", code="model_load_failed")
        torch.set_num_threads(threads)
        spec = read_spec(folder)
        chosen, reason = choose_precision(precision, device, model_bytes=weights_bytes(folder))
        context_tokens = min(context_tokens, spec.context_tokens)
        with torch.inference_mode(), Checkpoint(folder, spec) as checkpoint:
            model = TorchModel(
                spec, checkpoint, precision=chosen, device=device, context_tokens=context_tokens
            )
            executor = cls(
                model,
                spec,
                precision=chosen,
                device=device,
                context_tokens=context_tokens,
                cache_tokens=cache_tokens,
                num_slots=num_slots,
            )
        log.info("executor.loaded", extra={"executor": executor.description, "because": reason})
        return executor

    @torch.inference_mode()
    def run(self, step: Step) -> Tensor:
        self._kv.copy_blocks(step.copies)
        order = sorted(range(len(step.pieces)), key=lambda index: self._place(step.pieces[index]))
        batch = self._batch([step.pieces[index] for index in order], _inverse(order))
        return self._model.forward(batch, self._kv, self._adapters)

    @torch.inference_mode()
    def put_adapter(self, slot: int, weights: AdapterWeights) -> None:
        self._adapters.put(slot, weights)

    @torch.inference_mode()
    def drop_adapter(self, slot: int) -> None:
        self._adapters.drop(slot)
        _return_memory()

    def _place(self, piece: Piece) -> tuple[bool, int, bool]:
        """Where a piece goes: decodes first, those of a length and those with adapters together."""
        if len(piece.token_ids) > 1:
            return True, 0, False
        return False, length_class(piece, _BLOCK_TOKENS), piece.slot is not None

    def _batch(self, pieces: Sequence[Piece], places: Sequence[int]) -> Batch:
        """Lay out a step.

        Args:
            pieces: In the order of their rows.
            places: For each piece as the step has them, which of `pieces` it is.
        """
        ends: list[int] = []
        token_ids: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        for piece in pieces:
            token_ids.extend(piece.token_ids)
            reach = range(piece.start, piece.start + len(piece.token_ids))
            positions.extend(reach)
            slots.extend(
                piece.blocks[position // _BLOCK_TOKENS] * _BLOCK_TOKENS + position % _BLOCK_TOKENS
                for position in reach
            )
            ends.append(len(token_ids))
        logit_rows = [
            row
            for place in places
            for row in range(ends[place] - pieces[place].num_logits, ends[place])
        ]
        num_decodes = sum(len(piece.token_ids) == 1 for piece in pieces)
        return Batch(
            token_ids=self._tensor(token_ids),
            positions=self._tensor(positions).float(),
            slots=self._tensor(slots),
            groups={window: self._groups(pieces, window) for window in self._windows},
            logit_rows=self._tensor(logit_rows),
            segments=self._adapters.activate(
                [(len(piece.token_ids), piece.slot) for piece in pieces], num_decodes
            ),
        )

    def _groups(self, pieces: Sequence[Piece], window: int | None) -> list[Group]:
        return plan_groups(
            pieces,
            window=window,
            block_tokens=_BLOCK_TOKENS,
            dtype=self._kv.dtype,
            device=self._device,
        )

    def _tensor(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int64).to(self._device)


def _inverse(order: Sequence[int]) -> list[int]:
    places = [0] * len(order)
    for place, index in enumerate(order):
        places[index] = place
    return places


def _return_memory() -> None:
    """Give the system what was freed: glibc keeps pieces of up to 32 MiB for itself."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
