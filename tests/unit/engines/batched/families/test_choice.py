from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from openworks.core.errors import ModelUnavailableError
from openworks.engines.batched.families.choice import read_spec, spec_of
from openworks.engines.batched.rope import rotation
from openworks.engines.batched.spec import UnsupportedModelError

_LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 50,
    "max_position_embeddings": 128,
}


@pytest.mark.parametrize("model_type", ["mamba", None, 7])
def test_a_model_of_no_known_type_is_unsupported_by_name(model_type: Any) -> None:
    with pytest.raises(UnsupportedModelError, match=str(model_type)):
        spec_of({**_LLAMA, "model_type": model_type})


@pytest.mark.parametrize(
    "fields",
    [
        {"quantization_config": {"quant_method": "gptq"}},
        {"hidden_act": "relu"},
        {"rope_scaling": {"type": "spiral", "factor": 2.0}},
        {"layer_types": ["chunked_attention", "full_attention"]},
        {"model_type": "gemma2", "use_bidirectional_attention": True},
        {"model_type": "gpt_oss", "quantization_config": {"quant_method": "awq"}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_what_a_family_has_no_word_for_is_unsupported(fields: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModelError):
        spec_of({**_LLAMA, **fields})


@pytest.mark.parametrize(
    ("key", "value"), [("vocab_size", None), ("hidden_size", "32"), ("num_hidden_layers", 1.5)]
)
def test_a_missing_or_wrong_value_is_named(key: str, value: Any) -> None:
    with pytest.raises(ModelUnavailableError, match=key):
        spec_of({**_LLAMA, key: value})


def test_a_folder_without_a_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match=r"config\.json"):
        read_spec(tmp_path)


@pytest.mark.parametrize("text", [b"{", b"[]"])
def test_a_configuration_that_is_no_object_is_named(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(ModelUnavailableError, match=r"config\.json"):
        read_spec(tmp_path)


def test_the_older_spelling_of_positions_means_the_same() -> None:
    scaling: dict[str, Any] = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    older: dict[str, Any] = {
        "rope_theta": 500.0,
        "rope_scaling": {**scaling, "type": "llama3", "original_max_position_embeddings": 32},
    }
    newer: dict[str, Any] = {
        "rope_parameters": {
            **scaling,
            "rope_theta": 500.0,
            "rope_type": "llama3",
            "original_max_position_embeddings": 32,
        }
    }
    assert spec_of({**_LLAMA, **older}).layers == spec_of({**_LLAMA, **newer}).layers


@pytest.mark.parametrize("kind", ["su", "yarn", "longrope"])
def test_early_names_of_longrope_mean_longrope_in_phi3(kind: str) -> None:
    factors = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    config = {
        **_LLAMA,
        "model_type": "phi3",
        "original_max_position_embeddings": 64,
        "rope_scaling": {**factors, "type": kind},
    }
    rope = spec_of(config).layers[0].rope
    short, long = rotation(rope, 64), rotation(rope, 65)
    assert long.frequencies == pytest.approx([frequency / 2 for frequency in short.frequencies])


def test_a_gemma3_that_sees_is_read_by_its_text_model() -> None:
    text: dict[str, Any] = {
        "model_type": "gemma3_text",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 7,
        "sliding_window": 16,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    }
    spec = spec_of({"model_type": "gemma3", "text_config": text, "vision_config": {}})
    assert [layer.window for layer in spec.layers] == [16] * 5 + [None] + [16]
    assert spec.layers[0].rope.theta == 10_000.0
    assert spec.layers[0].rope.scaling is None
    assert spec.layers[5].rope.theta == 1_000_000.0
    assert spec.layers[5].rope.scaling is not None
    assert (spec.num_heads, spec.num_kv_heads, spec.head_dim) == (8, 4, 256)


def test_the_embedded_chat_model_is_read() -> None:
    spec = read_spec(Path("src/openworks/models/tiny-chat"))
    assert spec.num_layers == len(spec.layers)


def test_every_family_names_each_tensor_of_its_layers_once() -> None:
    for model_type in ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi3"):
        spec = spec_of({**_LLAMA, "model_type": model_type})
        places = [(source.name, source.rows) for source in spec.tensors.values()]
        assert len(set(places)) == len(places)


def test_a_configuration_survives_the_way_through_json() -> None:
    assert spec_of(orjson.loads(orjson.dumps(_LLAMA))) == spec_of(_LLAMA)
