"""Adapters in the batched engine's own process: mixed, moved about, broken and deleted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.hf_folder import write_random_adapter, write_random_folder
from benchmarks.random_model import PRESETS
from openworks.core.clock import SystemClock
from openworks.core.errors import AppError, InvalidRequestError
from openworks.engines.pool import EnginePool, EnginesConfig, resident_bytes
from openworks.ports.adapters import Adapter
from openworks.ports.catalog import Deployment, ModelEntry
from openworks.ports.text import CompletionRequest, Sampling
from tests.models import ACCOUNT

torch = pytest.importorskip("torch")

SHAPE = PRESETS["tiny"]
NUM_TOKENS = 12
RANKS = (4, 8, 16, 8, 4, 64)
PROMPTS = [bytes(range(65 + seed, 90 + 2 * seed)).decode("latin-1") for seed in range(7)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models") / "random"
    write_random_folder(made, SHAPE, dtype=torch.float32)
    return made


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Adapter]:
    root = tmp_path_factory.mktemp("adapters")
    return [made_adapter(root / str(seed), rank=rank) for seed, rank in enumerate(RANKS)]


@pytest.fixture
async def pool() -> AsyncIterator[EnginePool]:
    made = EnginePool(EnginesConfig(), clock=SystemClock())
    yield made
    await made.close()


def made_adapter(folder: Path, *, rank: int = 8) -> Adapter:
    write_random_adapter(folder, SHAPE, rank=rank, seed=sum(folder.name.encode()))
    return Adapter(
        id=f"id-{folder.name}",
        name=folder.name,
        generation=f"generation-{folder.name}",
        folder=folder,
        rank=rank,
        size_bytes=(folder / "adapter_model.safetensors").stat().st_size,
    )


def deployed(
    folder: Path, *, slots: int = 8, memory_bytes: int = 1 << 30, cache_tokens: int = 8192
) -> Deployment:
    return Deployment(
        entry=ModelEntry(id="random", name="random", task="text-generation"),
        engine="batched",
        weights=folder,
        context_tokens=256,
        parallel=32,
        cache_tokens=cache_tokens,
        precision="float32",
        adapter_slots=slots,
        adapter_memory_bytes=memory_bytes,
    )


async def tokens_of(
    pool: EnginePool, base: Deployment, adapter: Adapter | None, prompt: str
) -> list[str]:
    """The tokens of a greedy answer."""
    sampling = Sampling(max_tokens=NUM_TOKENS, temperature=0.0, top_logprobs=0)
    request = CompletionRequest(prompt=prompt, sampling=sampling)
    model = pool.completions(replace(base, adapter=adapter), ACCOUNT)
    async with aclosing(model.stream(request)) as chunks:
        return [token.token async for chunk in chunks for token in chunk.logprobs]


async def alone(
    pool: EnginePool, base: Deployment, pairs: Sequence[tuple[Adapter | None, str]]
) -> list[list[str]]:
    return [await tokens_of(pool, base, adapter, prompt) for adapter, prompt in pairs]


def by_peft(folder: Path, adapter: Adapter, prompt: str) -> list[int]:
    from peft import PeftModel
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, adapter.folder).eval()
    ids = tokenizer.encode(prompt).ids
    made = []
    with torch.inference_mode():
        for _ in range(NUM_TOKENS):
            made.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            ids.append(made[-1])
    return made


async def test_many_adapters_in_one_batch_answer_as_each_alone(
    pool: EnginePool, folder: Path, adapters: list[Adapter]
) -> None:
    base = deployed(folder)
    pairs = [(adapter, prompt) for adapter in (None, *adapters) for prompt in PROMPTS[:3]]

    expected = await alone(pool, base, pairs)
    together = await asyncio.gather(*(tokens_of(pool, base, *pair) for pair in pairs))

    assert together == expected
    assert len({tuple(answer) for answer in expected[::3]}) == 1 + len(adapters)
    assert len(pool.residency()) == 1


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's use
async def test_answer_is_that_of_peft(
    pool: EnginePool, folder: Path, adapters: list[Adapter]
) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for adapter in adapters[:3]:
        found = await tokens_of(pool, deployed(folder), adapter, PROMPTS[0])
        expected = by_peft(folder, adapter, PROMPTS[0])
        decoded = [tokenizer.decode([token], skip_special_tokens=False) for token in expected]
        assert found  # it may end early
        assert found == decoded[: len(found)]


async def test_adapters_that_come_and_go_change_nobody_elses_tokens(
    pool: EnginePool, folder: Path, adapters: list[Adapter], tmp_path: Path
) -> None:
    quiet = deployed(folder)
    expected = await alone(pool, quiet, [(None, PROMPTS[0]), *((a, PROMPTS[1]) for a in adapters)])
    await pool.close()
    pool = EnginePool(EnginesConfig(), clock=SystemClock())
    try:
        # Two slots and room for two adapters in memory: six of them push each other out.
        busy = deployed(folder, slots=2, memory_bytes=2 * max(a.size_bytes for a in adapters))
        broken = made_adapter(tmp_path / "broken")
        (broken.folder / "adapter_model.safetensors").write_bytes(b"nothing of use")

        async def fail() -> None:
            with pytest.raises(AppError):
                await tokens_of(pool, busy, broken, PROMPTS[2])

        async def all_of_them() -> list[list[str]]:
            return list(
                await asyncio.gather(
                    tokens_of(pool, busy, None, PROMPTS[0]),
                    *(tokens_of(pool, busy, adapter, PROMPTS[1]) for adapter in adapters),
                )
            )

        rounds = await asyncio.gather(
            all_of_them(), all_of_them(), fail(), all_of_them(), fail(), all_of_them()
        )
        assert [found for found in rounds if found is not None] == [expected] * 4
    finally:
        await pool.close()


async def test_text_goes_on_while_its_cache_is_taken_away(
    pool: EnginePool, folder: Path, adapters: list[Adapter]
) -> None:
    pairs = [(adapter, prompt) for adapter in (None, adapters[0]) for prompt in PROMPTS]
    expected = await alone(pool, deployed(folder), pairs)
    await pool.close()
    pool = EnginePool(EnginesConfig(), clock=SystemClock())
    try:
        small = deployed(folder, cache_tokens=256)  # three texts fit, fourteen want in
        found = await asyncio.gather(*(tokens_of(pool, small, *pair) for pair in pairs))
        assert found == expected
    finally:
        await pool.close()


async def test_adapter_that_does_not_fit_is_refused_by_name_and_others_go_on(
    pool: EnginePool, folder: Path, tmp_path: Path
) -> None:
    base = deployed(folder)
    wide = made_adapter(tmp_path / "wide")
    write_random_adapter(wide.folder, replace(SHAPE, dim=128))
    expected = await tokens_of(pool, base, None, PROMPTS[0])

    async def refused() -> None:
        with pytest.raises(InvalidRequestError, match=r"layers\.0\."):
            await tokens_of(pool, base, wide, PROMPTS[0])

    _, found = await asyncio.gather(refused(), tokens_of(pool, base, None, PROMPTS[0]))
    assert found == expected


async def test_deleted_adapter_gives_its_memory_back_at_once(
    pool: EnginePool, folder: Path, tmp_path: Path
) -> None:
    base = deployed(folder)
    big = [made_adapter(tmp_path / f"big{seed}") for seed in range(3)]
    shape = replace(SHAPE, layers=SHAPE.layers)
    for adapter in big:
        write_random_adapter(adapter.folder, shape, rank=8192)
    size_bytes = (big[0].folder / "adapter_model.safetensors").stat().st_size
    await tokens_of(pool, base, None, PROMPTS[0])
    (row,) = pool.residency()
    assert row.pid is not None
    before = resident_bytes(row.pid)
    for adapter in big:
        await tokens_of(pool, base, adapter, PROMPTS[0])
    held = resident_bytes(row.pid)
    assert held - before > 3 * size_bytes

    for adapter in big:
        pool.forget(adapter.generation)
    await pool.settled()
    await until(lambda: not reported(pool))

    assert resident_bytes(row.pid) - before < size_bytes


async def test_report_says_which_adapter_is_where(
    pool: EnginePool, folder: Path, adapters: list[Adapter]
) -> None:
    base = deployed(folder, slots=1)
    for adapter in adapters[:2]:
        await tokens_of(pool, base, adapter, PROMPTS[0])
    await until(lambda: dict(reported(pool)) == {"0": "memory", "1": "batch"})


def reported(pool: EnginePool) -> list[tuple[str, str]]:
    (row,) = pool.residency()
    assert row.report is not None
    return [(place.name, place.tier) for place in row.report.adapters]


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110 # reports come from another process
            await asyncio.sleep(0.02)
