"""`/v1/chat/completions` through the official SDK."""

from __future__ import annotations

import re

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from openworks.ports.catalog import EngineName
from tests.api.asks import ASCII, HELLO, NO_END, text_of
from tests.api.raw import post
from tests.engine_choice import EACH_ENGINE
from tests.server import ServerProcess

pytestmark = EACH_ENGINE


def test_answer_has_an_id_a_model_and_a_message(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="talker", messages=HELLO, max_tokens=5)

    assert re.fullmatch(r"chatcmpl-[A-Za-z0-9]{24}", answer.id)
    assert answer.model == "talker"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content


def test_names_that_openai_code_carries_are_answered_by_the_default_model(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, max_tokens=1)

    assert answer.model == "talker"


async def test_asynchronous_client_is_answered(async_client: AsyncOpenAI) -> None:
    answer = await async_client.chat.completions.create(
        model="talker", messages=HELLO, max_completion_tokens=5
    )

    assert answer.choices[0].message.content


async def test_asynchronous_client_reads_a_stream(async_client: AsyncOpenAI) -> None:
    stream = await async_client.chat.completions.create(
        model="talker", messages=HELLO, max_tokens=5, seed=1, stream=True
    )
    chunks = [chunk async for chunk in stream]

    whole = await async_client.chat.completions.create(
        model="talker", messages=HELLO, max_tokens=5, seed=1
    )
    assert text_of(chunks) == whole.choices[0].message.content


def test_stream_begins_with_the_role_and_ends_with_the_reason(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="talker", messages=HELLO, max_tokens=5, logit_bias=NO_END, stream=True
        )
    )

    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "length"
    assert [choice.finish_reason for chunk in chunks[:-1] for choice in chunk.choices] == [
        None for _ in chunks[:-1]
    ]
    assert len({chunk.id for chunk in chunks}) == 1


