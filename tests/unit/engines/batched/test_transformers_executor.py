from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence as SequenceOf
from itertools import accumulate
from pathlib import Path
from typing import Any

import orjson
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402 # after the skip

from openworks.core.errors import InvalidRequestError, ModelUnavailableError  # noqa: E402
from openworks.engines.batched.scheduler import Scheduler, SchedulerConfig  # noqa: E402
from openworks.engines.batched.sequence import Sequence  # noqa: E402
from openworks.engines.batched.step import BlockCopy, Piece, Step  # noqa: E402
from openworks.engines.batched.transformers_executor import TransformersExecutor  # noqa: E402
from tests.unit.engines.batched.families.checkpoints import PROMPT, VOCAB  # noqa: E402
from tests.unit.engines.batched.loop import weights  # noqa: E402

_SHORT = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
_LONG = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt-neox": ("GPTNeoXConfig", _LONG),
    "gpt2": ("GPT2Config", _SHORT),
    "opt": ("OPTConfig", {**_LONG, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    "falcon": ("FalconConfig", _LONG),
    "bloom": ("BloomConfig", {"vocab_size": VOCAB, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "sliding": ("Starcoder2Config", {**_LONG, "num_key_value_heads": 2, "sliding_window": 6}),
    "recurrent": (
        "MambaConfig",
        {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    ),
    "hybrid": (
        "JambaConfig",
        {
            **_LONG,
            "num_key_value_heads": 2,
            "num_experts": 2,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "mamba_d_state": 4,
            "use_mamba_kernels": False,
        },
    ),
}
_FAMILIES = list(_CONFIGS)
"""None of them is read by `families/`; sliding windows and recurrent states cannot go back."""
_TOLERANCE: dict[str, Any] = {"atol": 1e-4, "rtol": 1e-4}


class Sample:
    """A tiny random model in a folder, with what the library itself computes from it."""

    def __init__(self, name: str, folder: Path) -> None:
        config, fields = _CONFIGS[name]
        torch.manual_seed(len(name))
        self.folder = folder
        self.model = transformers.AutoModelForCausalLM.from_config(
            getattr(transformers, config)(**fields), dtype=torch.float32
        )
        with torch.no_grad():
            for weight in self.model.parameters():
                weight.add_(torch.randn_like(weight) * 0.1)
        self.model.eval().save_pretrained(folder)

    def logits(self, token_ids: SequenceOf[int], count: int = 1) -> Any:
        """Those of the last tokens, [count, VOCAB], computed without a cache."""
        with torch.inference_mode():
            found = self.model(input_ids=torch.tensor([list(token_ids)]), use_cache=False)
        return found.logits[0, -count:]

    def answer(self, prompt: SequenceOf[int], num_tokens: int) -> list[int]:
        """What it says when the most likely token is always taken."""
        tokens = list(prompt)
        for _ in range(num_tokens):
            tokens.append(int(self.logits(tokens).argmax()))
        return tokens[len(prompt) :]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sample]:
    return {name: Sample(name, tmp_path_factory.mktemp(name)) for name in _FAMILIES}


@pytest.fixture(params=_FAMILIES)
def sample(request: pytest.FixtureRequest, samples: dict[str, Sample]) -> Sample:
    return samples[request.param]


@pytest.fixture
def neox(samples: dict[str, Sample]) -> Sample:
    return samples["gpt-neox"]


@pytest.fixture
def broken(neox: Sample, tmp_path: Path) -> Path:
    """A copy to be changed, in a folder that errors may name."""
    return Path(shutil.copytree(neox.folder, tmp_path / "acme-7b"))


def _load(folder: Path, **changes: Any) -> TransformersExecutor:
    options: dict[str, Any] = {
        "precision": "float32",
        "device": "cpu",
        "context_tokens": 64,
        "cache_tokens": 256,
        "threads": 1,
    }
    return TransformersExecutor.load(folder, **{**options, **changes})


def _piece(
    token_ids: SequenceOf[int], *, start: int = 0, block: int = 0, num_logits: int = 1
) -> Piece:
    return Piece(token_ids, start, (block,), None, num_logits)


def _equal(found: Any, *expected: Any) -> None:
    torch.testing.assert_close(found, torch.cat(expected), **_TOLERANCE)


def _configure(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_bytes(orjson.dumps({**orjson.loads(path.read_bytes()), **changes}))


def test_a_block_holds_the_longest_sequence(neox: Sample) -> None:
    executor = _load(neox.folder, context_tokens=1000, cache_tokens=200)
    assert (executor.context_tokens, executor.vocab_size) == (64, VOCAB)
    assert (executor.cache.num_blocks, executor.cache.block_tokens) == (3, 64)


def test_a_cache_that_is_shorter_than_the_context_bounds_it(neox: Sample) -> None:
    executor = _load(neox.folder, cache_tokens=20)
    assert executor.context_tokens == 20
    assert (executor.cache.num_blocks, executor.cache.block_tokens) == (1, 20)


def test_a_model_without_a_limit_has_the_context_that_is_asked_for(
    samples: dict[str, Sample],
) -> None:
    assert _load(samples["bloom"].folder, context_tokens=100).context_tokens == 100


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ("auto", "float32"),  # it is small
        ("float32", "float32"),
        ("bfloat16", "bfloat16"),
        ("int8", "bfloat16"),
    ],
)
def test_it_says_what_computes(neox: Sample, wanted: str, chosen: str) -> None:
    executor = _load(neox.folder, precision=wanted)
    assert executor.description == f"transformers {chosen}, 1 threads"


def test_logits_are_float32_in_bfloat16_too(neox: Sample) -> None:
    found = _load(neox.folder, precision="bfloat16").run(Step([_piece(PROMPT)]))
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, neox.logits(PROMPT), atol=0.1, rtol=0.1)


def test_loading_shows_no_progress(neox: Sample, capfd: pytest.CaptureFixture[str]) -> None:
    _load(neox.folder)
    assert capfd.readouterr() == ("", "")


def test_the_library_does_not_warn(broken: Path, caplog: pytest.LogCaptureFixture) -> None:
    _configure(broken, quantization_config={"quant_method": "acme"})  # of which it would
    library = logging.getLogger("transformers")  # has a handler of its own
    library.addHandler(caplog.handler)
    try:
        _load(broken)
    finally:
        library.removeHandler(caplog.handler)
    assert caplog.records == []


def test_logits_of_a_whole_prompt_equal_the_models(sample: Sample) -> None:
    found = _load(sample.folder).run(Step([_piece(PROMPT, num_logits=len(PROMPT))]))
    _equal(found, sample.logits(PROMPT, len(PROMPT)))


def test_a_prompt_in_chunks_and_its_answer_equal_the_whole(sample: Sample) -> None:
    executor = _load(sample.folder)
    assert executor.run(Step([_piece(PROMPT[:7], num_logits=0)])).shape == (0, VOCAB)
    assert executor.run(Step([_piece(PROMPT[7:9], start=7, num_logits=0)])).shape == (0, VOCAB)
    found = [executor.run(Step([_piece(PROMPT[9:15], start=9)]))]
    found += [executor.run(Step([_piece([PROMPT[at]], start=at)])) for at in range(15, 20)]
    _equal(torch.cat(found), sample.logits(PROMPT, 6))


def test_every_chunk_may_want_all_its_logits(sample: Sample) -> None:
    executor = _load(sample.folder)
    found = [
        executor.run(Step([_piece(PROMPT[at : at + 10], start=at, num_logits=10)]))
        for at in (0, 10)
    ]
    _equal(torch.cat(found), sample.logits(PROMPT, 20))


def test_several_tokens_may_follow_what_was_generated(sample: Sample) -> None:
    executor = _load(sample.folder)
    executor.run(Step([_piece(PROMPT[:12])]))
    found = executor.run(Step([_piece(PROMPT[12:], start=12, num_logits=3)]))
    _equal(found, sample.logits(PROMPT, 3))


def test_sequences_share_a_step(sample: Sample) -> None:
    executor = _load(sample.folder)
    executor.run(Step([_piece(PROMPT[:9], block=3)]))
    found = executor.run(
        Step(
            [
                _piece(PROMPT[9:10], start=9, block=3),
                _piece(PROMPT[4:], block=1, num_logits=2),
                _piece(PROMPT[:3], block=0, num_logits=0),
                _piece(PROMPT[:1], block=2),
            ]
        )
    )
    _equal(
        found, sample.logits(PROMPT[:10]), sample.logits(PROMPT[4:], 2), sample.logits(PROMPT[:1])
    )


def test_what_a_block_held_before_does_not_matter(sample: Sample) -> None:
    executor = _load(sample.folder)
    executor.run(Step([_piece([3] * 30)]))
    executor.run(Step([_piece(PROMPT[:10])]))
    _equal(executor.run(Step([_piece(PROMPT[10:], start=10)])), sample.logits(PROMPT))


def test_a_copy_goes_its_own_way(sample: Sample) -> None:
    executor = _load(sample.folder)
    executor.run(Step([_piece(PROMPT)]))
    executor.run(Step([_piece([5], start=20)]))
    # As for a second answer: it computes the prompt's last token again, for its logits.
    copied = Step(
        [_piece([6], start=21), _piece(PROMPT[19:], start=19, block=1)],
        copies=[BlockCopy(source=0, target=1)],
    )
    _equal(executor.run(copied), sample.logits([*PROMPT, 5, 6]), sample.logits(PROMPT))
    found = executor.run(Step([_piece([7], start=22), _piece([8], start=20, block=1)]))
    _equal(found, sample.logits([*PROMPT, 5, 6, 7]), sample.logits([*PROMPT, 8]))


def test_a_sequence_may_begin_again_in_its_middle(sample: Sample) -> None:
    executor = _load(sample.folder)
    executor.run(Step([_piece([*PROMPT, 1, 2, 3])]))
    _equal(executor.run(Step([_piece([9], start=12)])), sample.logits([*PROMPT[:12], 9]))


def _answers(executor: TransformersExecutor, sequences: SequenceOf[Sequence]) -> list[list[int]]:
    """Work through a scheduler until all have their tokens, always taking the most likely."""
    config = SchedulerConfig(max_running=8, max_step_tokens=8)
    scheduler = Scheduler(config, cache=executor.cache, num_slots=executor.num_slots)
    groups: dict[str, list[Sequence]] = {}
    for sequence in sequences:
        groups.setdefault(sequence.account, []).append(sequence)
    for group in groups.values():
        scheduler.add_group(group)
    while (plan := scheduler.plan()) is not None:
        logits = executor.run(plan.step)
        scheduler.computed(plan)
        ends = accumulate(work.piece.num_logits for work in plan.work)
        for work, end in zip(plan.work, ends, strict=True):
            if work.is_last:
                scheduler.append(work.sequence, int(logits[end - 1].argmax()))
                if work.sequence.has_all_tokens:
                    scheduler.end(work.sequence)
    return [sequence.token_ids[sequence.num_prompt :] for sequence in sequences]


def test_answers_through_the_scheduler_are_those_of_each_alone(sample: Sample) -> None:
    executor = _load(sample.folder, context_tokens=32, cache_tokens=32 * 5)
    prompts = [PROMPT[:2], PROMPT, PROMPT[5:14], PROMPT, PROMPT[:1], PROMPT[3:19]]
    lengths = [12, 9, 5, 9, 3, 7]
    answers = _answers(
        executor,
        [
            Sequence(id=id_, token_ids=list(prompt), max_tokens=length, account=str(id_))
            for id_, (prompt, length) in enumerate(zip(prompts, lengths, strict=True))
        ],
    )
    expected = [
        sample.answer(prompt, length) for prompt, length in zip(prompts, lengths, strict=True)
    ]
    assert answers == expected


def test_answers_to_one_prompt_fork_from_it(sample: Sample) -> None:
    executor = _load(sample.folder, context_tokens=32, cache_tokens=32 * 6)
    group = [Sequence(id=id_, token_ids=list(PROMPT), max_tokens=6) for id_ in range(3)]
    assert _answers(executor, group) == [sample.answer(PROMPT, 6)] * 3
    assert group[1].num_cached_tokens == len(PROMPT) - 1


def test_adapters_are_refused(neox: Sample) -> None:
    executor = _load(neox.folder)
    assert executor.num_slots == 0
    with pytest.raises(InvalidRequestError, match="take no adapters"):
        executor.put_adapter(0, weights())


def test_a_device_that_is_not_there_is_named(neox: Sample) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ModelUnavailableError, match="CUDA"):
        _load(neox.folder, device="cuda")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "acme"}, "Models of type 'acme' are not known."),
        ({"model_type": "t5"}, "Models of type 't5' do not write text."),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"hidden_act": "acme"}, "'acme'"),
        ({"num_hidden_layers": 3}, r"lack the tensor 'gpt_neox\.layers\.2\."),
        ({"intermediate_size": 48}, r"is \[32, 64\]; the model has \[32, 48\]\."),
    ],
)
def test_a_configuration_that_cannot_be_served_is_refused(
    broken: Path, changes: dict[str, Any], reason: str
) -> None:
    _configure(broken, **changes)
    with pytest.raises(ModelUnavailableError, match=reason) as caught:
        _load(broken)
    assert "'acme-7b'" in caught.value.message
    assert str(broken.parent) not in caught.value.message


