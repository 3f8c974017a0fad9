from __future__ import annotations

import io
import json
import math
import struct
from array import array
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openworks.core.errors import InvalidRequestError
from openworks.core.safetensors import SafetensorsHeader, read_header
from openworks.services.adapter_base import AdapterBase
from openworks.services.adapter_check import (
    check_config,
    check_name,
    check_pair,
    check_tensors,
    check_values,
)
from tests.adapters import (
    HIDDEN,
    LAYERS,
    LINEARS,
    Tensor,
    adapter_config,
    adapter_tensors,
    numbers,
    safetensors,
    tensor_name,
)

BASE = AdapterBase(id="base", model_types=frozenset({"llama"}), num_layers=LAYERS, linears=LINEARS)
A, B = tensor_name("self_attn.q_proj", "A"), tensor_name("self_attn.q_proj", "B")


def header_of(tensors: dict[str, Tensor]) -> SafetensorsHeader:
    data = safetensors(tensors)
    return read_header(io.BytesIO(data), len(data))


def rank_of(tensors: dict[str, Tensor], *, max_rank: int = 64) -> int:
    return check_tensors(header_of(tensors), BASE, max_rank=max_rank)


def config_of(**changes: Any) -> Any:
    return check_config(adapter_config(**changes), BASE, max_rank=64)


@pytest.mark.parametrize("changes", [
    {}, {"use_rslora": True}, {"r": 64}, {"lora_alpha": 0.5}, {"model_type": "llama"},
    {"init_lora_weights": "gaussian"}, {"target_modules": "all-linear"}, {"task_type": None},
    {"target_modules": ["model.layers.0.self_attn.q_proj"]}, {"a_field_of_tomorrow": None},
    {"use_dora": None}, {"modules_to_save": []},
])  # fmt: skip
def test_configuration_that_peft_writes_is_taken(changes: dict[str, Any]) -> None:
    assert config_of(**changes).rank == changes.get("r", 4)


@pytest.mark.parametrize(("changes", "reason"), [
    ({"peft_type": "LOHA"}, "'peft_type'.*only LORA is served; got \"LOHA\""),
    ({"peft_type": None}, "'peft_type'"),
    ({"task_type": "SEQ_CLS"}, "'task_type'.*only CAUSAL_LM"),
    ({"use_dora": True}, "'use_dora'.*not served"),
    ({"bias": "all"}, "'bias'"),
    ({"bias": "lora_only"}, "'bias'"),
    ({"lora_bias": True}, "'lora_bias'"),
    ({"modules_to_save": ["lm_head"]}, "'modules_to_save'"),
    ({"rank_pattern": {"q_proj": 8}}, "'rank_pattern'"),
    ({"alpha_pattern": {"q_proj": 8}}, "'alpha_pattern'"),
    ({"fan_in_fan_out": True}, "'fan_in_fan_out'"),
    ({"layer_replication": [[0, 2]]}, "'layer_replication'"),
    ({"trainable_token_indices": [1]}, "'trainable_token_indices'"),
    ({"alora_invocation_tokens": [1]}, "'alora_invocation_tokens'"),
    ({"target_parameters": ["mlp.experts"]}, "'target_parameters'"),
    ({"a_variant_of_tomorrow": True}, "'a_variant_of_tomorrow'"),
    ({"init_lora_weights": "pissa"}, "'init_lora_weights'.*base model was changed"),
    ({"init_lora_weights": "loftq"}, "'init_lora_weights'"),
    ({"model_type": "gemma"}, "'model_type'.*'base' is of type llama; got \"gemma\""),
    ({"model_type": 5}, "'model_type'"),
    ({"model_type": ""}, "'model_type'"),
    ({"lora_alpha": math.nan}, "not JSON: NaN"),
    ({"lora_dropout": math.inf}, "not JSON: Infinity"),
    ({"lora_alpha": 10**400}, "'lora_alpha'"),
    ({"lora_alpha": "16"}, "'lora_alpha'"),
    ({"lora_alpha": True}, "'lora_alpha'"),
    ({"lora_alpha": None}, "'lora_alpha'"),
    ({"use_rslora": 1}, "'use_rslora'"),
    ({"r": 0}, r"'r'.*1\.\.64"),
    ({"r": 65}, r"'r'.*1\.\.64; got 65"),
    ({"r": 4.0}, "'r'"),
    ({"r": True}, "'r'"),
    ({"target_modules": []}, "'target_modules'"),
    ({"target_modules": None}, "'target_modules'"),
    ({"target_modules": ["q_proj", "lm_head"]}, "'target_modules'.*got \"lm_head\""),
    ({"target_modules": [["q_proj"]]}, "'target_modules'"),
])  # fmt: skip
def test_configuration_is_refused_by_the_field_at_fault(
    changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidRequestError, match=reason):
        config_of(**changes)


