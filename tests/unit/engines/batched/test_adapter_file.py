from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402 # after the skip

from openworks.core.errors import InvalidRequestError  # noqa: E402
from openworks.engines.batched.adapter_file import read_adapter  # noqa: E402

_MODULE = "layers.0.self_attn.q_proj"


def _write(
    folder: Path,
    *,
    prefix: str = "base_model.model.model.",
    infix: str = "",
    tensors: dict[str, Any] | None = None,
    **config: Any,
) -> None:
    fields = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none", **config}
    (folder / "adapter_config.json").write_bytes(orjson.dumps(fields))
    if tensors is None:
        tensors = {
            f"{prefix}{_MODULE}.lora_A{infix}.weight": torch.ones(4, 6),
            f"{prefix}{_MODULE}.lora_B{infix}.weight": torch.ones(8, 4),
        }
    save_file(tensors, folder / "adapter_model.safetensors")


@pytest.mark.parametrize(
    "prefix",
    [
        "base_model.model.model.",
        "base_model.model.",
        "base_model.model.language_model.model.",
        "base_model.model.model.language_model.",
    ],
)
@pytest.mark.parametrize("infix", ["", ".default"])
def test_modules_are_named_as_ours_whatever_stands_around_them(
    tmp_path: Path, prefix: str, infix: str
) -> None:
    _write(tmp_path, prefix=prefix, infix=infix)
    found = read_adapter(tmp_path)
    assert list(found.pairs) == [_MODULE]
    a, b = found.pairs[_MODULE]
    assert (a.shape, b.shape) == ((4, 6), (4, 8))
    assert (found.rank, found.size_bytes) == (4, 4 * (24 + 32))


def test_the_scale_is_alpha_over_the_rank(tmp_path: Path) -> None:
    _write(tmp_path)
    _, b = read_adapter(tmp_path).pairs[_MODULE]
    assert torch.equal(b, torch.full((4, 8), 2.0))


def test_the_scale_of_rslora_is_alpha_over_the_root_of_the_rank(tmp_path: Path) -> None:
    _write(tmp_path, use_rslora=True)
    _, b = read_adapter(tmp_path).pairs[_MODULE]
    assert torch.equal(b, torch.full((4, 8), 4.0))


def test_matrices_come_out_as_the_executor_wants_them(tmp_path: Path) -> None:
    name = f"base_model.model.model.{_MODULE}"
    a, b = torch.randn(4, 6), torch.randn(8, 4)
    _write(tmp_path, tensors={f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b})
    found = read_adapter(tmp_path, torch.bfloat16)
    assert torch.equal(found.pairs[_MODULE][0], a.bfloat16())
    assert torch.equal(found.pairs[_MODULE][1], (2 * b).bfloat16().t())
    assert all(matrix.is_contiguous() for matrix in found.pairs[_MODULE])
    assert found.size_bytes == 2 * (24 + 32)


def test_an_adapter_that_changed_on_disk_stays_as_it_was_read(tmp_path: Path) -> None:
    _write(tmp_path)
    found = read_adapter(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(found.pairs[_MODULE][0], torch.ones(4, 6))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("use_dora", True),
        ("bias", "lora_only"),
        ("modules_to_save", ["lm_head"]),
        ("rank_pattern", {"q_proj": 8}),
        ("alpha_pattern", {"q_proj": 8}),
        ("peft_type", "IA3"),
        ("lora_alpha", "8"),
    ],
)
def test_what_is_not_served_is_refused_by_name(tmp_path: Path, field: str, value: Any) -> None:
    _write(tmp_path, **{field: value})
    with pytest.raises(InvalidRequestError, match=field):
        read_adapter(tmp_path)


def test_a_tensor_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    name = f"base_model.model.model.{_MODULE}.lora_magnitude_vector"
    _write(tmp_path, tensors={name: torch.ones(4)})
    with pytest.raises(InvalidRequestError, match="lora_magnitude_vector"):
        read_adapter(tmp_path)


def test_a_matrix_without_its_other_is_refused_by_name(tmp_path: Path) -> None:
    _write(tmp_path, tensors={f"base_model.model.model.{_MODULE}.lora_A.weight": torch.ones(4, 6)})
    with pytest.raises(InvalidRequestError, match=_MODULE):
        read_adapter(tmp_path)


@pytest.mark.parametrize("rank", [8, [4], "4", None])
def test_a_rank_other_than_the_configuration_says_is_refused(tmp_path: Path, rank: Any) -> None:
    _write(tmp_path, r=rank)
    with pytest.raises(InvalidRequestError, match="'r' is"):
        read_adapter(tmp_path)


@pytest.mark.parametrize("half", ["A", "B"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_refused(tmp_path: Path, half: str, value: float) -> None:
    pair = {"A": torch.ones(4, 6), "B": torch.ones(8, 4)}
    pair[half][3, 2] = value
    name = f"base_model.model.model.{_MODULE}"
    _write(tmp_path, tensors={f"{name}.lora_{key}.weight": each for key, each in pair.items()})
    with pytest.raises(InvalidRequestError, match=f"lora_{half}"):
        read_adapter(tmp_path)


def test_what_overflows_in_the_executors_type_is_refused(tmp_path: Path) -> None:
    name = f"base_model.model.model.{_MODULE}"
    large = {
        f"{name}.lora_A.weight": torch.ones(4, 6),
        f"{name}.lora_B.weight": torch.full((8, 4), 3.0e38),
    }
    _write(tmp_path, tensors=large)
    with pytest.raises(InvalidRequestError, match="lora_B"):
        read_adapter(tmp_path)


def test_a_tensor_that_is_no_matrix_is_refused_by_name(tmp_path: Path) -> None:
    name = f"base_model.model.model.{_MODULE}.lora_A.weight"
    _write(tmp_path, tensors={name: torch.ones(4)})
    with pytest.raises(InvalidRequestError, match="lora_A"):
        read_adapter(tmp_path)


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_folder_without_one_of_its_files_is_refused_by_name(tmp_path: Path, missing: str) -> None:
    _write(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(InvalidRequestError, match=missing):
        read_adapter(tmp_path)


def test_reading_tensors_leaves_no_object_behind(tmp_path: Path) -> None:
    halves = {"A": torch.ones(4, 600), "B": torch.ones(800, 4)}
    tensors = {
        f"base_model.model.model.layers.{layer}.mlp.up_proj.lora_{half}.weight": values.clone()
        for layer in range(10)
        for half, values in halves.items()
    }
    _write(tmp_path, tensors=tensors)

    def num_objects_after(num_reads: int) -> int:
        for _ in range(num_reads):
            read_adapter(tmp_path)
        gc.collect()
        return sys.getallocatedblocks()

    before = num_objects_after(20)
    assert num_objects_after(100) - before < 100 * len(tensors) / 2


def test_weights_that_are_no_safetensors_are_refused(tmp_path: Path) -> None:
    _write(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(InvalidRequestError, match="adapter_model"):
        read_adapter(tmp_path)