def test_stream_helper_reports_events_and_the_final_completion(client: OpenAI) -> None:
    whole = client.chat.completions.create(
        model="talker", messages=HELLO, max_tokens=20, seed=2, logit_bias=ASCII
    )
    text = whole.choices[0].message.content or ""

    with client.chat.completions.stream(
        model="talker",
        messages=HELLO,
        max_tokens=20,
        seed=2,
        logit_bias=ASCII,
        stop=text[-3:],  # the helper wants an answer that is complete
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()

    assert {"chunk", "content.delta", "content.done"} <= set(kinds)
    assert final.choices[0].message.content == text[: text.find(text[-3:])]


async def test_asynchronous_stream_helper_ends_with_the_final_completion(
    async_client: AsyncOpenAI,
) -> None:
    async with async_client.chat.completions.stream(
        model="talker", messages=HELLO, logit_bias={"65": 100}, stop="AAA"
    ) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_completion()

    assert (final.choices[0].finish_reason, final.choices[0].message.content) == ("stop", "")


def test_streaming_response_can_be_read_raw(client: OpenAI) -> None:
    with client.chat.completions.with_streaming_response.create(
        model="talker", messages=HELLO, max_tokens=3
    ) as response:
        assert response.parse().choices[0].message.content


def test_headers_carry_the_request_id_and_the_time_taken(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="talker", messages=HELLO, max_tokens=1
    )

    assert raw.headers["x-request-id"] == raw.parse()._request_id
    assert int(raw.headers["openai-processing-ms"]) >= 0


def test_each_request_has_an_id_of_its_own(client: OpenAI) -> None:
    ids = {client.models.with_raw_response.list().headers["x-request-id"] for _ in range(3)}

    assert len(ids) == 3


def test_max_tokens_ends_the_answer_with_length(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="talker", messages=HELLO, max_tokens=7, logit_bias=NO_END
    )

    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 7


def test_max_completion_tokens_wins_over_max_tokens(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="talker",
        messages=HELLO,
        max_tokens=9,
        max_completion_tokens=4,
        logit_bias=NO_END,
    )

    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4


def test_a_full_context_ends_the_answer_with_length(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="talker",
        messages=[{"role": "user", "content": "a" * 4000}],
        logit_bias=NO_END,
        temperature=0,
    )

    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.total_tokens <= 4096


def test_a_model_that_ends_its_answer_stops(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="talker", messages=HELLO, logit_bias=dict.fromkeys(NO_END, 100)
    )

    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content == ""


def test_n_answers_differ_and_are_counted_together(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="talker", messages=HELLO, max_tokens=6, n=3, seed=5, logit_bias=NO_END
    )

    texts = [choice.message.content for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len(set(texts)) == 3
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 18


def test_n_beyond_what_the_engine_does_at_once_is_answered(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="talker", messages=HELLO, max_tokens=3, n=9, seed=5, logit_bias=NO_END
    )

    assert len({choice.message.content for choice in answer.choices}) == 9
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 27


def test_n_answers_are_told_apart_on_a_stream(client: OpenAI) -> None:
    whole = client.chat.completions.create(
        model="talker", messages=HELLO, max_tokens=6, n=3, seed=5
    )

    chunks = list(
        client.chat.completions.create(
            model="talker", messages=HELLO, max_tokens=6, n=3, seed=5, stream=True
        )
    )

    assert [text_of(chunks, index) for index in range(3)] == [
        choice.message.content for choice in whole.choices
    ]
    ends = [choice.index for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert sorted(ends) == [0, 1, 2]


def test_usage_counts_the_prompt_with_its_template(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="talker", messages=HELLO, max_tokens=1)

    assert answer.usage is not None
    # A token for each marker and each byte: <|im_start|> user \n Hello <|im_end|> \n, and so on.
    assert answer.usage.prompt_tokens == len("\x01user\nHello\x02\n\x01assistant\n")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 1


def test_usage_on_a_stream_equals_usage_without(client: OpenAI) -> None:
    whole = client.chat.completions.create(
        model="talker", messages=HELLO, max_tokens=6, seed=3, n=2
    )
    *chunks, last = client.chat.completions.create(
        model="talker",
        messages=HELLO,
        max_tokens=6,
        seed=3,
        n=2,
        stream=True,
        stream_options={"include_usage": True},
    )

    assert last.choices == []
    assert last.usage is not None
    assert whole.usage is not None
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens
    assert all(chunk.usage is None for chunk in chunks)


def test_usage_is_not_sent_on_a_stream_that_does_not_ask_for_it(client: OpenAI) -> None:
    chunks = client.chat.completions.create(
        model="talker", messages=HELLO, max_tokens=2, stream=True
    )

    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_a_repeated_prompt_is_read_from_the_cache(client: OpenAI, engine: EngineName) -> None:
    messages: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": "A beginning that no other test has. " * 8}
    ]
    first = client.chat.completions.create(model="talker", messages=messages, max_tokens=1)
    again = client.chat.completions.create(model="talker", messages=messages, max_tokens=1)

    assert first.usage is not None
    assert first.usage.prompt_tokens_details is not None
    assert again.usage is not None
    assert again.usage.prompt_tokens_details is not None
    assert (first.usage.prompt_tokens_details.cached_tokens or 0) < 50
    computed = again.usage.prompt_tokens - (again.usage.prompt_tokens_details.cached_tokens or 0)
    # One token has to be computed in any case; the batched engine shares whole blocks.
    assert 1 <= computed <= {"llamacpp": 1, "batched": 16}[engine]


def test_an_answer_can_be_sent_back_as_it_came(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="talker", messages=HELLO, max_tokens=5)
    history = [
        *HELLO,
        answer.choices[0].message.model_dump(),
        {"role": "user", "content": "And now?"},
    ]

    again = client.chat.completions.create(
        model="talker",
        messages=history,  # type: ignore[arg-type] # what everybody does
        max_tokens=1,
    )

    assert again.usage is not None
    assert answer.usage is not None
    assert again.usage.prompt_tokens > answer.usage.prompt_tokens


def test_developer_role_reads_as_system(client: OpenAI) -> None:
    def prompt_tokens(messages: list[ChatCompletionMessageParam]) -> int:
        answer = client.chat.completions.create(model="talker", messages=messages, max_tokens=1)
        assert answer.usage is not None
        return answer.usage.prompt_tokens

    as_developer = prompt_tokens([{"role": "developer", "content": "Be kind."}, *HELLO])

    assert as_developer == prompt_tokens([{"role": "system", "content": "Be kind."}, *HELLO])


def test_text_parts_read_like_one_text(client: OpenAI) -> None:
    in_parts = client.chat.completions.create(
        model="talker",
        messages=[{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
        max_tokens=10,
        seed=4,
    )
    whole = client.chat.completions.create(model="talker", messages=HELLO, max_tokens=10, seed=4)

    assert in_parts.choices[0].message.content == whole.choices[0].message.content


def test_fields_of_open_models_go_through_extra_body(client: OpenAI) -> None:
    answers = {
        client.chat.completions.create(
            model="talker",
            messages=HELLO,
            max_tokens=5,
            seed=seed,
            extra_body={"top_k": 1, "min_p": 0.0, "repeat_penalty": 1.0},
        )
        .choices[0]
        .message.content
        for seed in range(4)
    }

    assert len(answers) == 1  # the likeliest token alone is left to choose from


def test_nulls_stand_for_what_is_left_out(server: ServerProcess) -> None:
    optional = (
        "audio functions logit_bias logprobs max_tokens max_completion_tokens metadata n "
        "parallel_tool_calls prediction reasoning_effort response_format seed service_tier stop "
        "store stream stream_options temperature tool_choice tools top_logprobs top_p user"
    )
    body = dict.fromkeys(optional.split())

    reply = post(
        server,
        "/v1/chat/completions",
        {**body, "model": "talker", "messages": HELLO, "max_tokens": 1},
    )

    assert reply.status == 200


def test_a_stream_is_not_to_be_buffered(server: ServerProcess) -> None:
    body = {"model": "talker", "messages": HELLO, "max_tokens": 1, "stream": True}

    reply = post(server, "/v1/chat/completions", body)

    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["x-accel-buffering"] == "no"
    assert reply.body.endswith(b"data: [DONE]\n\n")


def test_a_refusal_has_its_status_also_where_a_stream_was_asked_for(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="nobody", messages=HELLO, stream=True)
