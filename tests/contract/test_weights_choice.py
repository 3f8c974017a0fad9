"""From file names alone, the right files of a repository are taken."""

from __future__ import annotations

import pytest

from openworks.storage.weights.choose import (
    choose_gguf,
    choose_mmproj,
    gguf_models,
    parts_of,
    quant_of,
    snapshot_files,
    split_name,
)


@pytest.mark.parametrize(
    ("file", "quant"),
    [
        ("Qwen3-0.6B-Q8_0.gguf", "Q8_0"),
        ("qwen2.5-0.5b-instruct-q4_k_m.gguf", "Q4_K_M"),
        ("tinyllama-1.1b-chat-v1.0.Q4_0.gguf", "Q4_0"),
        ("gemma-3-270m-it-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("phi-4-fp16.gguf", "F16"),
        ("model-BF16.gguf", "BF16"),
        ("Meta-Llama-3-8B-IQ4_XS.gguf", "IQ4_XS"),
        ("Q4_K_M/large-Q4_K_M-00001-of-00003.gguf", "Q4_K_M"),
        ("BF16/large-00001-of-00003.gguf", "BF16"),
        ("model.gguf", None),
    ],
)
def test_quantisation_is_read_from_the_name(file: str, quant: str | None) -> None:
    assert quant_of(file) == quant


@pytest.mark.parametrize(
    ("quants", "chosen"),
    [
        (["Q8_0", "Q4_K_M", "Q4_0"], "Q4_K_M"),
        (["F16", "Q8_0", "Q5_K_M", "Q4_0"], "Q4_0"),
        (["F16", "Q8_0", "Q5_K_M"], "Q5_K_M"),
        (["BF16", "F16", "Q8_0"], "Q8_0"),
        (["IQ1_S", "F16"], "F16"),
        (["IQ1_S"], "IQ1_S"),
    ],
)
def test_preferred_quantisation_is_chosen(quants: list[str], chosen: str) -> None:
    assert choose_gguf(f"model-{quant}.gguf" for quant in quants) == f"model-{chosen}.gguf"


def test_named_quantisation_is_chosen_in_any_case() -> None:
    files = ["model-Q4_K_M.gguf", "model-UD-Q4_K_M.gguf", "model-q8_0.gguf"]

    assert choose_gguf(files, "Q8_0") == "model-q8_0.gguf"
    assert choose_gguf(files, "ud-q4_k_m") == "model-UD-Q4_K_M.gguf"
    assert choose_gguf(files, "model-q4_k_m.gguf") == "model-Q4_K_M.gguf"
    assert choose_gguf(files, "Q2_K") is None


def test_projectors_importance_matrices_and_later_parts_are_no_models() -> None:
    files = [
        "mmproj-model-f16.gguf",
        "imatrix.gguf",
        "m-Q4_K_M-00002-of-00002.gguf",
        "m-Q4_K_M-00001-of-00002.gguf",
        "README.md",
    ]

    assert gguf_models(files) == ["m-Q4_K_M-00001-of-00002.gguf"]


def test_single_model_without_a_quantisation_is_chosen() -> None:
    assert choose_gguf(["README.md", "model.gguf"]) == "model.gguf"
    assert choose_gguf(["README.md"]) is None


def test_compact_projector_is_chosen() -> None:
    files = ["mmproj-BF16.gguf", "mmproj-F16.gguf", "mmproj-F32.gguf", "model-Q8_0.gguf"]

    assert choose_mmproj(files) == "mmproj-F16.gguf"
    assert choose_mmproj(["model-Q8_0.gguf"]) is None


def test_parts_of_a_split_file_are_named_in_order() -> None:
    assert parts_of("a/m-00002-of-00002.gguf") == (
        "a/m-00001-of-00002.gguf",
        "a/m-00002-of-00002.gguf",
    )
    assert parts_of("m.gguf") == ("m.gguf",)


def test_name_may_carry_a_choice() -> None:
    assert split_name("Qwen/Qwen3-0.6B-GGUF:Q8_0") == ("Qwen/Qwen3-0.6B-GGUF", "Q8_0")
    assert split_name("Qwen/Qwen3-0.6B-GGUF") == ("Qwen/Qwen3-0.6B-GGUF", None)


def test_weights_come_after_what_they_need() -> None:
    files = ["model.safetensors", "config.json", "tokenizer.json", "merges.txt", "README.md"]

    assert snapshot_files(files) == [
        "config.json",
        "merges.txt",
        "tokenizer.json",
        "model.safetensors",
    ]


def test_pickles_are_taken_only_where_there_is_nothing_else() -> None:
    assert snapshot_files(["config.json", "pytorch_model.bin"]) == [
        "config.json",
        "pytorch_model.bin",
    ]
    assert "pytorch_model.bin" not in snapshot_files(["model.safetensors", "pytorch_model.bin"])


def test_index_of_weights_that_are_left_out_is_left_out_too() -> None:
    files = [
        "model-00001-of-00001.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin.index.json",
    ]

    assert snapshot_files(files) == [
        "model.safetensors.index.json",
        "model-00001-of-00001.safetensors",
    ]


def test_weights_in_the_makers_own_format_are_left_out() -> None:
    files = ["model.safetensors", "consolidated.safetensors", "original/model.safetensors"]

    assert snapshot_files(files) == ["model.safetensors"]


def test_pipeline_comes_in_folders_without_copies() -> None:
    files = [
        "model_index.json",
        "sd_turbo.safetensors",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    ]

    assert snapshot_files(files) == [
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    ]
