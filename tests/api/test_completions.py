"""`/v1/completions`: plain continuation."""

from __future__ import annotations

import re
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.api.asks import ASCII, NO_END
from tests.api.raw import post
from tests.api.weights import VOCAB
from tests.engine_choice import EACH_ENGINE
from tests.server import ServerProcess

pytestmark = EACH_ENGINE

OPTIONS: dict[str, Any] = {
    "model": "talker",
    "max_tokens": 8,
    "seed": 1,
    "logit_bias": {**ASCII, **NO_END},
}


def texts(client: OpenAI, prompt: Any, **options: Any) -> list[str]:
    answer = client.completions.create(**{**OPTIONS, "prompt": prompt, **options})
    assert [choice.index for choice in answer.choices] == list(range(len(answer.choices)))
    return [choice.text for choice in answer.choices]


def test_answer_has_an_id_a_model_and_a_text(client: OpenAI) -> None:
    answer = client.completions.create(**OPTIONS, prompt="Hello")

    assert re.fullmatch(r"cmpl-[A-Za-z0-9]{24}", answer.id)
    assert (answer.object, answer.model) == ("text_completion", "talker")
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 8)


async def test_asynchronous_client_reads_a_stream(async_client: AsyncOpenAI) -> None:
    stream = await async_client.completions.create(**OPTIONS, prompt="Hello", stream=True)
    text = "".join([chunk.choices[0].text async for chunk in stream])

    whole = await async_client.completions.create(**OPTIONS, prompt="Hello")
    assert text == whole.choices[0].text


def test_token_ids_continue_like_the_text_that_they_stand_for(client: OpenAI) -> None:
    assert texts(client, list(b"Hello")) == texts(client, "Hello")


def test_each_prompt_of_a_list_has_its_answer(client: OpenAI) -> None:
    assert texts(client, ["Hello", "Bye"]) == [*texts(client, "Hello"), *texts(client, "Bye")]


def test_lists_of_token_ids_are_prompts_of_their_own(client: OpenAI) -> None:
    assert texts(client, [list(b"Hello"), list(b"Bye")]) == texts(client, ["Hello", "Bye"])


def test_n_answers_to_each_prompt_come_prompt_by_prompt(client: OpenAI) -> None:
    found = texts(client, ["Hello", "Bye"], n=2)

    assert found == [*texts(client, "Hello", n=2), *texts(client, "Bye", n=2)]
    assert len(set(found)) == 4


def test_usage_of_several_prompts_is_their_sum(client: OpenAI) -> None:
    answer = client.completions.create(**OPTIONS, prompt=["Hello", "Bye"], n=2)

    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len("Hello") + len("Bye")
    assert answer.usage.completion_tokens == 4 * 8


def test_several_prompts_are_told_apart_on_a_stream(client: OpenAI) -> None:
    found = ["", "", "", ""]
    for chunk in client.completions.create(**OPTIONS, prompt=["Hello", "Bye"], n=2, stream=True):
        (choice,) = chunk.choices
        found[choice.index] += choice.text

    assert found == texts(client, ["Hello", "Bye"], n=2)


def test_stream_ends_each_answer_with_its_reason_and_then_the_usage(client: OpenAI) -> None:
    *chunks, last = client.completions.create(
        **OPTIONS, prompt=["Hello", "Bye"], stream=True, stream_options={"include_usage": True}
    )

    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons.count("length") == 2
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 16


@pytest.mark.parametrize("prompt", ["Hello", list(b"Hello")])
def test_echo_begins_with_the_prompt(client: OpenAI, prompt: Any) -> None:
    assert texts(client, prompt, echo=True) == ["Hello" + texts(client, "Hello")[0]]


def test_echo_on_a_stream_begins_with_the_prompt(client: OpenAI) -> None:
    chunks = client.completions.create(**OPTIONS, prompt="Hello", echo=True, stream=True)

    assert "".join(chunk.choices[0].text for chunk in chunks).startswith("Hello")


def test_echo_of_no_new_tokens_is_the_prompt(client: OpenAI) -> None:
    answer = client.completions.create(**{**OPTIONS, "max_tokens": 0}, prompt="Hello", echo=True)

    assert answer.choices[0].text == "Hello"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 0


def test_sixteen_tokens_are_the_default(client: OpenAI) -> None:
    options = {name: value for name, value in OPTIONS.items() if name != "max_tokens"}

    answer = client.completions.create(**options, prompt="Hello")

    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


