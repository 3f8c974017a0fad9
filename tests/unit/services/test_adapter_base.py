from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openworks.app.settings import load_settings
from openworks.app.state import make_weights
from openworks.core.errors import InvalidRequestError, ModelNotFoundError
from openworks.ports.catalog import ModelEntry, WeightsSource
from openworks.ports.weights import Weights
from openworks.services.adapter_base import AdapterBase, read_base
from openworks.services.catalog_files import read_catalog
from tests.adapters import LAYERS, LINEARS, TINY_CHAT

TINY = next(entry for entry in read_catalog().entries if entry.id == TINY_CHAT)


@pytest.fixture
def weights(tmp_path: Path) -> Weights:
    return make_weights(load_settings(flags={"data_dir": tmp_path / "data"}))


def base_of(weights: Weights, folder: Path, **config: Any) -> AdapterBase:
    """The base that a folder with this `config.json` makes."""
    fields = {
        "hidden_size": 8,
        "intermediate_size": 20,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        **config,
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(fields))
    (folder / "model.safetensors").write_bytes(b"")
    source = WeightsSource(path=folder)
    entry = ModelEntry(id="m", name="m", task="text-generation", weights={"transformers": source})
    return read_base(entry, weights)


@pytest.mark.parametrize("kind", ["transformers", "llamacpp"])
def test_folder_and_gguf_file_of_one_model_say_the_same(weights: Weights, kind: Any) -> None:
    base = read_base(replace(TINY, weights={kind: TINY.weights[kind]}), weights)

    assert (base.id, base.num_layers, base.linears) == (TINY_CHAT, LAYERS, LINEARS)
    assert base.takes("llama")
    assert base.takes("mistral") == (kind == "llamacpp")  # which a GGUF file calls llama
    assert not base.takes("gemma")


def test_grouped_heads_are_narrower(weights: Weights, tmp_path: Path) -> None:
    base = base_of(weights, tmp_path / "m", model_type="mistral", num_key_value_heads=2, head_dim=3)

    assert base.linears["self_attn.q_proj"] == (8, 12)
    assert base.linears["self_attn.k_proj"] == base.linears["self_attn.v_proj"] == (8, 6)
    assert base.linears["self_attn.o_proj"] == (12, 8)


def test_phi_keeps_projections_in_one(weights: Weights, tmp_path: Path) -> None:
    base = base_of(weights, tmp_path / "m", model_type="phi3", num_key_value_heads=2)

    assert base.linears == {
        "self_attn.qkv_proj": (8, 16),
        "self_attn.o_proj": (8, 8),
        "mlp.gate_up_proj": (8, 40),
        "mlp.down_proj": (20, 8),
    }


def test_experts_are_not_changed(weights: Weights, tmp_path: Path) -> None:
    base = base_of(weights, tmp_path / "m", model_type="gpt_oss", num_local_experts=4)

    assert {module.partition(".")[0] for module in base.linears} == {"self_attn"}


@pytest.mark.parametrize(
    ("own", "given"), [("gemma2", "gemma"), ("gemma3_text", "gemma3"), ("mistral", "mistral")]
)
def test_type_of_a_family_stands_for_its_generations(
    weights: Weights, tmp_path: Path, own: str, given: str
) -> None:
    assert base_of(weights, tmp_path / "m", model_type=own).takes(given)


def test_text_part_of_a_model_that_sees_is_the_base(weights: Weights, tmp_path: Path) -> None:
    base = base_of(
        weights,
        tmp_path / "m",
        model_type="gemma3",
        text_config={"model_type": "gemma3_text", "num_hidden_layers": 5},
    )

    assert base.num_layers == 5
    assert base.takes("gemma3")


@pytest.mark.parametrize("value", [None, 0, "8", True, 8.5])
def test_base_that_does_not_say_enough_is_refused(
    weights: Weights, tmp_path: Path, value: Any
) -> None:
    with pytest.raises(InvalidRequestError, match="hidden_size"):
        base_of(weights, tmp_path / "m", model_type="llama", hidden_size=value)


def test_base_that_is_not_here_says_how_to_get_it(weights: Weights) -> None:
    entry = replace(TINY, id="far", weights={"llamacpp": WeightsSource(repo="far/away")})

    with pytest.raises(ModelNotFoundError, match="openworks models pull far"):
        read_base(entry, weights)
