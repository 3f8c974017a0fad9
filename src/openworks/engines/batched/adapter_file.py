"""Reads a LoRA as PEFT writes it: `adapter_config.json` and `adapter_model.safetensors`."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import cast

import orjson
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from openworks.core.errors import InvalidRequestError
from openworks.core.json import JsonObject
from openworks.engines.batched.executor import AdapterWeights
from openworks.engines.batched.families.tensors import bare_name

_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_TENSOR = re.compile(r"(?P<module>.+)\.lora_(?P<half>[AB])(\.default)?\.weight")
_UNSERVED = (
    "alora_invocation_tokens",
    "alpha_pattern",
    "arrow_config",
    "fan_in_fan_out",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "modules_to_save",
    "monteclora_config",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
    "velora_config",
)
"""Fields that change what an adapter computes, and must be empty or false."""


def read_adapter(folder: Path) -> AdapterWeights:
    """Read an adapter into memory; whether it fits a model is found out by `put_adapter`.

    Raises:
        InvalidRequestError: It is not whole, or of a kind that is not served; names the part.
    """
    config = _read_config(folder / _CONFIG)
    halves = _read_halves(folder / _WEIGHTS)
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for module, found in halves.items():
        if found.keys() != {"A", "B"}:
            raise InvalidRequestError(f"The adapter has only one of two matrices for '{module}'.")
        pairs[module] = (found["A"], found["B"])
    if not pairs:
        raise InvalidRequestError(f"{_WEIGHTS} holds no tensors.")
    ranks = {a.shape[0] for a, _ in pairs.values()}
    rank = config.get("r")
    if not isinstance(rank, int) or ranks != {rank}:
        raise InvalidRequestError(
            f"{_CONFIG} says 'r' is {rank}, the matrices have {min(ranks)} to {max(ranks)}."
        )
    return AdapterWeights(
        rank=rank,
        scale=_scale(config, rank),
        pairs=pairs,
        size_bytes=sum(a.nbytes + b.nbytes for a, b in pairs.values()),
    )


def _read_config(path: Path) -> JsonObject:
    try:
        config = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as exc:
        raise InvalidRequestError(f"{_CONFIG} cannot be read: {_reason(exc)}.") from exc
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise InvalidRequestError(f"{_CONFIG}: 'peft_type' must be LORA.")
    for field in _UNSERVED:
        if config.get(field):
            raise InvalidRequestError(
                f"{_CONFIG}: '{field}' is {config[field]!r}, which is not served."
            )
    if config.get("bias", "none") != "none":
        raise InvalidRequestError(f"{_CONFIG}: 'bias' is {config['bias']!r}, which is not served.")
    return config


def _read_halves(path: Path) -> dict[str, dict[str, Tensor]]:
    """Read every tensor, by its module and which of the two it is."""
    halves: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 # a file, not a dict
                match = _TENSOR.fullmatch(name.removeprefix(_PREFIX))
                if match is None:
                    raise InvalidRequestError(
                        f"The tensor '{name}' is no part of a LoRA that is served."
                    )
                module = bare_name(match["module"])
                # Copied, so that no mapping of the file is held.
                tensor = cast("Tensor", file.get_tensor(name)).clone()
                if not torch.isfinite(tensor).all():
                    raise InvalidRequestError(
                        f"The tensor '{name}' has values that are not finite."
                    )
                halves.setdefault(module, {})[match["half"]] = tensor
    except (OSError, SafetensorError) as exc:
        raise InvalidRequestError(f"{_WEIGHTS} cannot be read: {_reason(exc)}.") from exc
    return halves


def _scale(config: JsonObject, rank: int) -> float:
    alpha = config.get("lora_alpha")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise InvalidRequestError(f"{_CONFIG}: 'lora_alpha' must be a number, got {alpha!r}.")
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _reason(exc: Exception) -> str:
    """Say what went wrong without saying where on this machine."""
    return exc.strerror or "no reason given" if isinstance(exc, OSError) else str(exc)
