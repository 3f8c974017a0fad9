from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("openvino")

from openworks.engines.batched.openvino.executor import OpenVinoExecutor  # noqa: E402 # the skip
from openworks.engines.batched.spec import UnsupportedModelError  # noqa: E402
from openworks.engines.batched.step import BlockCopy, Piece, Step  # noqa: E402
from tests.unit.engines.batched.families.checkpoints import (  # noqa: E402
    PROMPT,
    SAMPLES,
    save_random,
)

_REFUSED = {
    "gemma2": "capped attention scores",
    "gpt-oss": "mixtures of experts",
}
_SERVED = [name for name in SAMPLES if name not in _REFUSED]
_LONG = [(5 * position + 3) % 97 for position in range(44)]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _load(folder: Path, **options: Any) -> OpenVinoExecutor:
    given = {
        "precision": "float32",
        "context_tokens": 48,
        "cache_tokens": 320,
        "num_slots": 0,
        "threads": 1,
    }
    return OpenVinoExecutor.load(folder, **{**given, **options})


def _logits(
    executor: OpenVinoExecutor, tokens: Sequence[int], lengths: Sequence[int], blocks: Sequence[int]
) -> Any:
    """Compute a prompt in parts."""
    found = []
    start = 0
    for length in lengths:
        piece = Piece(tokens[start : start + length], start, blocks, None, length)
        found.append(executor.run(Step([piece])).clone())
        start += length
    return torch.cat(found)


@pytest.fixture(scope="module", params=_SERVED)
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp(request.param)
    model = save_random(request.param, folder)
    with torch.inference_mode():
        expected = model(torch.tensor([PROMPT])).logits[0]
    return _load(folder), expected


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("llama")
    model = save_random("llama", folder)
    return folder, model


@pytest.mark.parametrize(
    "lengths", [(20,), (1,) * 20, (7, 1, 12)], ids=["whole", "token-by-token", "chunks"]
)
def test_logits_equal_those_of_transformers(sample: Any, lengths: Sequence[int]) -> None:
    executor, expected = sample
    found = _logits(executor, PROMPT, lengths, (5, 2))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", _REFUSED)
def test_what_is_not_computed_is_refused_by_name(name: str, tmp_path: Path) -> None:
    save_random(name, tmp_path)
    with pytest.raises(UnsupportedModelError, match=_REFUSED[name]):
        _load(tmp_path)


def test_chunks_and_decodes_of_one_step_equal_each_alone(llama: Any) -> None:
    folder, model = llama
    executor = _load(folder)
    with torch.inference_mode():
        short = model(torch.tensor([PROMPT])).logits[0]
        long = model(torch.tensor([_LONG])).logits[0]
    _logits(executor, PROMPT[:19], (19,), (4,))
    _logits(executor, _LONG[:40], (40,), (9, 1))
    found = executor.run(
        Step(
            [
                Piece([PROMPT[19]], 19, (4,), None, 1),
                Piece(PROMPT, 0, (0,), None, 20),
                Piece(_LONG[40:], 40, (9, 1, 7), None, 2),
                Piece(_LONG[:35], 0, (3, 2), None, 0),
            ]
        )
    )
    expected = torch.cat([short[19:], short, long[-2:]])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    rest = executor.run(Step([Piece(_LONG[35:], 35, (3, 2), None, 1)]))
    torch.testing.assert_close(rest, long[-1:], atol=1e-4, rtol=0)


def test_a_step_of_which_no_logits_are_wanted_returns_none(llama: Any) -> None:
    folder, _ = llama
    found = _load(folder).run(Step([Piece(PROMPT, 0, (0,), None, 0)]))
    assert found.shape == (0, 97)


def test_a_copied_block_serves_the_sequence_that_got_it(llama: Any) -> None:
    folder, model = llama
    executor = _load(folder)
    other = [*_LONG[:40], 11, 12]
    with torch.inference_mode():
        expected = model(torch.tensor([other])).logits[0]
    _logits(executor, _LONG, (44,), (6, 3))
    found = executor.run(
        Step([Piece(other[40:], 40, (6, 8), None, 2)], copies=[BlockCopy(source=3, target=8)])
    )
    torch.testing.assert_close(found, expected[-2:], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("precision", "error"), [("bfloat16", 0.03), ("int8", 0.03), ("int4", 0.2)]
)
def test_other_precisions_come_close_to_float32(llama: Any, precision: str, error: float) -> None:
    folder, _ = llama
    expected = _logits(_load(folder), PROMPT, (20,), (0,))
    found = _logits(_load(folder, precision=precision), PROMPT, (20,), (0,))
    assert not torch.equal(found, expected)
    assert float((found - expected).norm() / expected.norm()) < error


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8", "int4"])
def test_weights_stay_for_as_long_as_the_executor(llama: Any, precision: str) -> None:
    folder, _ = llama
    executor = _load(folder, precision=precision)
    first = _logits(executor, PROMPT, (20,), (0,))
    gc.collect()
    for length in (1, 3, 20):
        again = _logits(executor, PROMPT[:length], (length,), (0,))
        torch.testing.assert_close(again, first[:length], atol=0.05, rtol=0.05)


def test_the_context_is_what_model_cache_and_settings_allow(llama: Any) -> None:
    folder, _ = llama
    assert _load(folder).context_tokens == 48
    assert _load(folder, context_tokens=4096).context_tokens == 64
    executor = _load(folder, cache_tokens=33, context_tokens=4096)
    assert executor.cache.num_blocks == 2
    assert executor.cache.block_tokens == 32
