"""The paged cache of keys and values, in the form that OpenVINO's attention wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from openworks.engines.batched.step import BlockCopy


class PagedCache:
    """Keys and values of all layers, by block."""

    def __init__(self, compiled: ov.CompiledModel, num_blocks: int) -> None:
        """Set memory aside, of the shapes and types that the compiled model has."""
        self.tensors: Mapping[str, ov.Tensor] = {
            port.get_any_name(): _zeros(port, num_blocks)
            for port in compiled.inputs
            if port.get_any_name().startswith(("key_cache.", "value_cache."))
        }
        """By the names of the graph's inputs."""
        self._blocks = [_bytes_by_block(tensor) for tensor in self.tensors.values()]

    def copy_blocks(self, copies: Sequence[BlockCopy]) -> None:
        """Copy whole blocks, of all layers, in their order."""
        for copy in copies:
            for blocks in self._blocks:
                blocks[copy.target] = blocks[copy.source]


def _zeros(port: ov.ConstOutput, num_blocks: int) -> ov.Tensor:
    shape = [size.get_length() for size in list(port.get_partial_shape())[1:]]
    count = num_blocks * int(np.prod(shape)) * port.get_element_type().size
    # From numpy, whose zeros take up memory only once they are written.
    return ov.Tensor(
        np.zeros(count, dtype=np.uint8), ov.Shape([num_blocks, *shape]), port.get_element_type()
    )


def _bytes_by_block(tensor: ov.Tensor) -> NDArray[np.uint8]:
    num_blocks: int = tensor.shape[0]
    blocks: NDArray[np.uint8] = tensor.data.view(np.uint8).reshape(num_blocks, -1)
    return blocks
