"""The adapters that ship are what PEFT writes, and fit the base model that ships."""

from __future__ import annotations

import json
import math
import struct
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

MODELS = Path(str(files("openworks").joinpath("models")))
NAMES = ("harbour", "json-only", "pirate")
RANK = 8

adapters = pytest.mark.parametrize("name", NAMES)


def read_json(*parts: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(MODELS.joinpath(*parts).read_text(encoding="utf-8"))
    return value


def read_weights(name: str) -> tuple[dict[str, list[int]], dict[str, tuple[float, ...]]]:
    """Shape and values of every tensor, read as the safetensors format says."""
    data = (MODELS / "adapters" / name / "adapter_model.safetensors").read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:start])
    assert header.pop("__metadata__") == {"format": "pt"}
    shapes, values = {}, {}
    for tensor, told in header.items():
        assert told["dtype"] == "F16"
        first, last = told["data_offsets"]
        shapes[tensor] = told["shape"]
        values[tensor] = struct.unpack(
            f"<{(last - first) // 2}e", data[start + first : start + last]
        )
    return shapes, values


def shapes_for_base() -> dict[str, list[int]]:
    """What rank 8 on all seven linear layers has to look like."""
    base = read_json("tiny-chat", "config.json")
    hidden, between = base["hidden_size"], base["intermediate_size"]
    sizes = {f"self_attn.{part}_proj": (hidden, hidden) for part in "qkvo"}
    sizes |= {f"mlp.{part}_proj": (hidden, between) for part in ("gate", "up")}
    sizes["mlp.down_proj"] = (between, hidden)
    shapes = {}
    for layer in range(base["num_hidden_layers"]):
        for target, (ins, outs) in sizes.items():
            stem = f"base_model.model.model.layers.{layer}.{target}"
            shapes[f"{stem}.lora_A.weight"] = [RANK, ins]
            shapes[f"{stem}.lora_B.weight"] = [outs, RANK]
    return shapes


def test_there_is_a_folder_for_each_and_no_other() -> None:
    folders = {path.name for path in (MODELS / "adapters").iterdir() if path.is_dir()}
    assert folders == set(NAMES)


@adapters
def test_configuration_is_a_plain_lora_on_the_embedded_model(name: str) -> None:
    config = read_json("adapters", name, "adapter_config.json")
    wanted = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "@openworks/tiny-chat",
        "model_type": "llama",
        "r": RANK,
        "lora_alpha": 16,
        "bias": "none",
        "use_dora": False,
        "modules_to_save": None,
    }
    assert {key: config[key] for key in wanted} == wanted


@adapters
def test_tensors_fit_the_base_model(name: str) -> None:
    shapes, _ = read_weights(name)
    assert shapes == shapes_for_base()


@adapters
def test_every_layer_was_trained(name: str) -> None:
    _, values = read_weights(name)
    assert all(math.isfinite(value) for tensor in values.values() for value in tensor)
    assert all(any(tensor) for tensor in values.values())


@adapters
def test_folder_is_small(name: str) -> None:
    folder = MODELS / "adapters" / name
    assert sum(path.stat().st_size for path in folder.iterdir()) < 500_000


@adapters
def test_card_names_licence_and_base(name: str) -> None:
    card = (MODELS / "adapters" / name / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: apache-2.0\nlibrary_name: peft\n")
    assert 'base_model: "@openworks/tiny-chat"\n' in card