def test_scale_beyond_all_numbers_is_refused() -> None:
    data = adapter_config(lora_alpha=16).replace(b'"lora_alpha": 16', b'"lora_alpha": 1e999')

    with pytest.raises(InvalidRequestError, match=r"'lora_alpha'.*finite"):
        check_config(data, BASE, max_rank=64)


@pytest.mark.parametrize("data", [
    b"", b"[]", b"5", b"\xff", b"{" * 100_000, b" " * ((1 << 20) + 1),
    adapter_config().decode().encode("utf-16"),
])  # fmt: skip
def test_configuration_that_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequestError, match=r"adapter_config\.json"):
        check_config(data, BASE, max_rank=64)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*json.loads(adapter_config()), "model_type", "other"]),
        scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.text(max_size=3), scalars),
        max_size=4,
    )
)
def test_whatever_configuration_comes_is_taken_or_refused(changes: dict[str, Any]) -> None:
    with suppress(InvalidRequestError):
        assert 1 <= config_of(**changes).rank <= 64


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_the_two_files_have_good_names(name: str) -> None:
    check_name(name)


def test_all_linear_layers_may_be_changed() -> None:
    assert rank_of(adapter_tensors(modules=LINEARS, rank=7)) == 7


@pytest.mark.parametrize("prefix", [
    "model.layers", "layers", "model.language_model.layers", "language_model.model.layers",
])  # fmt: skip
def test_what_stands_before_layers_may_differ(prefix: str) -> None:
    named = {
        name.replace("model.layers", prefix): tensor for name, tensor in adapter_tensors().items()
    }

    assert rank_of(named) == 4


@pytest.mark.parametrize(("name", "reason"), [
    ("base_model.model.model.embed_tokens.lora_embedding_A", "embeddings are not changed"),
    ("base_model.model.lm_head.lora_A.weight", "names are like"),
    ("base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector", "DoRA"),
    ("base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias", "names are like"),
    ("model.layers.0.self_attn.q_proj.weight", "names are like"),
    ("base_model.model.model.layers.00.self_attn.q_proj.lora_A.weight", "names are like"),
    ("base_model.model.model.layers.6.self_attn.q_proj.lora_A.weight", "has 6 layers"),
    ("base_model.model.model.layers.0.self_attn.qkv_proj.lora_A.weight", "adapters of 'base'"),
    ("base_model.model.model.layers.0.mlp.q_proj.lora_A.weight", "adapters of 'base' change"),
])  # fmt: skip
def test_tensor_that_has_no_place_is_named(name: str, reason: str) -> None:
    tensors = {name: numbers(4, HIDDEN), **adapter_tensors()}

    with pytest.raises(InvalidRequestError, match=reason) as caught:
        rank_of(tensors)

    assert f"'{name}'" in caught.value.message


@pytest.mark.parametrize(("name", "tensor", "reason"), [
    (A, numbers(4, HIDDEN + 1), r"\[4, 193\], and the base model needs \[r, 192\]"),
    (B, numbers(HIDDEN + 1, 4), r"needs \[192, r\]"),
    (A, numbers(4, HIDDEN, 1), r"\[4, 192, 1\]"),
    (A, numbers(4 * HIDDEN), r"\[768\]"),
    (A, ("F64", (4, HIDDEN), bytes(4 * HIDDEN * 8)), "type is F64, of F32, BF16, F16"),
    (A, ("I32", (4, HIDDEN), bytes(4 * HIDDEN * 4)), "type is I32"),
    (B, numbers(HIDDEN, 8), "its rank is 8"),
])  # fmt: skip
def test_tensor_that_does_not_fit_is_named(name: str, tensor: Tensor, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=reason) as caught:
        rank_of({**adapter_tensors(), name: tensor})

    assert f"'{name}'" in caught.value.message


