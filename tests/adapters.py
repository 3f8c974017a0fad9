"""Adapters as PEFT writes them, made of chosen numbers without any library."""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

TINY_CHAT: Final = "@openworks/tiny-chat"
HIDDEN, INNER, LAYERS = 192, 512, 6
LINEARS: Final[Mapping[str, tuple[int, int]]] = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (HIDDEN, HIDDEN),
    "self_attn.v_proj": (HIDDEN, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (HIDDEN, INNER),
    "mlp.up_proj": (HIDDEN, INNER),
    "mlp.down_proj": (INNER, HIDDEN),
}
"""The linear layers of the embedded chat model: values in, values out."""

Tensor = tuple[str, tuple[int, ...], bytes]
"""Type, shape and bytes."""


def adapter_config(**changes: Any) -> bytes:
    """Write an `adapter_config.json` with the fields that PEFT writes."""
    fields: dict[str, Any] = {
        "alpha_pattern": {},
        "auto_mapping": None,
        "base_model_name_or_path": "some/model",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layers_pattern": None,
        "layers_to_transform": None,
        "loftq_config": {},
        "lora_alpha": 16,
        "lora_bias": False,
        "lora_dropout": 0.05,
        "megatron_config": None,
        "megatron_core": "megatron.core",
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": 4,
        "rank_pattern": {},
        "revision": None,
        "target_modules": ["q_proj", "v_proj"],
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
        **changes,
    }
    return json.dumps(fields).encode()


def tensor_name(module: str, half: str, layer: int = 0) -> str:
    return f"base_model.model.model.layers.{layer}.{module}.lora_{half}.weight"


def numbers(*shape: int, value: float = 0.01) -> Tensor:
    """Make a float32 tensor of one value."""
    count = 1
    for size in shape:
        count *= size
    return "F32", shape, array("f", [value] * count).tobytes()


def adapter_tensors(
    *,
    rank: int = 4,
    modules: Iterable[str] = ("self_attn.q_proj", "self_attn.v_proj"),
    layers: int = LAYERS,
    value: float = 0.01,
) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for layer in range(layers):
        for module in modules:
            inputs, outputs = LINEARS[module]
            found[tensor_name(module, "A", layer)] = numbers(rank, inputs, value=value)
            found[tensor_name(module, "B", layer)] = numbers(outputs, rank, value=value)
    return found


def safetensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Write a safetensors file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, (dtype, shape, content) in tensors.items():
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        data += content
    return with_header(json.dumps(header).encode(), data)


def with_header(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def write_adapter(folder: Path, **changes: Any) -> Path:
    """Write a good adapter for the embedded chat model into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_bytes(adapter_config(**changes))
    (folder / "adapter_model.safetensors").write_bytes(safetensors(adapter_tensors()))
    return folder
