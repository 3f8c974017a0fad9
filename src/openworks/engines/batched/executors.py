"""Chooses what computes a model: torch on CUDA or on the processor, OpenVINO, or transformers."""

from __future__ import annotations

import logging
import os

import torch

from openworks.engines.batched.executor import Executor
from openworks.engines.batched.torch_executor import TorchExecutor
from openworks.ports.catalog import Deployment

log = logging.getLogger(__name__)

_SMALL_MODEL_BYTES = 64 << 20
"""Under this size a second thread costs more in waiting than it computes."""


def open_executor(deployment: Deployment) -> Executor:
    """Load a deployment's weights into what runs them best here.

    Raises:
        ModelUnavailableError: They are not whole, or nothing here runs them.
    """
    assert deployment.context_tokens is not None
    return TorchExecutor.load(
        deployment.weights,
        precision=deployment.precision,
        device="cuda" if torch.cuda.is_available() else "cpu",
        context_tokens=deployment.context_tokens,
        cache_tokens=deployment.cache_tokens or deployment.context_tokens * deployment.parallel,
        num_slots=deployment.adapter_slots,
        threads=deployment.threads or _default_threads(deployment),
    )


def _default_threads(deployment: Deployment) -> int:
    size_bytes = sum(file.stat().st_size for file in deployment.weights.glob("*.safetensors"))
    return 1 if size_bytes < _SMALL_MODEL_BYTES else len(os.sched_getaffinity(0))
