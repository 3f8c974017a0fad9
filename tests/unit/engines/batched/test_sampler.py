from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

import numpy as np
import torch

from openworks.engines.batched.randomness import uniform
from openworks.engines.batched.sampler import Sampler
from openworks.engines.batched.sampling import (
    Choice,
    Draw,
    SamplingRules,
    TokenCounts,
)

GREEDY = SamplingRules(temperature=0.0)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def choose(rows: list[list[float]], *draws: Draw, num_tokens: int = 0) -> list[Choice | None]:
    logits = torch.tensor(rows, dtype=torch.float32)
    return Sampler(num_tokens or logits.shape[1]).choose(logits, draws)


def token(row: list[float], draw: Draw) -> int:
    (choice,) = choose([row], draw)
    assert choice is not None
    return choice.token


def packed(allowed: set[int], num_tokens: int) -> np.ndarray:
    bits = np.zeros((num_tokens + 31) // 32 * 32, dtype=np.uint8)
    bits[list(allowed)] = 1
    return np.packbits(bits, bitorder="little").view(np.int32)


def seen(*answer: int, prompt: tuple[int, ...] = ()) -> TokenCounts:
    counts = TokenCounts(prompt)
    for each in answer:
        counts.add(each)
    return counts


def reference(row: list[float], draw: Draw) -> int:
    """The same draw, token by token, from the definitions."""
    rules = draw.rules
    order = sorted(range(len(row)), key=lambda token: (-row[token], token))
    best = max(row)
    weights = [math.exp((row[each] - best) / rules.temperature) for each in order]
    count = rules.top_k or len(row)
    whole = sum(weights[:count])
    if rules.top_p < 1:
        before, kept = 0.0, 0
        while kept < count and before < rules.top_p * whole:
            before, kept = before + weights[kept], kept + 1
        count = max(1, kept)
    count = max(1, sum(weight >= rules.min_p for weight in weights[:count]))
    left = sorted(zip(order, weights, strict=True))  # nothing filtered: by id
    if rules.filters:
        left = list(zip(order, weights, strict=True))[:count]
    target = uniform(draw.seed, draw.answer, draw.position) * sum(weight for _, weight in left)
    for each, weight in left:
        if (target := target - weight) < 0:
            return each
    return left[-1][0]


rules_strategy = st.builds(
    SamplingRules,
    temperature=st.sampled_from([0.3, 0.8, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 2, 5, 63, 64, 65, 199, 200, 1000]),
    top_p=st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.99, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
)
draws_strategy = st.builds(
    Draw, rules=rules_strategy, seed=st.integers(0, 2**64), position=st.integers(0, 9)
)
logit = st.one_of(st.integers(-3, 3).map(float), st.floats(-6, 6, width=32))


@settings(max_examples=300, deadline=None)
@given(st.lists(logit, min_size=1, max_size=200), draws_strategy)
def test_a_draw_is_the_inverse_of_the_filtered_distribution(row: list[float], draw: Draw) -> None:
    assert token(row, draw) == reference(row, draw)


@pytest.mark.parametrize("spread", [0.0, 0.01, 3.0])
def test_a_draw_beyond_the_first_candidates_is_that_of_the_whole_vocabulary(spread: float) -> None:
    generator = torch.Generator().manual_seed(3)
    # Of tenths, so that many are equal, also where the candidates end.
    row = [round(each, 1) for each in (torch.randn(9000, generator=generator) * spread).tolist()]
    for seed in range(8):
        draw = Draw(rules=SamplingRules(top_p=0.97, temperature=1.3), seed=seed)
        assert token(row, draw) == reference(row, draw)


@settings(max_examples=50, deadline=None)
@given(st.lists(draws_strategy, min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_a_token_does_not_depend_on_what_shares_the_batch(
    draws: list[Draw], random: object
) -> None:
    generator = torch.Generator().manual_seed(len(draws))
    logits = torch.randn(len(draws), 300, generator=generator) * 2
    # Some rows with all that a row can have, so that the others pass through it as well.
    draws[0] = replace(
        draws[0],
        rules=replace(draws[0].rules, logit_bias={3: 2.0}, frequency_penalty=1.0, top_logprobs=2),
        seen=seen(3, 4, 4),
        allowed=packed(set(range(250)), 300),
        banned=(7,),
    )
    sampler = Sampler(300)
    alone = [sampler.choose(logits[row : row + 1], [draw])[0] for row, draw in enumerate(draws)]
    assert sampler.choose(logits, draws) == alone


def test_tokens_come_as_often_as_they_are_likely() -> None:
    probabilities = [0.5, 0.25, 0.15, 0.1]
    row = [2 * math.log(each) for each in probabilities]  # halved again by the temperature
    rules = SamplingRules(temperature=2.0)
    draws = [Draw(rules=rules, seed=1, position=position) for position in range(4000)]
    tokens = [each.token for each in choose([row] * 4000, *draws) if each is not None]
    for each, probability in enumerate(probabilities):
        deviation = math.sqrt(4000 * probability * (1 - probability))
        assert abs(tokens.count(each) - 4000 * probability) < 4 * deviation


def test_the_likeliest_token_is_taken_at_temperature_0_and_the_first_of_equal_ones() -> None:
    assert token([1.0, 5.0, 5.0, 2.0], Draw(rules=GREEDY, seed=3)) == 1


def test_a_temperature_too_small_to_divide_by_is_none() -> None:
    assert token([1.0, 1.5], Draw(rules=SamplingRules(temperature=1e-40))) == 1


def test_frequency_and_presence_count_the_answer_and_not_the_prompt() -> None:
    row = [3.0, 2.5, 2.0]
    frequency = replace(GREEDY, frequency_penalty=0.4)
    presence = replace(GREEDY, presence_penalty=0.7)
    prompt = (0, 0, 0, 0)
    assert token(row, Draw(rules=frequency, seen=seen(prompt=prompt))) == 0
    assert token(row, Draw(rules=frequency, seen=seen(0, prompt=prompt))) == 0
    assert token(row, Draw(rules=frequency, seen=seen(0, 0, prompt=prompt))) == 1
    assert token(row, Draw(rules=presence, seen=seen(prompt=prompt))) == 0
    assert token(row, Draw(rules=presence, seen=seen(0, prompt=prompt))) == 1
    assert token(row, Draw(rules=presence, seen=seen(0, 0, 0, 1))) == 0  # however often


def test_repetitions_of_prompt_and_answer_lose_whatever_their_sign() -> None:
    rules = replace(GREEDY, repeat_penalty=2.0)
    assert token([3.0, 2.0], Draw(rules=rules, seen=seen(prompt=(0,)))) == 1
    assert token([3.0, 2.0], Draw(rules=rules, seen=seen(0))) == 1
    assert token([-1.0, -1.5], Draw(rules=rules, seen=seen(0))) == 1


def test_a_bias_bans_or_forces_a_token() -> None:
    row = [5.0, 1.0, 0.0]
    assert token(row, Draw(rules=replace(GREEDY, logit_bias={0: -100.0}))) == 1
    assert token(row, Draw(rules=SamplingRules(logit_bias={2: 100.0}), seed=5)) == 2


@given(st.integers(0, 2**64), st.sets(st.integers(0, 69), min_size=1), st.sampled_from([0.9, 1.0]))
def test_only_allowed_tokens_are_drawn(seed: int, allowed: set[int], top_p: float) -> None:
    row = [float(each % 7) for each in range(70)]
    draw = Draw(
        rules=SamplingRules(temperature=3.0, top_p=top_p), seed=seed, allowed=packed(allowed, 70)
    )
    assert token(row, draw) in allowed


def test_a_banned_token_is_not_taken() -> None:
    assert token([5.0, 1.0, 0.0], Draw(rules=GREEDY, banned=(0, 1))) == 2


def test_padding_and_unused_ids_are_never_tokens() -> None:
    logits = torch.tensor([[1.0, 9.0, 2.0, 8.0, 8.0]])
    rules = SamplingRules(temperature=0.0, top_logprobs=4)
    (choice,) = Sampler(3, unused=[1]).choose(logits, [Draw(rules=rules)])
    assert choice is not None
    assert choice.token == 2
    assert [each for each, _ in choice.top] == [2, 0, 1]
    assert choice.logprob == pytest.approx(-math.log(1 + math.exp(-1)))
    assert choice.top[2][1] == -9999.0


@pytest.mark.parametrize("broken", [[math.nan, 1.0, 2.0], [1.0, math.inf, 2.0], [-math.inf] * 3])
@pytest.mark.parametrize("rules", [GREEDY, SamplingRules(), SamplingRules(top_p=0.5)])
def test_a_broken_row_has_no_token_and_its_neighbours_have_theirs(
    broken: list[float], rules: SamplingRules
) -> None:
    fine = [0.0, 50.0, 0.0]
    first, second, third = choose([fine, broken, fine], *[Draw(rules=rules)] * 3)
    assert second is None
    assert first == third == Choice(1)


def test_a_row_whose_tokens_are_all_ruled_out_has_none() -> None:
    first, second = choose(
        [[1.0, 2.0], [1.0, 2.0]],
        Draw(rules=GREEDY, allowed=packed({0}, 2), banned=(0,)),
        Draw(rules=GREEDY),
    )
    assert (first, second) == (None, Choice(1))


def test_log_probabilities_are_the_models_own() -> None:
    row = [1.0, 3.0, 2.0, -4.0]
    logprobs = torch.tensor(row).log_softmax(-1).tolist()
    rules = SamplingRules(
        temperature=0.0,
        logit_bias={1: -100.0},
        repeat_penalty=4.0,
        top_p=0.1,
        top_logprobs=2,
    )
    draw = Draw(rules=rules, seen=seen(2), allowed=packed({0, 2}, 4))
    (choice,) = choose([row], draw)
    assert choice is not None
    assert choice.token == 0
    assert choice.logprob == pytest.approx(logprobs[0])
    assert [each for each, _ in choice.top] == [1, 2]
    assert [each for _, each in choice.top] == pytest.approx([logprobs[1], logprobs[2]])


def test_rows_get_as_many_rivals_as_they_want() -> None:
    row = [1.0, 3.0, 2.0]
    choices = choose(
        [row] * 4, *[Draw(rules=replace(GREEDY, top_logprobs=top)) for top in (None, 0, 2, 20)]
    )
    assert [None if each is None else len(each.top) for each in choices] == [0, 0, 2, 3]
    assert [each is not None and each.logprob is not None for each in choices] == [
        False,
        True,
        True,
        True,
    ]


def test_logits_are_not_written_to() -> None:
    logits = torch.randn(2, 40)
    before = logits.clone()
    rules = SamplingRules(logit_bias={1: 5.0}, frequency_penalty=1.0, top_p=0.9, top_logprobs=1)
    draw = Draw(rules=rules, seen=seen(1), banned=(2,), allowed=packed({1, 2, 3}, 40))
    Sampler(40).choose(logits, [draw, Draw(rules=SamplingRules())])
    assert torch.equal(logits, before)
