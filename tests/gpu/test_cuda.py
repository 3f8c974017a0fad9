"""The batched engine on an accelerator: what the processor computes, in mixed batches too."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

if not torch.cuda.is_available():
    pytest.skip("there is no CUDA device", allow_module_level=True)

from benchmarks.hf_folder import write_random_adapter, write_random_folder  # noqa: E402 # needs torch
from benchmarks.random_model import PRESETS  # noqa: E402
from openworks.core.ids import AccountId  # noqa: E402
from openworks.engines.base import Origin  # noqa: E402
from openworks.engines.batched.adapter_file import read_adapter  # noqa: E402
from openworks.engines.batched.engine import BatchedEngine, load  # noqa: E402
from openworks.engines.batched.linear import Precision  # noqa: E402
from openworks.engines.batched.step import Piece, Step  # noqa: E402
from openworks.engines.batched.torch_executor import TorchExecutor  # noqa: E402
from openworks.ports.adapters import Adapter  # noqa: E402
from openworks.ports.catalog import Deployment, ModelEntry  # noqa: E402
from openworks.ports.text import CompletionRequest, Sampling, TextChunk  # noqa: E402

pytestmark = pytest.mark.gpu

SHAPE = PRESETS["tiny"]
PROMPTS = [list(range(20 + seed, 60 + 3 * seed)) for seed in range(6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models") / "random"
    write_random_folder(made, SHAPE, dtype=torch.float32)
    return made


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("adapters")
    for seed, rank in enumerate((4, 8, 16)):
        write_random_adapter(root / str(seed), SHAPE, rank=rank, seed=seed)
    return [root / str(seed) for seed in range(3)]


def executor(folder: Path, device: str, precision: Precision = "float32") -> TorchExecutor:
    return TorchExecutor.load(
        folder,
        precision=precision,
        device=device,
        context_tokens=256,
        cache_tokens=2048,
        num_slots=4,
        threads=1,
    )


def first_logits(made: TorchExecutor, prompts: list[list[int]], slots: list[int | None]):  # type: ignore[no-untyped-def] # a Tensor, which needs torch
    """Logits after each prompt, all read in one step, in blocks of their own."""
    per_text = 256 // made.cache.block_tokens
    pieces = [
        Piece(ids, 0, list(range(n * per_text, (n + 1) * per_text)), slot, 1)
        for n, (ids, slot) in enumerate(zip(prompts, slots, strict=True))
    ]
    return made.run(Step(pieces)).float().cpu().clone()


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("bfloat16", 0.15)])
def test_device_computes_what_the_processor_does(
    folder: Path, adapters: list[Path], precision: Precision, tolerance: float
) -> None:
    here, there = executor(folder, "cpu"), executor(folder, "cuda", precision)
    slots: list[int | None] = [None, 0, 1, 2, 1, None]
    for made in (here, there):
        for slot, path in enumerate(adapters):
            made.put_adapter(slot, read_adapter(path))

    expected = first_logits(here, PROMPTS, slots)
    found = first_logits(there, PROMPTS, slots)

    assert float((found - expected).abs().max()) < tolerance * float(expected.abs().max())


def test_mixed_batch_is_each_text_alone(folder: Path, adapters: list[Path]) -> None:
    made = executor(folder, "cuda")
    for slot, path in enumerate(adapters):
        made.put_adapter(slot, read_adapter(path))
    slots: list[int | None] = [None, 0, 1, 2, 1, None]

    together = first_logits(made, PROMPTS, slots)
    alone = [first_logits(made, [ids], [slot]) for ids, slot in zip(PROMPTS, slots, strict=True)]

    assert torch.allclose(together, torch.cat(alone), atol=1e-3)


class Collected:
    """The text of one answer."""

    is_cancelled = False

    def __init__(self) -> None:
        self.text = ""

    def still_working(self) -> None:
        pass

    def put(self, chunk: TextChunk) -> None:
        self.text += chunk.content


def answers(engine: BatchedEngine, asked: list[tuple[list[int], Origin]]) -> list[str]:
    found = [Collected() for _ in asked]

    def ask(index: int) -> None:
        ids, origin = asked[index]
        sampling = Sampling(max_tokens=24, temperature=0.0)
        engine.complete(CompletionRequest(prompt=ids, sampling=sampling), origin, found[index])

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [each.text for each in found]


def test_engine_answers_many_at_once_as_one_by_one(folder: Path, adapters: list[Path]) -> None:
    deployment = Deployment(
        entry=ModelEntry(id="random", name="random", task="text-generation"),
        engine="batched",
        weights=folder,
        context_tokens=256,
        parallel=32,
        cache_tokens=8192,
        precision="float32",
    )
    engine = load(deployment, Path("unused"))
    report = engine.report()
    assert (
        "cuda" in report.description.lower() or torch.cuda.get_device_name() in report.description
    )
    origins = [Origin(account=AccountId("a"))] + [
        Origin(
            account=AccountId("a"),
            adapter=Adapter(
                id=str(n), name=str(n), generation=str(n), folder=path, rank=8, size_bytes=1
            ),
        )
        for n, path in enumerate(adapters)
    ]
    asked = [(PROMPTS[n % 6], origins[n % 4]) for n in range(24)]

    together = answers(engine, asked)
    alone = [answers(engine, [one])[0] for one in asked]

    assert together == alone
    assert len(set(together)) > 6
