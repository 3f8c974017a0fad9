from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402 # after the skip

from openworks.core.errors import ModelUnavailableError  # noqa: E402
from openworks.engines.batched.linear import int8_fault  # noqa: E402
from openworks.engines.batched.step import BlockCopy, Piece, Step  # noqa: E402
from openworks.engines.batched.torch_executor import TorchExecutor  # noqa: E402
from tests.unit.engines.batched.families.checkpoints import PROMPT, save_random  # noqa: E402

_PRECISIONS = ["float32", "bfloat16", "int8"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama")
    save_random("llama", path)
    return path


def _load(folder: Path, **changes: Any) -> TorchExecutor:
    options: dict[str, Any] = {
        "precision": "float32",
        "device": "cpu",
        "context_tokens": 64,
        "cache_tokens": 500,
        "num_slots": 1,
        "threads": 1,
    }
    return TorchExecutor.load(folder, **{**options, **changes})


def _whole(*blocks: int) -> Piece:
    return Piece(PROMPT, 0, blocks, None, 1)


def test_its_limits_are_those_of_the_model_and_of_the_cache(folder: Path) -> None:
    executor = _load(folder, context_tokens=1000, cache_tokens=500)
    assert (executor.context_tokens, executor.vocab_size) == (64, 97)
    assert (executor.cache.num_blocks, executor.cache.block_tokens) == (32, 16)
    assert _load(folder, cache_tokens=20).context_tokens == 32


@pytest.mark.parametrize("precision", _PRECISIONS)
def test_it_says_what_computes(folder: Path, precision: str) -> None:
    executor = _load(folder, precision=precision)
    expected = "bfloat16" if precision == "int8" and int8_fault() else precision
    assert executor.description == f"torch {expected}, 1 threads"


def test_a_device_that_is_not_there_is_named(folder: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ModelUnavailableError, match="CUDA"):
        _load(folder, device="cuda")


@pytest.mark.parametrize("precision", _PRECISIONS)
def test_a_sequence_is_the_same_alone_and_among_others(folder: Path, precision: str) -> None:
    executor = _load(folder, precision=precision)
    alone = executor.run(Step([_whole(0, 1)])).clone()
    alone_next = executor.run(Step([Piece([5], 20, (0, 1), None, 1)])).clone()
    others = [Piece(PROMPT[:count], 0, (2 + count,), None, 1) for count in (1, 9, 3)]
    among = executor.run(Step([others[0], _whole(20, 21), *others[1:]]))[1:2].clone()
    among_next = executor.run(
        Step(
            [
                Piece([8], 1, (3,), None, 1),
                Piece([5], 20, (20, 21), None, 1),
                Piece([9], 9, (11,), None, 1),
            ]
        )
    )[1:2]
    tolerance = 2e-2 if precision == "bfloat16" else 1e-4
    torch.testing.assert_close(among, alone, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(among_next, alone_next, atol=tolerance, rtol=tolerance)


def test_a_step_may_want_no_logits(folder: Path) -> None:
    found = _load(folder).run(Step([Piece(PROMPT, 0, (0, 1), None, 0)]))
    assert found.shape == (0, 97)


def test_logits_are_wanted_of_the_last_tokens_in_the_order_of_the_pieces(folder: Path) -> None:
    executor = _load(folder)
    every = executor.run(Step([Piece(PROMPT, 0, (0, 1), None, 20)])).clone()
    found = executor.run(
        Step(
            [
                Piece(PROMPT, 0, (2, 3), None, 3),
                Piece(PROMPT[:1], 0, (4,), None, 1),
                Piece(PROMPT[:7], 0, (5,), None, 2),
            ]
        )
    )
    expected = torch.cat([every[17:], every[:1], every[5:7]])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_a_copied_block_is_as_good_as_the_first(folder: Path) -> None:
    executor = _load(folder)
    executor.run(Step([_whole(0, 1)]))
    expected = executor.run(Step([Piece([5], 20, (0, 1), None, 1)])).clone()
    executor.run(Step([_whole(0, 1)]))
    copied = Step([Piece([5], 20, (0, 9), None, 1)], copies=[BlockCopy(source=1, target=9)])
    torch.testing.assert_close(executor.run(copied), expected, atol=1e-4, rtol=0)
    # The source was not written to.
    again = executor.run(Step([Piece([5], 20, (0, 1), None, 1)]))
    torch.testing.assert_close(again, expected, atol=1e-4, rtol=0)


def test_what_a_block_held_before_does_not_matter(folder: Path) -> None:
    executor = _load(folder)
    expected = executor.run(Step([_whole(0, 1)])).clone()
    executor.run(Step([Piece([3] * 32, 0, (7, 6), None, 1)]))
    torch.testing.assert_close(executor.run(Step([_whole(6, 7)])), expected, atol=1e-4, rtol=0)


def test_decodes_of_very_different_lengths_share_a_step(tmp_path: Path) -> None:
    save_random("mistral-full", tmp_path)
    config = orjson.loads((tmp_path / "config.json").read_bytes())
    config["max_position_embeddings"] = 2048
    (tmp_path / "config.json").write_bytes(orjson.dumps(config))
    executor = _load(tmp_path, context_tokens=2048, cache_tokens=4096)
    lengths = [1500, 3, 700, 1, 300, 40]
    expected, pieces, block = [], [], 0
    for length in lengths:
        blocks = range(block, block + length // 16 + 1)
        block = blocks.stop
        ids = [(7 * i + length) % 97 for i in range(length + 1)]
        expected.append(executor.run(Step([Piece(ids, 0, blocks, None, 1)])).clone())
        pieces.append(Piece(ids[-1:], length, blocks, None, 1))
    torch.testing.assert_close(
        executor.run(Step(pieces)), torch.cat(expected), atol=1e-4, rtol=1e-4
    )


@pytest.mark.skipif(int8_fault() is not None, reason=str(int8_fault()))
def test_int8_logits_are_within_five_percent_of_float32(tmp_path: Path) -> None:
    save_random("llama", tmp_path)
    step = Step([Piece(PROMPT, 0, (0, 1), None, 20)])
    exact = _load(tmp_path).run(step)
    found = _load(tmp_path, precision="int8").run(step)
    assert float((found - exact).norm() / exact.norm()) < 0.05


def _sharded(source: Path, target: Path) -> None:
    """Write the checkpoint in two files with an index."""
    shutil.copy(source / "config.json", target)
    tensors = sorted(load_file(source / "model.safetensors").items())
    halves = {"model-1.safetensors": tensors[::2], "model-2.safetensors": tensors[1::2]}
    for name, half in halves.items():
        save_file(dict(half), target / name)
    weight_map = {tensor: name for name, half in halves.items() for tensor, _ in half}
    index = {"metadata": {}, "weight_map": weight_map}
    (target / "model.safetensors.index.json").write_bytes(orjson.dumps(index))


def test_a_checkpoint_in_several_files_is_read(folder: Path, tmp_path: Path) -> None:
    _sharded(folder, tmp_path)
    expected = _load(folder).run(Step([_whole(0, 1)]))
    assert torch.equal(_load(tmp_path).run(Step([_whole(0, 1)])), expected)


def test_a_missing_file_is_named(folder: Path, tmp_path: Path) -> None:
    _sharded(folder, tmp_path)
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(ModelUnavailableError, match=r"model-2\.safetensors"):
        _load(tmp_path)


def test_a_missing_tensor_is_named(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "config.json", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ModelUnavailableError, match=r"layers\.1\.mlp\.up_proj\.weight"):
        _load(tmp_path)


def test_a_broken_file_is_named(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "config.json", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ModelUnavailableError, match=r"model\.safetensors"):
        _load(tmp_path)


def test_a_folder_without_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelUnavailableError, match="safetensors"):
        _load(tmp_path)
