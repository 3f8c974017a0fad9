from __future__ import annotations

import resource
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from openworks.core.errors import InvalidRequestError  # noqa: E402 # after the skip
from openworks.engines.batched.adapter_file import read_adapter  # noqa: E402
from openworks.engines.batched.executor import AdapterWeights  # noqa: E402
from openworks.engines.batched.linear import int8_fault  # noqa: E402
from openworks.engines.batched.step import Piece, Step  # noqa: E402
from openworks.engines.batched.torch_executor import TorchExecutor  # noqa: E402
from tests.unit.engines.batched.families.checkpoints import PROMPT, save_random  # noqa: E402

_ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
_MLP = ["gate_proj", "up_proj", "down_proj"]
_RANKS = (4, 8, 16)
_TINY_CHAT = Path("src/openworks/models/tiny-chat")


@dataclass(frozen=True, slots=True)
class _Sample:
    executor: TorchExecutor
    expected: list[Any]
    """Logits of the prompt: of the base, then of each adapter, by PEFT."""


def _load(folder: Path, precision: Any = "float32") -> TorchExecutor:
    return TorchExecutor.load(
        folder,
        precision=precision,
        device="cpu",
        context_tokens=64,
        cache_tokens=512,
        num_slots=4,
        threads=1,
    )


def _peft_adapters(model: Any, targets: Sequence[str], folder: Path) -> list[Any]:
    """Save an adapter of each rank; returns the logits with each."""
    expected = []
    for index, rank in enumerate(_RANKS):
        torch.manual_seed(rank)
        config = peft.LoraConfig(
            r=rank,
            lora_alpha=2 * rank + index,
            target_modules=list(targets),
            use_rslora=index == 1,
            init_lora_weights=False,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT's own, on its import of other libraries
            wrapped = peft.get_peft_model(model, config).eval()
            wrapped.save_pretrained(folder / str(index))
        with torch.inference_mode():
            expected.append(wrapped(torch.tensor([PROMPT])).logits[0])
        model = wrapped.unload()
    return expected


@pytest.fixture(
    scope="module",
    params=[
        ("llama", [*_ATTENTION, *_MLP]),
        ("llama", ["q_proj", "v_proj"]),
        ("qwen2", [*_ATTENTION, *_MLP]),
        ("phi3", ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]),
        ("gemma3", ["k_proj", "up_proj"]),
        ("tiny-chat", [*_ATTENTION, *_MLP]),
    ],
    ids=lambda param: f"{param[0]}-{len(param[1])}",
)
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> _Sample:
    name, targets = request.param
    folder = tmp_path_factory.mktemp(name)
    if name == "tiny-chat":
        transformers = pytest.importorskip("transformers")
        base = _TINY_CHAT
        model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    else:
        base = folder / "base"
        model = save_random(name, base)
    with torch.inference_mode():
        expected = [model(torch.tensor([PROMPT])).logits[0]]
    expected += _peft_adapters(model, targets, folder)
    executor = _load(base)
    for slot in range(len(_RANKS)):
        executor.put_adapter(slot, read_adapter(folder / str(slot)))
    return _Sample(executor, expected)


def _whole(slot: int | None, first_block: int = 0) -> Piece:
    return Piece(PROMPT, 0, (first_block, first_block + 1), slot, len(PROMPT))


@pytest.mark.parametrize("slot", range(3))
def test_an_adapter_computes_what_it_does_in_peft(sample: _Sample, slot: int) -> None:
    found = sample.executor.run(Step([_whole(slot)]))
    torch.testing.assert_close(found, sample.expected[slot + 1], atol=1e-4, rtol=1e-5)
    assert (found - sample.expected[0]).abs().max() > 0.01


def test_chunks_and_decodes_of_all_adapters_in_one_step_equal_each_alone(sample: _Sample) -> None:
    slots = [None, 0, 1, 2]
    for index, slot in enumerate(slots):
        head = Piece(PROMPT[:19], 0, (2 * index, 2 * index + 1), slot, 0)
        sample.executor.run(Step([head]))
    pieces = [
        *(_whole(slot, 8 + 2 * index) for index, slot in enumerate(slots)),
        *(
            Piece(PROMPT[19:], 19, (2 * index, 2 * index + 1), slot, 1)
            for index, slot in enumerate(slots)
        ),
    ]
    # Decodes and chunks interleaved, and their adapters in no order.
    order = [5, 0, 7, 3, 1, 4, 2, 6]
    found = sample.executor.run(Step([pieces[index] for index in order]))
    expected = [
        sample.expected[index] if index < 4 else sample.expected[index - 4][19:] for index in order
    ]
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-4, rtol=1e-5)


