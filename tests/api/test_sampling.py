"""What decides over tokens: stops, seeds, biases, log probabilities."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion

from tests.api.asks import ASCII, HELLO, NO_END, text_of
from tests.engine_choice import EACH_ENGINE

pytestmark = EACH_ENGINE


def answer_to(client: OpenAI, **options: Any) -> ChatCompletion:
    answer = client.chat.completions.create(
        model="talker",
        messages=HELLO,
        **{"max_tokens": 30, "seed": 7, "logit_bias": {**ASCII, **NO_END}, **options},
    )
    assert isinstance(answer, ChatCompletion)
    return answer


def content(answer: ChatCompletion) -> str:
    text = answer.choices[0].message.content
    assert text is not None
    return text


@pytest.mark.parametrize("length", [1, 2, 5, 9])
def test_a_stop_ends_the_answer_before_it(client: OpenAI, length: int) -> None:
    whole = content(answer_to(client))
    stop = whole[10 : 10 + length]

    answer = answer_to(client, stop=stop)

    assert content(answer) == whole[: whole.find(stop)]
    assert answer.choices[0].finish_reason == "stop"


def test_the_earliest_of_several_stops_ends_the_answer(client: OpenAI) -> None:
    whole = content(answer_to(client))

    answer = answer_to(client, stop=["not in there", whole[20:26], whole[8:12], "nor this"])

    assert content(answer) == whole[: whole.find(whole[8:12])]


def test_a_stop_that_never_comes_changes_nothing(client: OpenAI) -> None:
    whole = answer_to(client)

    answer = answer_to(client, stop=["never to be seen"])

    assert content(answer) == content(whole)
    assert answer.choices[0].finish_reason == "length"


def test_the_beginning_of_a_stop_at_the_end_of_a_stream_is_not_lost(client: OpenAI) -> None:
    whole = content(answer_to(client))

    chunks = list(
        client.chat.completions.create(
            model="talker",
            messages=HELLO,
            max_tokens=30,
            seed=7,
            logit_bias={**ASCII, **NO_END},
            stop=[whole[-3:] + "and more"],
            stream=True,
        )
    )

    assert text_of(chunks) == whole


def test_tokens_of_a_stop_are_counted(client: OpenAI) -> None:
    whole = content(answer_to(client))

    answer = answer_to(client, stop=whole[:1])

    assert content(answer) == ""
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 1


def test_special_tokens_never_leak(client: OpenAI) -> None:
    texts = [content(answer_to(client, seed=seed, logit_bias={})) for seed in range(10)]

    assert not any("<|" in text for text in texts)


def test_the_same_seed_gives_the_same_answer(client: OpenAI) -> None:
    assert len({content(answer_to(client, seed=11)) for _ in range(5)}) == 1


def test_a_seed_gives_the_same_answer_beside_other_requests(client: OpenAI) -> None:
    alone = content(answer_to(client, seed=11))

    with ThreadPoolExecutor(8) as threads:
        beside = list(threads.map(lambda seed: answer_to(client, seed=seed), [11, 12, 13] * 8))

    assert {content(answer) for answer in beside[::3]} == {alone}


def test_another_seed_gives_another_answer(client: OpenAI) -> None:
    assert len({content(answer_to(client, seed=seed)) for seed in range(5)}) == 5


def test_without_a_seed_answers_differ(client: OpenAI) -> None:
    assert len({content(answer_to(client, seed=None)) for _ in range(3)}) == 3


@pytest.mark.parametrize("seed", [0, -1, 2**63 - 1, -(2**63), 2**32 - 1])
def test_any_seed_of_64_bits_repeats_its_answer(client: OpenAI, seed: int) -> None:
    assert content(answer_to(client, seed=seed)) == content(answer_to(client, seed=seed))


def test_temperature_zero_takes_the_likeliest_token(client: OpenAI) -> None:
    assert len({content(answer_to(client, temperature=0, seed=seed)) for seed in range(4)}) == 1


def test_a_bias_of_100_forces_a_token(client: OpenAI) -> None:
    assert content(answer_to(client, logit_bias={str(ord("Z")): 100}, max_tokens=4)) == "ZZZZ"


def test_a_bias_of_minus_100_bans_a_token(client: OpenAI) -> None:
    banned = content(answer_to(client, temperature=0, max_tokens=1))
    assert len(banned) == 1

    answer = answer_to(
        client, temperature=0, logit_bias={**ASCII, str(ord(banned)): -100}, max_tokens=1
    )

    assert content(answer) != banned


def test_penalties_keep_a_model_from_repeating_itself(client: OpenAI) -> None:
    options: dict[str, Any] = {"logit_bias": {"65": 12, "66": 11}, "temperature": 0}

    assert content(answer_to(client, **options, max_tokens=4)) == "AAAA"
    assert "B" in content(answer_to(client, **options, max_tokens=4, frequency_penalty=2.0))


def test_logprobs_tell_each_token_with_its_bytes(client: OpenAI) -> None:
    answer = answer_to(client, logprobs=True, max_tokens=6)

    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert len(logprobs.content) == 6
    assert "".join(token.token for token in logprobs.content) == content(answer)
    assert all(bytes(token.bytes or ()).decode() == token.token for token in logprobs.content)
    assert all(token.logprob <= 0 and token.top_logprobs == [] for token in logprobs.content)


def test_top_logprobs_tell_the_rivals_likeliest_first(client: OpenAI) -> None:
    answer = answer_to(client, logprobs=True, top_logprobs=4, temperature=0, max_tokens=3)

    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    for token in logprobs.content or ():
        values = [rival.logprob for rival in token.top_logprobs]
        assert len(values) == 4
        assert values == sorted(values, reverse=True)
        assert math.fsum(map(math.exp, values)) <= 1.0 + 1e-6


def test_logprobs_are_absent_unless_asked_for(client: OpenAI) -> None:
    assert answer_to(client).choices[0].logprobs is None


def test_logprobs_on_a_stream_equal_those_without(client: OpenAI) -> None:
    answer = answer_to(client, logprobs=True, top_logprobs=2, max_tokens=8)
    chunks = list(
        client.chat.completions.create(
            model="talker",
            messages=HELLO,
            max_tokens=8,
            seed=7,
            logit_bias={**ASCII, **NO_END},
            logprobs=True,
            top_logprobs=2,
            stream=True,
        )
    )

    streamed = [
        token
        for chunk in chunks
        for choice in chunk.choices
        if choice.logprobs is not None
        for token in choice.logprobs.content or ()
    ]
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert [(token.token, len(token.top_logprobs)) for token in streamed] == [
        (token.token, len(token.top_logprobs)) for token in logprobs.content or ()
    ]


def test_logprobs_end_where_a_stop_cuts_the_answer(client: OpenAI) -> None:
    whole = content(answer_to(client, max_tokens=12))

    answer = answer_to(client, logprobs=True, max_tokens=12, stop=whole[6:9])

    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    told = "".join(token.token for token in logprobs.content or ())
    assert told.startswith(content(answer))
    assert len(told) < len(whole)


def test_answers_with_a_stop_are_those_without_it(client: OpenAI) -> None:
    free = answer_to(client, n=3)
    stopped = answer_to(client, n=3, stop="never to be seen")

    assert [choice.message.content for choice in stopped.choices] == [
        choice.message.content for choice in free.choices
    ]
    assert stopped.usage is not None
    assert free.usage is not None
    assert stopped.usage.completion_tokens == free.usage.completion_tokens
