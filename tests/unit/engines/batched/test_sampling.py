from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("numpy")

from openworks.core.errors import InvalidRequestError
from openworks.engines.batched.sampling import (
    SamplingRules,
    TokenCounts,
    default_rules,
    resolved,
)
from openworks.ports.text import Sampling


def test_what_a_request_leaves_open_is_the_models_default() -> None:
    defaults = default_rules(
        {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.1}
    )
    assert resolved(Sampling(), defaults, num_tokens=9) == SamplingRules(
        temperature=0.6, top_k=20, top_p=0.95, min_p=0.1
    )


def test_what_a_request_says_wins_over_the_models_default() -> None:
    defaults = default_rules({"temperature": 0.6, "top_k": 20, "repetition_penalty": 1.1})
    wanted = Sampling(temperature=0.0, top_k=0, repeat_penalty=1.0, top_p=0.5)
    assert resolved(wanted, defaults, num_tokens=9) == SamplingRules(temperature=0.0, top_p=0.5)


def test_a_model_that_says_nothing_is_sampled_as_openai_does() -> None:
    assert default_rules({}) == SamplingRules(temperature=1.0)


def test_a_model_that_does_not_sample_is_greedy_and_its_filters_do_not_apply() -> None:
    rules = default_rules({"do_sample": False, "temperature": 0.7, "top_k": 20})
    assert rules.is_greedy
    assert resolved(Sampling(temperature=1.0), rules, num_tokens=9) == SamplingRules()


def test_numbers_that_are_none_are_passed_over() -> None:
    assert default_rules({"temperature": None, "top_k": "many", "top_p": True}) == SamplingRules()


@pytest.mark.parametrize("token", [-1, 9])
def test_a_bias_of_a_token_that_does_not_exist_is_refused(token: int) -> None:
    with pytest.raises(InvalidRequestError, match=rf"{token}; .* 0\.\.8") as caught:
        resolved(Sampling(logit_bias={token: 1.0}), SamplingRules(), num_tokens=9)
    assert caught.value.param == "logit_bias"


@given(st.lists(st.integers(0, 300)), st.lists(st.integers(0, 300), max_size=300))
def test_counts_are_of_the_answer_and_ids_of_the_prompt_too(
    prompt: list[int], answer: list[int]
) -> None:
    seen = TokenCounts(prompt)
    for token in answer:
        seen.add(token)
    counts = dict(zip(seen.ids.tolist(), seen.counts.tolist(), strict=True))
    assert counts == {token: answer.count(token) for token in {*prompt, *answer}}