def test_adapters_that_come_and_go_never_change_anothers_logits(sample: _Sample) -> None:
    executor = sample.executor
    executor.run(Step([_whole(0), _whole(1, 2), _whole(2, 4)]))
    kept = AdapterWeights(rank=1, pairs={}, size_bytes=0)
    for other in (3, 3):
        executor.put_adapter(other, kept)
        executor.run(Step([_whole(other), _whole(1, 2)]))
        executor.drop_adapter(other)
        found = executor.run(Step([_whole(2), _whole(1, 2), _whole(None, 4)]))
        expected = torch.cat([sample.expected[3], sample.expected[2], sample.expected[0]])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


def test_what_overflows_harms_neither_its_neighbours_nor_the_next_owner_of_its_blocks(
    tmp_path: Path,
) -> None:
    save_random("llama", tmp_path)
    executor = _load(tmp_path)
    expected = executor.run(Step([_whole(None)])).clone()
    pairs = {
        f"layers.0.self_attn.{module}_proj": (
            torch.full((2, 48), 3e38),
            torch.full((2, size), 3e38),
        )
        for module, size in (("q", 48), ("k", 24), ("v", 24))
    }
    weights = AdapterWeights(rank=2, pairs=pairs, size_bytes=0)
    executor.put_adapter(0, weights)
    found = executor.run(Step([_whole(0), _whole(None, 2)]))
    assert not torch.isfinite(found[:20]).all()
    torch.testing.assert_close(found[20:], expected, atol=1e-4, rtol=0)
    # Blocks 0 and 1 again, the second of them read beyond what is written to it now.
    executor.run(Step([Piece(PROMPT[:19], 0, (0, 1), None, 0)]))
    found = executor.run(Step([Piece(PROMPT[19:], 19, (0, 1), None, 1)]))
    torch.testing.assert_close(found, expected[19:], atol=1e-4, rtol=0)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_dropping_adapters_gives_their_memory_back_to_the_system(tmp_path: Path) -> None:
    save_random("llama", tmp_path, hidden_size=512, intermediate_size=2048)
    executor = _load(tmp_path)
    sizes = {"mlp.gate_proj": (512, 2048), "mlp.up_proj": (512, 2048), "mlp.down_proj": (2048, 512)}
    for slot in range(4):
        pairs = {
            f"layers.{layer}.{module}": (torch.ones(64, num_in), torch.ones(64, num_out))
            for layer in range(3)
            for module, (num_in, num_out) in sizes.items()
        }
        weights = AdapterWeights(rank=64, pairs=pairs, size_bytes=0)
        executor.put_adapter(slot, weights)
        executor.run(Step([Piece([5], 0, (0,), slot, 1)]))
        size_bytes = 4 * sum(a.nbytes + b.nbytes for a, b in pairs.values())
        del pairs, weights
    held = _resident_bytes()
    for slot in range(4):
        executor.drop_adapter(slot)
    # Once in the slots, and once in the matrices.
    assert held - _resident_bytes() > 1.5 * size_bytes


@pytest.mark.skipif(int8_fault() is not None, reason=str(int8_fault()))
def test_in_int8_an_adapter_still_computes_what_it_does_in_peft(tmp_path: Path) -> None:
    model = save_random("llama", tmp_path / "base")
    expected = _peft_adapters(model, [*_ATTENTION, *_MLP], tmp_path)
    executor = _load(tmp_path / "base", "int8")
    executor.put_adapter(0, read_adapter(tmp_path / "1"))
    found = executor.run(Step([_whole(0)]))
    assert float((found - expected[1]).norm() / expected[1].norm()) < 0.05


@pytest.mark.parametrize("module", ["embed_tokens", "lm_head"])
def test_an_adapter_of_what_stands_before_and_after_the_layers_is_refused(
    tmp_path: Path, module: str
) -> None:
    save_random("llama", tmp_path)
    executor = _load(tmp_path)
    pairs = {module: (torch.ones(2, 48), torch.ones(2, 97))}
    with pytest.raises(InvalidRequestError, match=module):
        executor.put_adapter(0, AdapterWeights(rank=2, pairs=pairs, size_bytes=0))
