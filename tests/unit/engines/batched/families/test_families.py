from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from openworks.engines.batched.step import Piece, Step  # noqa: E402 # after the skip
from openworks.engines.batched.torch_executor import TorchExecutor  # noqa: E402
from tests.unit.engines.batched.families.checkpoints import (  # noqa: E402
    PROMPT,
    SAMPLES,
    save_random,
)

_BLOCKS = (5, 2, 7)


@pytest.fixture(scope="module", params=SAMPLES)
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp(request.param)
    model = save_random(request.param, folder)
    with torch.inference_mode():
        expected = model(torch.tensor([PROMPT])).logits[0]
    executor = TorchExecutor.load(
        folder,
        precision="float32",
        device="cpu",
        context_tokens=48,
        cache_tokens=160,
        num_slots=1,
        threads=1,
    )
    return executor, expected


def _logits(executor: TorchExecutor, lengths: Sequence[int]) -> Any:
    """Compute the prompt in parts."""
    found = []
    start = 0
    for length in lengths:
        piece = Piece(PROMPT[start : start + length], start, _BLOCKS, None, length)
        found.append(executor.run(Step([piece])).clone())
        start += length
    return torch.cat(found)


@pytest.mark.parametrize(
    "lengths",
    [(20,), (1,) * 20, (7, 1, 12), (16, 4), (3, 1, 1, 9, 6)],
    ids=["whole", "token-by-token", "chunks", "a-block-first", "ragged"],
)
def test_logits_equal_those_of_transformers(sample: Any, lengths: Sequence[int]) -> None:
    executor, expected = sample
    torch.testing.assert_close(_logits(executor, lengths), expected, atol=1e-4, rtol=0)


def test_sequences_of_one_step_do_not_see_each_other(sample: Any) -> None:
    executor, expected = sample
    for position in range(18):
        executor.run(Step([Piece([PROMPT[position]], position, (4, 3), None, 0)]))
    found = executor.run(
        Step(
            [
                Piece([PROMPT[18]], 18, (4, 3), None, 1),
                Piece(PROMPT, 0, (0, 1), None, 20),
                Piece([PROMPT[0]], 0, (9,), None, 1),
                Piece(PROMPT[:5], 0, (8,), None, 0),
            ]
        )
    )
    torch.testing.assert_close(
        found, torch.cat([expected[18:19], expected, expected[:1]]), atol=1e-4, rtol=0
    )
