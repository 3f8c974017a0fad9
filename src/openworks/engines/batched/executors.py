"""Chooses what computes a model: torch on CUDA or on the processor, OpenVINO, or transformers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import assert_never

import torch

from openworks.core.errors import ModelUnavailableError
from openworks.engines.batched.executor import Executor
from openworks.engines.batched.linear import int8_fault
from openworks.engines.batched.openvino.probe import openvino_fault
from openworks.engines.batched.spec import UnsupportedModelError
from openworks.engines.batched.torch_executor import TorchExecutor
from openworks.engines.batched.transformers_executor import TransformersExecutor
from openworks.engines.batched.weights import weights_bytes
from openworks.engines.threads import SMALL_MODEL_BYTES, default_threads
from openworks.ports.catalog import Deployment, ExecutorName

log = logging.getLogger(__name__)


def open_executor(deployment: Deployment) -> Executor:
    """Load a deployment's weights into what runs them best here, or into the one that it names.

    Raises:
        ModelUnavailableError: They are not whole, or nothing here runs them.
    """
    only = deployment.executor
    names = (only,) if only is not None else _preferred(deployment.weights)
    for name in names:
        try:
            return _open(name, deployment)
        except UnsupportedModelError as error:
            log.info("executor.unsupported", extra={"executor": name, "because": str(error)})
            reason = str(error)
    raise ModelUnavailableError(
        f"Nothing of {', '.join(names)} runs {deployment.id!r}: {reason}", code="model_load_failed"
    )


def explain() -> str:
    """Say what computes models of some size on this machine, and why, for `openworks doctor`."""
    if torch.cuda.is_available():
        return f"torch in bfloat16 on {torch.cuda.get_device_name()}"
    if (fault := openvino_fault()) is None:
        return "OpenVINO in int8: it is installed and passes its self-test"
    if (int8 := int8_fault()) is None:
        return f"torch in int8, which passes its self-test; not OpenVINO, the faster one: {fault}"
    return f"torch in bfloat16; not OpenVINO: {fault}; not int8: {int8}"


def _preferred(folder: Path) -> tuple[ExecutorName, ...]:
    is_small = weights_bytes(folder) < SMALL_MODEL_BYTES
    if torch.cuda.is_available() or is_small or openvino_fault() is not None:
        return ("torch", "transformers")
    return ("openvino", "torch", "transformers")


def _open(name: ExecutorName, deployment: Deployment) -> Executor:
    context_tokens = deployment.context_tokens
    assert context_tokens is not None
    folder, precision = deployment.weights, deployment.precision
    cache_tokens = deployment.cache_tokens or context_tokens * deployment.parallel
    threads = deployment.threads or default_threads(weights_bytes(folder))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    match name:
        case "openvino":
            from openworks.engines.batched.openvino.executor import (  # noqa: PLC0415 # an extra, and heavy
                OpenVinoExecutor,
            )

            return OpenVinoExecutor.load(
                folder,
                precision=precision,
                context_tokens=context_tokens,
                cache_tokens=cache_tokens,
                num_slots=deployment.adapter_slots,
                threads=threads,
            )
        case "torch":
            return TorchExecutor.load(
                folder,
                precision="auto" if precision == "int4" else precision,
                device=device,
                context_tokens=context_tokens,
                cache_tokens=cache_tokens,
                num_slots=deployment.adapter_slots,
                threads=threads,
            )
        case "transformers":
            return TransformersExecutor.load(
                folder,
                precision="auto" if precision == "int4" else precision,
                device=device,
                context_tokens=context_tokens,
                cache_tokens=cache_tokens,
                threads=threads,
            )
        case _:
            assert_never(name)
