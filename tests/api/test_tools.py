"""Function calls: chosen, required, named, forbidden, several at once; whole and streamed."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

import openai
import pytest
from openai import OpenAI
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionMessageFunctionToolCall,
    ChatCompletionMessageParam,
)
from pydantic import BaseModel, ConfigDict

from tests.api.asks import CALLING, COLOUR_SCHEMA, HELLO, TIME, WEATHER
from tests.engine_choice import EACH_ENGINE
from tests.server import ServerProcess

pytestmark = EACH_ENGINE


def answer_to(client: OpenAI, **options: Any) -> ChatCompletion:
    answer = client.chat.completions.create(
        **{
            "model": "talker",
            "messages": HELLO,
            "tools": [WEATHER],
            "logit_bias": CALLING,
            "parallel_tool_calls": False,
            "max_tokens": 300,
            "seed": 3,
            **options,
        }
    )
    assert isinstance(answer, ChatCompletion)
    return answer


def calls_of(answer: ChatCompletion) -> list[ChatCompletionMessageFunctionToolCall]:
    calls = answer.choices[0].message.tool_calls or []
    assert all(isinstance(call, ChatCompletionMessageFunctionToolCall) for call in calls)
    return [call for call in calls if call.type == "function"]


def names_of(answer: ChatCompletion) -> list[str]:
    return [call.function.name for call in calls_of(answer)]


def test_auto_returns_the_call_that_the_model_makes(client: OpenAI) -> None:
    answer = answer_to(client, tool_choice="auto")

    (call,) = calls_of(answer)
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["city"] in {"Paris", "Rome"}
    assert re.fullmatch(r"call_[A-Za-z0-9]{24}", call.id)
    assert answer.choices[0].message.content is None
    assert answer.choices[0].finish_reason == "tool_calls"


def test_auto_returns_text_when_the_model_calls_nothing(client: OpenAI) -> None:
    answer = answer_to(client, tool_choice="auto", logit_bias={"65": 100}, max_tokens=4)

    assert answer.choices[0].message.content == "AAAA"
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].finish_reason == "length"


def test_required_makes_a_well_formed_call(client: OpenAI) -> None:
    answer = answer_to(client, tools=[WEATHER, TIME], tool_choice="required")

    (call,) = calls_of(answer)
    assert call.function.name in {"get_weather", "get_time"}
    assert json.loads(call.function.arguments).keys() <= {"city", "hours"}


@pytest.mark.parametrize("stream", [False, True])
def test_required_makes_a_call_of_a_model_that_talks(client: OpenAI, stream: bool) -> None:
    for seed in range(5):
        options: dict[str, Any] = {
            "model": "talker",
            "messages": HELLO,
            "tools": [WEATHER, TIME],
            "tool_choice": "required",
            "parallel_tool_calls": False,
            "max_tokens": 300,
            "seed": seed,
        }
        if stream:
            with client.chat.completions.stream(**options) as events:
                answer: Any = events.get_final_completion()
        else:
            answer = client.chat.completions.create(**options)

        (call,) = answer.choices[0].message.tool_calls
        properties = {"get_weather": {"city"}, "get_time": {"hours"}}
        assert json.loads(call.function.arguments).keys() == properties[call.function.name]
        assert not answer.choices[0].message.content
        assert answer.choices[0].finish_reason == "tool_calls"


def test_a_named_function_is_called_by_a_model_that_talks(client: OpenAI) -> None:
    answer = answer_to(
        client,
        tools=[WEATHER, TIME],
        tool_choice={"type": "function", "function": {"name": "get_time"}},
        logit_bias={},
        n=2,
    )

    for choice in answer.choices:
        (call,) = choice.message.tool_calls or []
        assert call.type == "function"
        assert call.function.name == "get_time"
        assert 0 <= json.loads(call.function.arguments)["hours"] <= 24


def test_a_call_that_was_forced_counts_its_own_tokens(
    client: OpenAI, server: ServerProcess
) -> None:
    answer = answer_to(client, tools=[WEATHER, TIME], tool_choice="required", logit_bias={})

    assert answer._request_id is not None
    record = server.record_of(answer._request_id)
    assert answer.usage is not None
    assert 0 < answer.usage.completion_tokens < 300
    assert record.usage.completion_tokens == answer.usage.completion_tokens
    assert record.usage.prompt_tokens == answer.usage.prompt_tokens > 100


SCHEMA_FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": COLOUR_SCHEMA}}


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_may_call_where_its_text_must_fit_a_schema(client: OpenAI, stream: bool) -> None:
    options: dict[str, Any] = {
        "model": "talker",
        "messages": HELLO,
        "tools": [WEATHER],
        "parallel_tool_calls": False,
        "response_format": SCHEMA_FORMAT,
        "seed": 3,
    }

    def answer(**more: Any) -> Any:
        if not stream:
            return client.chat.completions.create(**options, **more).choices[0]
        with client.chat.completions.stream(**options, **more) as events:
            return events.get_final_completion().choices[0]

    calling, talking = answer(logit_bias=CALLING), answer()

    assert calling.finish_reason == "tool_calls"
    assert calling.message.tool_calls[0].function.name == "get_weather"
    assert talking.finish_reason == "stop"
    assert json.loads(talking.message.content)["colour"] in {"red", "green"}
    assert not talking.message.tool_calls


def test_a_required_call_wins_over_a_response_format(client: OpenAI) -> None:
    answer = answer_to(client, tool_choice="required", response_format=SCHEMA_FORMAT)

    assert names_of(answer) == ["get_weather"]


@pytest.mark.parametrize("name", ["get_weather", "get_time"])
def test_a_named_function_is_the_one_that_is_called(client: OpenAI, name: str) -> None:
    answer = answer_to(
        client,
        tools=[WEATHER, TIME],
        tool_choice={"type": "function", "function": {"name": name}},
    )

    assert names_of(answer) == [name]
    assert answer.choices[0].finish_reason == "tool_calls"


def test_none_calls_nothing(client: OpenAI) -> None:
    answer = answer_to(client, tool_choice="none", logit_bias={}, max_tokens=10)

    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].message.content


def test_none_hides_the_tools_from_the_model(client: OpenAI) -> None:
    with_tools = answer_to(client, tool_choice="none", max_tokens=1)
    without = client.chat.completions.create(model="talker", messages=HELLO, max_tokens=1)

    assert with_tools.usage is not None
    assert without.usage is not None
    assert with_tools.usage.prompt_tokens == without.usage.prompt_tokens


def test_parallel_calls_have_ids_and_arguments_of_their_own(client: OpenAI) -> None:
    answer = answer_to(client, tool_choice="required", parallel_tool_calls=True)

    calls = calls_of(answer)
    assert len(calls) > 1
    assert len({call.id for call in calls}) == len(calls)
    for call in calls[:-1]:  # the last one is cut by max_tokens
        assert json.loads(call.function.arguments)["city"] in {"Paris", "Rome"}


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_without_parallel_calls_there_is_one(client: OpenAI, choice: str) -> None:
    answers = [answer_to(client, tool_choice=choice, seed=seed) for seed in range(5)]

    assert [names_of(answer) for answer in answers] == [["get_weather"]] * 5
    assert {answer.choices[0].finish_reason for answer in answers} == {"tool_calls"}


def test_a_call_that_is_cut_off_ends_with_length(client: OpenAI) -> None:
    answer = answer_to(client, tool_choice="required", max_tokens=40)

    assert answer.choices[0].finish_reason == "length"


@pytest.mark.parametrize("choice", ["auto", "required"])
@pytest.mark.parametrize("parallel", [False, True])
def test_streamed_calls_equal_whole_ones(client: OpenAI, choice: str, parallel: bool) -> None:
    for seed in range(6):
        options: dict[str, Any] = {
            "model": "talker",
            "messages": HELLO,
            "tools": [WEATHER, TIME],
            "tool_choice": choice,
            "parallel_tool_calls": parallel,
            "logit_bias": CALLING,
            "max_tokens": 150,
            "seed": seed,
        }
        whole = client.chat.completions.create(**options)

        calls: dict[int, dict[str, str]] = {}
        reason = None
        for chunk in client.chat.completions.create(**options, stream=True):
            for delta in chunk.choices[0].delta.tool_calls or ():
                call = calls.setdefault(delta.index, {"name": "", "arguments": ""})
                assert delta.function is not None
                call["name"] += delta.function.name or ""
                call["arguments"] += delta.function.arguments or ""
            reason = chunk.choices[0].finish_reason or reason

        assert reason == whole.choices[0].finish_reason
        assert [calls[index] for index in sorted(calls)] == [
            {"name": call.function.name, "arguments": call.function.arguments}
            for call in calls_of(whole)
        ]


def test_stream_tells_id_type_and_name_once(client: OpenAI) -> None:
    chunks = client.chat.completions.create(
        model="talker",
        messages=HELLO,
        tools=[WEATHER],
        tool_choice="required",
        parallel_tool_calls=False,
        logit_bias=CALLING,
        seed=3,
        stream=True,
    )
    deltas = [
        delta
        for chunk in chunks
        for choice in chunk.choices
        for delta in choice.delta.tool_calls or ()
    ]

    assert deltas[0].id is not None
    assert deltas[0].type == "function"
    assert deltas[0].function is not None
    assert deltas[0].function.name == "get_weather"
    for delta in deltas[1:]:
        assert (delta.id, delta.type) == (None, None)
        assert delta.function is not None
        assert delta.function.name is None


def test_a_call_and_its_result_can_be_sent_back(client: OpenAI) -> None:
    answer = answer_to(client, tool_choice="required")
    (call,) = calls_of(answer)
    history: list[Any] = [
        *HELLO,
        answer.choices[0].message.model_dump(),
        {"role": "tool", "tool_call_id": call.id, "content": "Sunny."},
    ]

    again = answer_to(client, messages=history, logit_bias={"65": 100}, max_tokens=2)

    assert again.choices[0].message.content == "AA"


def test_stops_do_not_cut_calls(client: OpenAI) -> None:
    answer = answer_to(client, tool_choice="required", stop=["city", "}"])

    (call,) = calls_of(answer)
    assert "city" in json.loads(call.function.arguments)


class Weather(BaseModel):
    """Get the weather."""

    model_config = ConfigDict(extra="forbid")

    city: Literal["Paris", "Rome"]


def test_parse_helper_reads_the_arguments_of_a_strict_tool(client: OpenAI) -> None:
    parsed = client.chat.completions.parse(
        model="talker",
        messages=HELLO,
        tools=[openai.pydantic_function_tool(Weather)],
        tool_choice="required",
        parallel_tool_calls=False,
        logit_bias=CALLING,
    )

    (call,) = parsed.choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, Weather)


def test_stream_helper_reports_a_finished_call(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="talker",
        messages=HELLO,
        tools=[openai.pydantic_function_tool(Weather)],
        tool_choice="required",
        parallel_tool_calls=False,
        logit_bias=CALLING,
    ) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]

    assert len(done) == 1
    assert isinstance(done[0].parsed_arguments, Weather)


def test_a_model_without_tools_refuses_them_by_name(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="knows no tools") as caught:
        answer_to(client, model="plain")

    assert (caught.value.param, caught.value.code) == ("tools", "unsupported_parameter")


def test_a_choice_that_is_no_tool_is_refused(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="get_rich") as caught:
        answer_to(client, tool_choice={"type": "function", "function": {"name": "get_rich"}})

    assert caught.value.param == "tool_choice"


def test_a_choice_without_tools_is_refused(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="only with 'tools'") as caught:
        client.chat.completions.create(model="talker", messages=HELLO, tool_choice="required")

    assert caught.value.param == "tool_choice"


def test_custom_tools_are_refused_by_their_place(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="only functions are served") as caught:
        answer_to(client, tools=[WEATHER, {"type": "custom", "custom": {"name": "shell"}}])

    assert caught.value.param == "tools[1].type"


def test_a_function_with_a_bad_name_is_refused_by_its_place(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="get weather") as caught:
        answer_to(client, tools=[{"type": "function", "function": {"name": "get weather"}}])

    assert caught.value.param == "tools[0].function.name"


def test_strict_parameters_that_cannot_be_enforced_are_refused(client: OpenAI) -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "f",
            "strict": True,
            "parameters": {
                "type": "object",
                "properties": {"x": {"type": "array", "uniqueItems": True}},
            },
        },
    }
    with pytest.raises(openai.BadRequestError, match="uniqueItems") as caught:
        answer_to(client, tools=[tool])

    assert caught.value.param == "tools[0].function.parameters.properties.x"


def test_a_function_without_parameters_can_be_called(client: OpenAI) -> None:
    answer = answer_to(
        client,
        tools=[{"type": "function", "function": {"name": "ring_bell"}}],
        tool_choice="required",
    )

    assert names_of(answer) == ["ring_bell"]


def test_messages_of_every_role_are_accepted(client: OpenAI) -> None:
    messages: list[ChatCompletionMessageParam] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?", "name": "ada"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "Rain."},
        {"role": "assistant", "content": "It rains."},
        {"role": "user", "content": "Thanks."},
    ]

    assert client.chat.completions.create(model="talker", messages=messages, max_tokens=1).choices