def test_code_that_came_with_a_model_is_not_run(broken: Path) -> None:
    (broken / "acme.py").write_text("raise SystemExit")
    _configure(
        broken, model_type="acme", auto_map={"AutoConfig": "acme.C", "AutoModelForCausalLM": "a.M"}
    )
    with pytest.raises(ModelUnavailableError, match="are not known"):
        _load(broken)


def test_kernels_that_a_configuration_names_are_not_fetched(broken: Path, neox: Sample) -> None:
    _configure(broken, attn_implementation="acme/kernels", experts_implementation="acme/kernels")
    _equal(_load(broken).run(Step([_piece(PROMPT)])), neox.logits(PROMPT))


def test_quantised_weights_are_refused_when_the_library_cannot_read_them(broken: Path) -> None:
    _configure(broken, quantization_config={"quant_method": "acme"})
    tensors = load_file(broken / "model.safetensors")
    tensors["gpt_neox.layers.0.attention.dense.scales"] = torch.ones(1)
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelUnavailableError, match="quantised"):
        _load(broken)


def test_a_model_whose_cache_cannot_be_continued_is_refused(tmp_path: Path) -> None:
    # An encoder, which sees what comes next.
    model = transformers.BertLMHeadModel(transformers.BertConfig(**_LONG))
    model.save_pretrained(tmp_path)
    with pytest.raises(ModelUnavailableError, match="BertLMHeadModel keeps no cache"):
        _load(tmp_path)


def test_pickled_weights_are_not_read(broken: Path) -> None:
    tensors = load_file(broken / "model.safetensors")
    (broken / "model.safetensors").unlink()
    torch.save(tensors, broken / "pytorch_model.bin")
    with pytest.raises(ModelUnavailableError, match=r"holds no \.safetensors") as caught:
        _load(broken)
    assert str(broken.parent) not in caught.value.message


def test_pickled_weights_beside_files_of_other_tools_are_not_read(broken: Path) -> None:
    torch.save(load_file(broken / "model.safetensors"), broken / "pytorch_model.bin")
    (broken / "model.safetensors").rename(broken / "consolidated.safetensors")
    with pytest.raises(ModelUnavailableError, match=r"no file named model\.safetensors"):
        _load(broken)


def test_a_broken_file_is_refused(broken: Path) -> None:
    (broken / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ModelUnavailableError, match=r"'acme-7b'.*header"):
        _load(broken)


def test_a_folder_without_a_configuration_is_refused(broken: Path) -> None:
    (broken / "config.json").unlink()
    with pytest.raises(ModelUnavailableError, match="'acme-7b'") as caught:
        _load(broken)
    assert str(broken.parent) not in caught.value.message