@pytest.mark.parametrize("missing", [A, B])
def test_half_without_the_other_is_named(missing: str) -> None:
    tensors = adapter_tensors()
    del tensors[missing]

    with pytest.raises(InvalidRequestError, match=f"no counterpart lora_{missing[-8]}"):
        rank_of(tensors)


def test_two_tensors_for_one_place_are_refused() -> None:
    tensors = adapter_tensors()
    tensors[A.replace("model.layers", "layers")] = tensors[A]

    with pytest.raises(InvalidRequestError, match="same place"):
        rank_of(tensors)


def test_file_without_tensors_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="no tensor"):
        rank_of({})


@pytest.mark.parametrize("rank", [0, 9])
def test_rank_beyond_the_limit_is_refused(rank: int) -> None:
    with pytest.raises(InvalidRequestError, match=rf"rank is {rank}, and may be 1\.\.8"):
        rank_of(adapter_tensors(rank=rank), max_rank=8)


def test_good_pair_fits() -> None:
    check_pair(config_of(), header_of(adapter_tensors()))
    check_pair(config_of(target_modules="all-linear"), header_of(adapter_tensors()))


@pytest.mark.parametrize(("changes", "reason"), [
    ({"r": 8}, "its rank is 4, and adapter_config.json says r = 8"),
    ({"target_modules": ["q_proj"]}, "v_proj.*does not list its module"),
    ({"target_modules": ["layers.0.self_attn.q_proj", "v_proj"]}, r"layers\.1\.self_attn\.q_proj"),
    ({"target_modules": ["q_proj", "v_proj", "k_proj"]}, "no tensor for it; got \"k_proj\""),
])  # fmt: skip
def test_pair_that_does_not_belong_together_is_refused(
    changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidRequestError, match=reason):
        check_pair(config_of(**changes), header_of(adapter_tensors()))


def encoded(kind: str, value: float) -> bytes:
    if kind == "F16":
        return struct.pack("<e", value)
    data = array("f", [value]).tobytes()
    return data if kind == "F32" else data[2:]


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, 767])
def test_number_that_is_not_finite_is_found(kind: str, value: float, place: int) -> None:
    numbers_of = [encoded(kind, 0.5)] * (4 * HIDDEN)
    numbers_of[place] = encoded(kind, value)
    data = safetensors({**adapter_tensors(), A: (kind, (4, HIDDEN), b"".join(numbers_of))})
    file = io.BytesIO(data)

    with pytest.raises(InvalidRequestError, match="not finite") as caught:
        check_values(file, read_header(file, len(data)))

    assert f"'{A}'" in caught.value.message


@settings(deadline=None)
@given(
    kind=st.sampled_from(["F32", "F16", "BF16"]),
    values=st.lists(st.floats(-60000, 60000, width=16), min_size=1, max_size=20),
)
def test_finite_numbers_are_good(kind: str, values: list[float]) -> None:
    content = b"".join(encoded(kind, value) for value in values)
    data = safetensors({"x": (kind, (len(values),), content)})
    file = io.BytesIO(data)

    check_values(file, read_header(file, len(data)))


def test_number_far_into_a_large_file_is_found() -> None:
    content = bytearray(array("f", [0.1]).tobytes() * 600_000)
    content[-4:] = array("f", [math.nan]).tobytes()
    data = safetensors({"x": ("F32", (600_000,), bytes(content))})
    file = io.BytesIO(data)

    with pytest.raises(InvalidRequestError, match="'x'"):
        check_values(file, read_header(file, len(data)))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT asks
def test_what_peft_saves_is_good(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    shape = transformers.LlamaConfig(
        hidden_size=HIDDEN, intermediate_size=512, num_hidden_layers=LAYERS,
        num_attention_heads=6, num_key_value_heads=6, vocab_size=64,
    )  # fmt: skip
    wanted = peft.LoraConfig(
        r=3, use_rslora=True, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    peft.get_peft_model(transformers.LlamaForCausalLM(shape), wanted).save_pretrained(tmp_path)

    config = check_config((tmp_path / "adapter_config.json").read_bytes(), BASE, max_rank=64)
    with (tmp_path / "adapter_model.safetensors").open("rb") as file:
        header = read_header(file, (tmp_path / "adapter_model.safetensors").stat().st_size)
        check_values(file, header)

    assert check_tensors(header, BASE, max_rank=64) == config.rank == 3
    check_pair(config, header)
    assert len(header.tensors) == 2 * 7 * LAYERS
