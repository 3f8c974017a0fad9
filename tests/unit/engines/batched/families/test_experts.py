from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402 # after the skip

from openworks.engines.batched.experts import unpack_mxfp4  # noqa: E402
from openworks.engines.batched.step import Piece, Step  # noqa: E402
from openworks.engines.batched.torch_executor import TorchExecutor  # noqa: E402
from tests.unit.engines.batched.families.checkpoints import PROMPT, save_random  # noqa: E402


def _logits(folder: Path) -> Any:
    executor = TorchExecutor.load(
        folder,
        precision="float32",
        device="cpu",
        context_tokens=64,
        cache_tokens=64,
        num_slots=1,
        threads=1,
    )
    return executor.run(Step([Piece(PROMPT, 0, (0, 1), None, 20)]))


def test_a_block_of_four_bit_floats_is_unpacked_as_the_standard_has_it() -> None:
    # Values 0 to 7 in the lower halves, their negatives in the upper ones, in both halves.
    blocks = torch.tensor([[low | (low + 8) << 4 for low in range(8)] * 2], dtype=torch.uint8)
    found = unpack_mxfp4(blocks, torch.tensor([128], dtype=torch.uint8))
    positive = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    assert found.dtype == torch.bfloat16
    assert found.tolist() == [sign * 2 * value for value in positive for sign in (1, -1)] * 2


@pytest.mark.parametrize("exponent", [0, 100, 127, 140, 254])
def test_a_scale_is_a_power_of_two(exponent: int) -> None:
    blocks = torch.full((1, 16), 0x22, dtype=torch.uint8)
    found = unpack_mxfp4(blocks, torch.tensor([exponent], dtype=torch.uint8))
    assert torch.unique(found.float()).tolist() == [2.0 ** (exponent - 127)]


def test_packed_experts_compute_what_unpacked_ones_do(tmp_path: Path) -> None:
    packed, unpacked = tmp_path / "packed", tmp_path / "unpacked"
    save_random("gpt-oss", unpacked, hidden_size=64, intermediate_size=96)
    config = orjson.loads((unpacked / "config.json").read_bytes())
    tensors = load_file(unpacked / "model.safetensors")
    exchanged = {}
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
        experts, num_in, num_out = tensors.pop(name).shape
        blocks = torch.randint(0, 256, (experts, num_out, num_in // 32, 16), dtype=torch.uint8)
        scales = torch.randint(120, 126, (experts, num_out, num_in // 32), dtype=torch.uint8)
        exchanged[f"{name}_blocks"] = blocks
        exchanged[f"{name}_scales"] = scales
        tensors[name] = unpack_mxfp4(blocks, scales).transpose(1, 2).contiguous().float()
    save_file(tensors, unpacked / "model.safetensors")
    packed.mkdir()
    rest = {name: tensor for name, tensor in tensors.items() if f"{name}_blocks" not in exchanged}
    save_file({**rest, **exchanged}, packed / "model.safetensors")
    config["quantization_config"] = {"quant_method": "mxfp4"}
    (packed / "config.json").write_bytes(orjson.dumps(config))
    torch.testing.assert_close(_logits(packed), _logits(unpacked), atol=1e-4, rtol=1e-4)
