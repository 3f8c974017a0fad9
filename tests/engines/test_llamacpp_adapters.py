"""Adapters on llama.cpp: converted, loaded with the weights, and saying what PEFT says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import gguf
import pytest

from benchmarks.hf_folder import write_random_adapter, write_twin
from benchmarks.random_model import PRESETS
from openworks.core.clock import SystemClock
from openworks.core.errors import InvalidRequestError, ModelUnavailableError
from openworks.core.gguf import read_header
from openworks.engines.llamacpp.adapters import write_gguf
from openworks.engines.pool import EnginePool, EnginesConfig
from openworks.ports.adapters import Adapter
from openworks.ports.catalog import Deployment
from openworks.ports.text import CompletionRequest, Sampling
from tests.models import ACCOUNT, deployment, random_model

torch = pytest.importorskip("torch")

SHAPE = PRESETS["tiny"]
PROMPT = list(b"The quick brown fox")
NUM_TOKENS = 4


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(tmp_path_factory.mktemp("models") / "random.gguf")


@pytest.fixture
async def pool() -> AsyncIterator[EnginePool]:
    made = EnginePool(EnginesConfig(), clock=SystemClock())
    yield made
    await made.close()


def adapter_at(folder: Path, generation: str) -> Adapter:
    return Adapter(
        id=f"id-{generation}",
        name=generation,
        generation=generation,
        folder=folder,
        rank=8,
        size_bytes=(folder / "adapter_model.safetensors").stat().st_size,
    )


async def logprobs(pool: EnginePool, made: Deployment) -> list[tuple[str, float]]:
    sampling = Sampling(max_tokens=NUM_TOKENS, temperature=0.0, top_logprobs=0)
    request = CompletionRequest(prompt=PROMPT, sampling=sampling)
    async with aclosing(pool.completions(made, ACCOUNT).stream(request)) as chunks:
        return [(token.token, token.logprob) async for chunk in chunks for token in chunk.logprobs]


def by_peft(base: Path, folder: Path) -> list[float]:
    """The log probabilities of PEFT's own greedy answer."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(model, folder).eval()
    ids, found = list(PROMPT), []
    with torch.inference_mode():
        for _ in range(NUM_TOKENS):
            scores = torch.log_softmax(adapted(torch.tensor([ids])).logits[0, -1], -1)
            ids.append(int(scores.argmax()))
            found.append(float(scores.max()))
    return found


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's use
@pytest.mark.parametrize("use_rslora", [False, True])
async def test_answer_is_that_of_peft(
    pool: EnginePool, weights: Path, tmp_path: Path, use_rslora: bool
) -> None:
    folder = tmp_path / "adapter"
    write_random_adapter(folder, SHAPE, seed=3, alpha=8.0)
    if use_rslora:
        config = folder / "adapter_config.json"
        config.write_text(config.read_text().replace('"r"', '"use_rslora": true, "r"'))
    write_twin(weights, tmp_path / "twin")

    made = replace(deployment(weights), adapter=adapter_at(folder, f"one-{use_rslora}"))
    found = await logprobs(pool, made)

    expected = by_peft(tmp_path / "twin", folder)
    assert found  # it may end early
    assert [value for _, value in found] == pytest.approx(expected[: len(found)], abs=0.1)


async def test_base_and_two_adapters_answer_side_by_side(
    pool: EnginePool, weights: Path, tmp_path: Path
) -> None:
    adapters = []
    for seed in (1, 2):
        write_random_adapter(tmp_path / str(seed), SHAPE, seed=seed)
        adapters.append(adapter_at(tmp_path / str(seed), str(seed)))
    base = deployment(weights)

    answers = [
        await logprobs(pool, replace(base, adapter=adapter)) for adapter in (None, *adapters)
    ]

    assert len({tuple(answer) for answer in answers}) == 3
    assert [token for token, _ in await logprobs(pool, base)] == [token for token, _ in answers[0]]
    names = [row.deployment for row in pool.residency()]
    assert sorted(names) == ["random", "random+1", "random+2"]


async def test_deleted_adapter_takes_its_process_along(
    pool: EnginePool, weights: Path, tmp_path: Path
) -> None:
    write_random_adapter(tmp_path, SHAPE)
    await logprobs(pool, deployment(weights))
    await logprobs(pool, replace(deployment(weights), adapter=adapter_at(tmp_path, "gone")))

    pool.forget("gone")
    await pool.settled()

    assert [row.deployment for row in pool.residency()] == ["random"]


def test_file_holds_every_pair_and_the_scale(weights: Path, tmp_path: Path) -> None:
    write_random_adapter(tmp_path, SHAPE, alpha=24.0, dtype=torch.bfloat16)
    write_gguf(tmp_path, tmp_path / "made.gguf", read_header(weights))

    reader = gguf.GGUFReader(tmp_path / "made.gguf")
    assert len(reader.tensors) == 2 * 7 * SHAPE.layers
    assert reader.fields["adapter.lora.alpha"].contents() == 24.0
    assert {tensor.tensor_type for tensor in reader.tensors} == {gguf.GGMLQuantizationType.BF16}


def test_tensor_without_a_place_is_named(weights: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    write_random_adapter(tmp_path, SHAPE)
    name = "base_model.model.lm_head.lora_A.weight"
    save_file({name: torch.zeros(8, SHAPE.dim)}, tmp_path / "adapter_model.safetensors")

    with pytest.raises(InvalidRequestError, match="lm_head"):
        write_gguf(tmp_path, tmp_path / "made.gguf", read_header(weights))


async def test_adapter_of_another_model_is_refused_at_load(
    pool: EnginePool, weights: Path, tmp_path: Path
) -> None:
    write_random_adapter(tmp_path, replace(SHAPE, dim=128))

    with pytest.raises(ModelUnavailableError, match="cannot load"):
        await logprobs(pool, replace(deployment(weights), adapter=adapter_at(tmp_path, "wide")))
