from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("openvino")
pytest.importorskip("peft")

from openworks.core.errors import InvalidRequestError  # noqa: E402 # after the skip
from openworks.engines.batched.executor import AdapterWeights  # noqa: E402
from openworks.engines.batched.openvino.executor import OpenVinoExecutor  # noqa: E402
from openworks.engines.batched.step import Piece, Step  # noqa: E402
from tests.unit.engines.batched.families.checkpoints import PROMPT, save_random  # noqa: E402
from tests.unit.engines.batched.openvino.adapters import PeftOracle  # noqa: E402

_ADAPTERS = {"eight": 8, "three": 3, "twenty": 20}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("llama")
    oracle = PeftOracle(save_random("llama", folder), tmp_path_factory.mktemp("adapters"))
    weights = {name: oracle.add(name, rank=rank) for name, rank in _ADAPTERS.items()}
    weights["queries"] = oracle.add("queries", rank=4, modules=("q_proj", "v_proj"))
    return folder, oracle, weights


def _load(folder: Path, *, num_slots: int = 4) -> OpenVinoExecutor:
    return OpenVinoExecutor.load(
        folder,
        precision="float32",
        context_tokens=48,
        cache_tokens=640,
        num_slots=num_slots,
        threads=1,
    )


def _close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_adapters_of_one_step_equal_each_by_peft(made: Any) -> None:
    folder, oracle, weights = made
    executor = _load(folder)
    names = ["eight", "three", "twenty", "queries"]
    for slot, name in enumerate(names):
        executor.put_adapter(slot, weights[name])
    slots = [2, None, 0, 3, 1, 0]
    pieces = [
        Piece(PROMPT[: 10 + row], 0, (row,), slot, 10 + row) for row, slot in enumerate(slots)
    ]
    found = executor.run(Step(pieces)).clone()
    expected = [
        oracle.logits(piece.token_ids, None if piece.slot is None else names[piece.slot])
        for piece in pieces
    ]
    _close(found, torch.cat(expected))
    decodes = [
        Piece([PROMPT[10 + row]], 10 + row, (row,), slot, 1) for row, slot in enumerate(slots)
    ]
    found = executor.run(Step(decodes))
    expected = [
        oracle.logits(PROMPT[: 11 + row], None if slot is None else names[slot])[-1:]
        for row, slot in enumerate(slots)
    ]
    _close(found, torch.cat(expected))


def test_long_chunks_beside_single_tokens_equal_each_by_peft(made: Any) -> None:
    folder, oracle, weights = made
    executor = _load(folder, num_slots=8)
    long = PROMPT * 2
    for slot in range(8):
        executor.put_adapter(slot, weights["eight" if slot % 2 else "three"])
    executor.run(Step([Piece(PROMPT[:9], 0, (slot,), slot, 0) for slot in range(8)]))
    pieces = [Piece(long, 0, (10, 11), 1, 3), Piece(long, 0, (14, 15), 1, 40)]
    pieces += [Piece([PROMPT[9]], 9, (slot,), slot, 1) for slot in range(8)]
    pieces += [Piece(long[:7], 0, (12,), None, 1)]
    found = executor.run(Step(pieces))
    expected = [oracle.logits(long, "eight")[-3:], oracle.logits(long, "eight")]
    expected += [
        oracle.logits(PROMPT[:10], "eight" if slot % 2 else "three")[-1:] for slot in range(8)
    ]
    expected += [oracle.logits(long[:7], None)[-1:]]
    _close(found, torch.cat(expected))


def test_adapters_come_and_go_between_steps(made: Any) -> None:
    folder, oracle, weights = made
    executor = _load(folder)
    ours = Piece(PROMPT, 0, (0,), 0, 20)

    def others() -> list[Piece]:
        return [Piece(PROMPT, 0, (1,), 1, 20), Piece(PROMPT, 0, (2,), None, 20)]

    base = oracle.logits(PROMPT, None)
    mine = oracle.logits(PROMPT, "twenty")
    executor.put_adapter(0, weights["twenty"])
    executor.put_adapter(1, weights["three"])
    found = executor.run(Step([ours, *others()]))
    _close(found, torch.cat([mine, oracle.logits(PROMPT, "three"), base]))
    executor.put_adapter(1, weights["eight"])
    found = executor.run(Step([ours, *others()]))
    _close(found, torch.cat([mine, oracle.logits(PROMPT, "eight"), base]))
    executor.drop_adapter(1)
    _close(executor.run(Step([ours, others()[1]])), torch.cat([mine, base]))
    executor.drop_adapter(0)
    _close(executor.run(Step([others()[1]])), base)


def test_an_adapter_that_overflows_leaves_its_neighbours_alone(made: Any) -> None:
    folder, oracle, weights = made
    executor = _load(folder)
    huge = {
        module: (torch.full_like(a, 1e30), torch.full_like(b, 1e30))
        for module, (a, b) in weights["eight"].pairs.items()
    }
    executor.put_adapter(0, weights["three"])
    executor.put_adapter(1, AdapterWeights(rank=8, pairs=huge, size_bytes=0))
    found = executor.run(
        Step([Piece(PROMPT, 0, (slot,), slot if slot < 2 else None, 20) for slot in range(3)])
    )
    assert not torch.isfinite(found[20:40]).all()
    _close(found[:20], oracle.logits(PROMPT, "three"))
    _close(found[40:], oracle.logits(PROMPT, None))


def test_matrices_of_another_model_are_refused(made: Any) -> None:
    folder, _, _ = made
    executor = _load(folder)
    pairs = {"layers.0.self_attn.q_proj": (torch.zeros(4, 47), torch.zeros(4, 48))}
    with pytest.raises(InvalidRequestError, match="47 to 48"):
        executor.put_adapter(0, AdapterWeights(rank=4, pairs=pairs, size_bytes=0))


def test_fused_projections_take_adapters_of_fused_modules(tmp_path: Path) -> None:
    oracle = PeftOracle(save_random("phi3", tmp_path / "phi3"), tmp_path)
    weights = oracle.add("fused", rank=10, modules=("qkv_proj", "gate_up_proj", "down_proj"))
    executor = _load(tmp_path / "phi3")
    executor.put_adapter(3, weights)
    found = executor.run(Step([Piece(PROMPT, 0, (0,), 3, 20)]))
    _close(found, oracle.logits(PROMPT, "fused"))
