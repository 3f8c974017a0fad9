from __future__ import annotations

from typing import Any

import pytest

from openworks.api.openai.chat_request import parse_chat
from openworks.core.errors import InvalidRequestError, UnsupportedParameterError
from openworks.ports.text import JsonFormat

HI = [{"role": "user", "content": "hi"}]


def body(**changes: Any) -> dict[str, Any]:
    return {"model": "m", "messages": HI, **changes}


def test_defaults_leave_every_choice_to_the_model() -> None:
    chat = parse_chat(body())
    assert chat.request.sampling.temperature is None
    assert chat.request.sampling.max_tokens is None
    assert chat.request.n == 1
    assert not chat.stream


def test_newer_name_of_the_token_limit_wins() -> None:
    chat = parse_chat(body(max_tokens=5, max_completion_tokens=7))
    assert chat.request.sampling.max_tokens == 7


def test_developer_speaks_as_system() -> None:
    chat = parse_chat(body(messages=[{"role": "developer", "content": "be brief"}]))
    assert chat.request.messages[0]["role"] == "system"


def test_message_that_the_sdk_dumped_can_be_sent_back() -> None:
    received = {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "reasoning_content": "hm",
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        ],
    }
    answer = {"role": "tool", "tool_call_id": "call_1", "content": "42"}
    chat = parse_chat(body(messages=[*HI, received, answer]))
    assert set(chat.request.messages[1]) == {"role", "content", "reasoning_content", "tool_calls"}


def test_named_tool_choice_becomes_its_name() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    named = {"type": "function", "function": {"name": "f"}}
    assert parse_chat(body(tools=tools, tool_choice=named)).request.tool_choice == "f"


def test_schema_is_taken_out_of_its_wrapping() -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    chat = parse_chat(body(response_format=wanted))
    assert chat.request.response_format == JsonFormat(schema={"type": "object"})
    assert parse_chat(body(response_format={"type": "text"})).request.response_format is None


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"messages": []}, "messages"),
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"seed": 2**63}, "seed"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1"),
        ({"metadata": {"k" * 65: "v"}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"metadata": {str(i): "v" for i in range(17)}}, "metadata"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"tool_choice": "required"}, "tool_choice"),
        (
            {"tools": [{"type": "function", "function": {"name": "no spaces"}}]},
            "tools[0].function.name",
        ),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"mesages": HI}, "mesages"),
    ],
)
def test_value_out_of_range_is_named(changes: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_chat(body(**changes))
    assert caught.value.param == param


@pytest.mark.parametrize(
    "changes",
    [
        {"functions": [{"name": "f"}]},
        {"function_call": "auto"},
        {"web_search_options": {}},
        {"audio": {"voice": "alloy", "format": "wav"}},
        {"modalities": ["text", "audio"]},
        {"service_tier": "flex"},
        {"verbosity": "high"},
    ],
)
def test_parameter_that_no_model_here_can_honour_is_refused_by_name(
    changes: dict[str, Any],
) -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        parse_chat(body(**changes))
    assert caught.value.param in changes


@pytest.mark.parametrize(
    "changes",
    [
        {"user": "u"},
        {"safety_identifier": "u"},
        {"prompt_cache_key": "k"},
        {"prediction": {"type": "content", "content": "x"}},
        {"service_tier": "auto"},
        {"modalities": ["text"]},
        {"temperature": None},
        {"top_k": 5, "min_p": 0.1, "repeat_penalty": 1.1},
    ],
)
def test_parameter_that_changes_no_answer_is_accepted(changes: dict[str, Any]) -> None:
    parse_chat(body(**changes))
