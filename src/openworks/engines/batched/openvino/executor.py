"""The executor on OpenVINO: steps in, logits out, on the CPU's int8 and bfloat16 kernels."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import openvino as ov
import torch
from torch import Tensor

from openworks.engines.batched.executor import AdapterWeights, CacheShape
from openworks.engines.batched.families.choice import read_spec
from openworks.engines.batched.memory import Spill, give_back_freed
from openworks.engines.batched.openvino.attention import BLOCK_TOKENS
from openworks.engines.batched.openvino.batch import BatchLayout, adapter_inputs
from openworks.engines.batched.openvino.cache import PagedCache
from openworks.engines.batched.openvino.constants import Precision
from openworks.engines.batched.openvino.graph import GraphBuilder, check_spec
from openworks.engines.batched.openvino.pages import AdapterPages
from openworks.engines.batched.openvino.tensors import shared_tensor
from openworks.engines.batched.spec import ModelSpec
from openworks.engines.batched.step import Piece, Step
from openworks.engines.batched.weights import Checkpoint, weights_bytes
from openworks.engines.threads import SMALL_MODEL_BYTES

_QUANTISED_GROUPS: Mapping[Precision, int] = {"int8": 128, "int4": 64}
"""Of how many activations one scale is: with 32, the plugin's own, int8 is half as fast; with more
than share a scale among int4's weights, int4 is."""

log = logging.getLogger(__name__)


class OpenVinoExecutor:
    """A compiled model with its cache and adapter slots, on the thread that calls it."""

    def __init__(
        self,
        compiled: ov.CompiledModel,
        spec: ModelSpec,
        layout: BatchLayout,
        spill: Spill,
        *,
        precision: Precision,
        activations: torch.dtype,
        context_tokens: int,
        cache_tokens: int,
        num_slots: int,
        threads: int,
    ) -> None:
        """Hold a compiled model; see `load`."""
        num_blocks = -(-cache_tokens // BLOCK_TOKENS)
        self.vocab_size = spec.vocab_size
        self.context_tokens = min(context_tokens, num_blocks * BLOCK_TOKENS)
        self.cache = CacheShape(num_blocks=num_blocks, block_tokens=BLOCK_TOKENS)
        self.num_slots = num_slots
        self.adapter_dtype = activations
        self.description = f"OpenVINO {precision}, {threads} threads"
        self._layout = layout
        self._spill = spill  # the compiled model reads it without holding it
        self._request = compiled.create_infer_request()
        self._kv = PagedCache(compiled, num_blocks)
        for name, tensor in self._kv.tensors.items():
            self._request.set_tensor(name, tensor)
        self._pages = (
            AdapterPages(spec, dtype=activations, num_slots=num_slots) if num_slots else None
        )
        self._pages_set: Mapping[str, ov.Tensor] | None = None

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        precision: Literal["auto"] | Precision,
        context_tokens: int,
        cache_tokens: int,
        num_slots: int,
        threads: int,
    ) -> OpenVinoExecutor:
        """Load a model.

        Args:
            folder: With `config.json` and the weights, as the Hub has them.
            precision: Of the linear layers; `auto` is int8, and float32 for small models.
            context_tokens: The longest sequence; the model's own limit is kept as well.
            cache_tokens: How many positions the cache holds, of all sequences together.
            num_slots: How many adapters can be in one step.
            threads: Of the processor; torch's own become 1, in the whole process.

        Raises:
            UnsupportedModelError: No family reads it, or it has what is not computed here.
            ModelUnavailableError: The weights are not whole.
        """
        # What is left to torch is small, and its threads would get into the way of OpenVINO's.
        torch.set_num_threads(1)
        spec = read_spec(folder)
        check_spec(spec)
        if precision == "auto":
            precision = "float32" if weights_bytes(folder) < SMALL_MODEL_BYTES else "int8"
        core = ov.Core()
        has_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        activations = torch.bfloat16 if has_bfloat16 and precision != "float32" else torch.float32
        context_tokens = min(context_tokens, spec.context_tokens)
        # Of what is stored in 16 bits, or in 8, float32 is that many times the size at most.
        spill = Spill(4 * weights_bytes(folder))
        with torch.inference_mode(), Checkpoint(folder, spec) as checkpoint, spill:
            embedding = checkpoint.read(
                "embed_tokens.weight",
                torch.float32 if precision == "float32" else torch.bfloat16,
            )
            kind = ov.Type.bf16 if activations == torch.bfloat16 else ov.Type.f32
            graph = GraphBuilder(
                spec,
                checkpoint,
                precision=precision,
                adapter_type=kind if num_slots else None,
                spill=spill,
            ).build()
        compiled = core.compile_model(graph, "CPU", _options(precision, kind, threads))
        executor = cls(
            compiled,
            spec,
            BatchLayout(spec, embedding, context_tokens),
            spill,
            precision=precision,
            activations=activations,
            context_tokens=context_tokens,
            cache_tokens=cache_tokens,
            num_slots=num_slots,
            threads=threads,
        )
        # The first step makes the plugin's own form of the weights; the given one is then idle.
        executor.run(Step([Piece([0], 0, (0,), None, 0)]))
        spill.release()
        give_back_freed()
        log.info("executor.loaded", extra={"executor": executor.description})
        return executor

    @torch.inference_mode()
    def run(self, step: Step) -> Tensor:
        self._kv.copy_blocks(step.copies)
        pieces = step.pieces
        order = sorted(range(len(pieces)), key=lambda index: pieces[index].slot is not None)
        inputs = self._layout.inputs(pieces, order)
        slots = {piece.slot for piece in pieces if piece.slot is not None}
        if self._pages is not None:
            active = self._pages.activate(slots)
            inputs = {**inputs, **adapter_inputs([pieces[i] for i in order], active.owners)}
            self._set_pages(active.tensors)
        else:
            assert not slots
        for name, values in inputs.items():
            self._request.set_tensor(name, shared_tensor(values.contiguous()))
        self._request.infer(share_outputs=True)
        return torch.from_numpy(self._request.get_output_tensor(0).data)

    @torch.inference_mode()
    def put_adapter(self, slot: int, weights: AdapterWeights) -> None:
        assert self._pages is not None
        self._pages.put(slot, weights)

    @torch.inference_mode()
    def drop_adapter(self, slot: int) -> None:
        assert self._pages is not None
        self._pages.drop(slot)

    def _set_pages(self, tensors: Mapping[str, ov.Tensor]) -> None:
        if tensors is not self._pages_set:
            for name, tensor in tensors.items():
                self._request.set_tensor(name, tensor)
            self._pages_set = tensors


def _options(precision: Precision, kind: ov.Type, threads: int) -> dict[str, object]:
    return {
        "INFERENCE_PRECISION_HINT": kind,
        "KV_CACHE_PRECISION": kind,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": _QUANTISED_GROUPS.get(precision, 0),
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        # Threads bound to cores would wait there for whatever else runs on them.
        "ENABLE_CPU_PINNING": False,
    }