def test_logprobs_are_four_lists_side_by_side(client: OpenAI) -> None:
    answer = client.completions.create(**OPTIONS, prompt="Hello", logprobs=3)

    (choice,) = answer.choices
    assert choice.logprobs is not None
    tokens = choice.logprobs.tokens or []
    assert "".join(tokens) == choice.text
    assert choice.logprobs.text_offset == [
        len("".join(tokens[:index])) for index in range(len(tokens))
    ]
    assert all(value <= 0 for value in choice.logprobs.token_logprobs or [])
    assert all(1 <= len(rivals) <= 3 for rivals in choice.logprobs.top_logprobs or [])


def test_logprobs_on_a_stream_go_on_where_the_last_chunk_ended(client: OpenAI) -> None:
    offsets: list[int] = []
    for chunk in client.completions.create(**OPTIONS, prompt="Hello", logprobs=0, stream=True):
        logprobs = chunk.choices[0].logprobs
        assert logprobs is not None
        offsets += logprobs.text_offset or []

    whole = client.completions.create(**OPTIONS, prompt="Hello", logprobs=0).choices[0].logprobs
    assert whole is not None
    assert offsets == whole.text_offset


def test_best_of_returns_the_likeliest(client: OpenAI) -> None:
    answer = client.completions.create(**OPTIONS, prompt="Hello", best_of=6, logprobs=0)
    every = client.completions.create(**OPTIONS, prompt="Hello", n=6, logprobs=0)

    def mean(choice: Any) -> float:
        values = choice.logprobs.token_logprobs
        return float(sum(values) / len(values))

    assert len(answer.choices) == 1
    assert mean(answer.choices[0]) == pytest.approx(max(map(mean, every.choices)), abs=1e-4)


def test_best_of_counts_every_answer(client: OpenAI) -> None:
    answer = client.completions.create(**OPTIONS, prompt="Hello", best_of=5, n=2)

    assert len(answer.choices) == 2
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5 * 8


def test_fields_of_open_models_go_through_extra_body(client: OpenAI) -> None:
    found = {texts(client, "Hello", seed=seed, extra_body={"top_k": 1})[0] for seed in range(3)}

    assert len(found) == 1


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"suffix": "the end"}, "suffix"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"best_of": 21}, "best_of"),
        ({"logprobs": 6}, "logprobs"),
        ({"echo": True, "logprobs": 1}, "logprobs"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"n": 129}, "n"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": ["a"] * 2049}, "prompt"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"prompt": "a" * 5000}, "prompt"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    client: OpenAI, options: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**{**OPTIONS, "prompt": "Hello", **options})

    assert caught.value.param == param


@pytest.mark.parametrize("echo", [False, True])
def test_token_ids_beyond_the_vocabulary_are_refused(client: OpenAI, echo: bool) -> None:
    with pytest.raises(openai.BadRequestError, match="token"):
        client.completions.create(**OPTIONS, prompt=[65, VOCAB], echo=echo)


def test_one_bad_prompt_among_several_fails_the_request_as_a_whole(server: ServerProcess) -> None:
    reply = post(server, "/v1/completions", {**OPTIONS, "prompt": ["Hello", "a" * 5000]})

    assert (reply.status, reply.error()["code"]) == (400, "context_length_exceeded")


def test_one_bad_prompt_among_several_ends_a_stream_with_its_error(server: ServerProcess) -> None:
    body = {**OPTIONS, "prompt": ["Hello", "a" * 5000], "stream": True}

    reply = post(server, "/v1/completions", body)

    assert reply.events()[-1]["error"]["code"] == "context_length_exceeded"


def test_an_embedding_model_is_refused(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="text-embeddings") as caught:
        client.completions.create(model="encoder", prompt="Hello")

    assert (caught.value.code, caught.value.param) == ("wrong_task", "model")


def test_more_prompts_than_the_queue_holds_are_all_answered(client: OpenAI) -> None:
    prompts = [f"Prompt {number}" for number in range(100)]
    whole = texts(client, prompts, max_tokens=2)
    assert len(whole) == 100

    streamed: dict[int, str] = {}
    stream = client.completions.create(**{**OPTIONS, "max_tokens": 2}, prompt=prompts, stream=True)
    for chunk in stream:
        for choice in chunk.choices:
            streamed[choice.index] = streamed.get(choice.index, "") + choice.text
    assert [streamed.get(index, "") for index in range(100)] == whole
