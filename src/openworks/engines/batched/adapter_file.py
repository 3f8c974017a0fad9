"""Reads a LoRA as PEFT writes it: `adapter_config.json` and `adapter_model.safetensors`."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from io import FileIO
from pathlib import Path

import orjson
import torch
from torch import Tensor

from openworks.core.errors import InvalidRequestError
from openworks.core.json import JsonObject
from openworks.core.safetensors import TensorEntry, read_header
from openworks.engines.batched.executor import AdapterWeights
from openworks.engines.batched.families.tensors import bare_name
from openworks.engines.batched.memory import own_memory

_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_TENSOR = re.compile(r"(?P<module>.+)\.lora_(?P<half>[AB])(\.default)?\.weight")
_TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
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


def read_adapter(folder: Path, dtype: torch.dtype = torch.float32) -> AdapterWeights:
    """Read an adapter into memory of its own, which the system gets back when nobody holds it.

    Whether it fits a model is found out by `put_adapter`.

    Raises:
        InvalidRequestError: It is not whole, of a kind that is not served, or has values that are
            not finite in `dtype`; names the part.
    """
    config = _read_config(folder / _CONFIG)
    try:
        with (folder / _WEIGHTS).open("rb", buffering=0) as file:
            halves = _halves(_entries(file))
            rank = _rank(config, halves)
            pairs = _lay_out(file, halves, _scale(config, rank), dtype)
    except OSError as exc:
        raise InvalidRequestError(f"{_WEIGHTS} cannot be read: {_reason(exc)}.") from exc
    size_bytes = sum(a.nbytes + b.nbytes for a, b in pairs.values())
    return AdapterWeights(rank=rank, pairs=pairs, size_bytes=size_bytes)


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


def _entries(file: FileIO) -> Mapping[str, TensorEntry]:
    """Say which tensors a file holds; the `safetensors` package leaks memory for each it reads."""
    try:
        return read_header(file, os.fstat(file.fileno()).st_size).tensors
    except InvalidRequestError as exc:
        raise InvalidRequestError(f"{_WEIGHTS} cannot be read: {exc.message}") from exc


def _halves(entries: Mapping[str, TensorEntry]) -> dict[str, dict[str, TensorEntry]]:
    """Sort tensors by their module and which of the two matrices they are."""
    halves: dict[str, dict[str, TensorEntry]] = {}
    for name, entry in entries.items():
        match = _TENSOR.fullmatch(name.removeprefix(_PREFIX))
        if match is None or len(entry.shape) != 2 or entry.dtype not in _TYPES:
            raise InvalidRequestError(
                f"The tensor '{name}', {entry.dtype} {list(entry.shape)}, is no part of a LoRA "
                "that is served."
            )
        halves.setdefault(bare_name(match["module"]), {})[match["half"]] = entry
    for module, found in halves.items():
        if found.keys() != {"A", "B"}:
            raise InvalidRequestError(f"The adapter has only one of two matrices for '{module}'.")
    if not halves:
        raise InvalidRequestError(f"{_WEIGHTS} holds no tensors.")
    return halves


def _rank(config: JsonObject, halves: Mapping[str, Mapping[str, TensorEntry]]) -> int:
    ranks = {each["A"].shape[0] for each in halves.values()}
    ranks |= {each["B"].shape[1] for each in halves.values()}
    rank = config.get("r")
    if not isinstance(rank, int) or rank < 1 or ranks != {rank}:
        raise InvalidRequestError(
            f"{_CONFIG} says 'r' is {rank}, the matrices have {min(ranks)} to {max(ranks)}."
        )
    return rank


def _lay_out(
    file: FileIO,
    halves: Mapping[str, Mapping[str, TensorEntry]],
    scale: float,
    dtype: torch.dtype,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Read the matrices to beside each other, as `AdapterWeights` has them."""
    count = sum(math.prod(entry.shape) for found in halves.values() for entry in found.values())
    memory = own_memory(count, dtype)
    start = 0

    def put(values: Tensor) -> Tensor:
        nonlocal start
        end = start + values.numel()
        copy = memory[start:end].view(values.shape).copy_(values)
        start = end
        return copy

    pairs = {
        module: (put(_read(file, found["A"])), put((_read(file, found["B"]).float() * scale).t()))
        for module, found in halves.items()
    }
    if not _is_finite(memory):
        for module, pair in pairs.items():
            for half, values in zip("AB", pair, strict=True):
                if not _is_finite(values):
                    raise InvalidRequestError(
                        f"The tensor '{module}.lora_{half}' has values that are not finite."
                    )
    return pairs


def _read(file: FileIO, entry: TensorEntry) -> Tensor:
    data = bytearray(entry.size_bytes)
    file.seek(entry.start)
    if file.readinto(data) != entry.size_bytes:
        raise InvalidRequestError(f"{_WEIGHTS} cannot be read: it has become shorter.")
    return torch.frombuffer(data, dtype=_TYPES[entry.dtype]).view(entry.shape)


def _is_finite(values: Tensor) -> bool:
    """Whether all values are; many times as fast as to look at each."""
    return all(bool(end.isfinite()) for end in values.aminmax())


def _scale(config: JsonObject, rank: int) -> float:
    alpha = config.get("lora_alpha")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise InvalidRequestError(f"{_CONFIG}: 'lora_alpha' must be a number, got {alpha!r}.")
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _reason(exc: Exception) -> str:
    """Say what went wrong without saying where on this machine."""
    return exc.strerror or "no reason given" if isinstance(exc, OSError) else str(exc)
