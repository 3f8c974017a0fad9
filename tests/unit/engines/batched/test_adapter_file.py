from __future__ import annotations

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
    assert (a.shape, b.shape) == ((4, 6), (8, 4))
    assert (found.rank, found.size_bytes) == (4, 4 * (24 + 32))


def test_the_scale_is_alpha_over_the_rank(tmp_path: Path) -> None:
    _write(tmp_path)
    assert read_adapter(tmp_path).scale == 2.0


def test_the_scale_of_rslora_is_alpha_over_the_root_of_the_rank(tmp_path: Path) -> None:
    _write(tmp_path, use_rslora=True)
    assert read_adapter(tmp_path).scale == 4.0


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


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    pair = {
        f"base_model.model.model.{_MODULE}.lora_A.weight": torch.full((4, 6), value),
        f"base_model.model.model.{_MODULE}.lora_B.weight": torch.ones(8, 4),
    }
    _write(tmp_path, tensors=pair)
    with pytest.raises(InvalidRequestError, match="lora_A"):
        read_adapter(tmp_path)


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_folder_without_one_of_its_files_is_refused_by_name(tmp_path: Path, missing: str) -> None:
    _write(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(InvalidRequestError, match=missing):
        read_adapter(tmp_path)


def test_weights_that_are_no_safetensors_are_refused(tmp_path: Path) -> None:
    _write(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(InvalidRequestError, match="adapter_model"):
        read_adapter(tmp_path)
