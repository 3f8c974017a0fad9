from __future__ import annotations

from typing import Any

import orjson
import pytest
from anthropic.types.message_create_params import MessageCreateParams
from pydantic import TypeAdapter

from openworks.core.errors import InvalidRequestError, UnsupportedParameterError
from openworks.gateway.compat.anthropic import AnthropicChat
from tests.fakes import FakeClock

_NATIVE: TypeAdapter[Any] = TypeAdapter(MessageCreateParams)
_WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        "strict": True,
    },
}
_HI = {"role": "user", "content": "Hi"}


def _native(model: str = "claude-opus-5", **fields: Any) -> dict[str, Any]:
    fields.setdefault("messages", [_HI])
    request = AnthropicChat(model=model, clock=FakeClock()).request(
        {"model": "anthropic/x", **fields}
    )
    assert request.path == "v1/messages"
    assert request.headers == [(b"anthropic-version", b"2023-06-01")]
    native: dict[str, Any] = orjson.loads(request.body)
    # Unknown fields are dropped by the check. The newest models sample as they see fit, and the
    # official types no longer name what older ones take.
    known = _NATIVE.validate_python(native)
    assert set(known) == set(native) - {"temperature", "top_p", "top_k"}
    return native


def test_a_conversation_keeps_its_turns_and_hoists_instructions() -> None:
    native = _native(
        messages=[
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {"role": "assistant", "content": "Hello."},
            {"role": "developer", "content": [{"type": "text", "text": "In French."}]},
            {"role": "user", "content": "And now?"},
        ],
        stream=True,
        stream_options={"include_usage": True},
        temperature=1.7,
        top_p=0.9,
        top_k=40,
        stop="END",
        user="u-1",
        max_completion_tokens=99,
        seed=7,
        service_tier="auto",
    )
    assert native == {
        "model": "claude-opus-5",
        "max_tokens": 99,
        "stream": True,
        "system": [{"type": "text", "text": "Be short."}, {"type": "text", "text": "In French."}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "Hello."}]},
            {"role": "user", "content": [{"type": "text", "text": "And now?"}]},
        ],
        "temperature": 1,
        "top_p": 0.9,
        "top_k": 40,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u-1"},
    }


def test_results_of_parallel_calls_stand_in_one_turn_with_what_the_user_adds() -> None:
    calls = [
        {
            "id": f"toolu_{city}",
            "type": "function",
            "function": {"name": "weather", "arguments": f'{{"city": "{city}"}}'},
        }
        for city in ("Rome", "Oslo")
    ]
    native = _native(
        messages=[
            _HI,
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "tool_call_id": "toolu_Rome", "content": "hot"},
            {
                "role": "tool",
                "tool_call_id": "toolu_Oslo",
                "content": [{"type": "text", "text": "cold"}],
            },
            {"role": "user", "content": "Which is better?"},
        ],
        tools=[_WEATHER],
    )
    assert [turn["role"] for turn in native["messages"]] == ["user", "assistant", "user"]
    assert native["messages"][1]["content"][0] == {
        "type": "tool_use",
        "id": "toolu_Rome",
        "name": "weather",
        "input": {"city": "Rome"},
    }
    results = native["messages"][2]["content"]
    assert [part["type"] for part in results] == ["tool_result", "tool_result", "text"]
    assert results[1] == {
        "type": "tool_result",
        "tool_use_id": "toolu_Oslo",
        "content": [{"type": "text", "text": "cold"}],
    }
    assert native["tools"] == [
        {
            "name": "weather",
            "description": "Tells the weather.",
            "input_schema": _WEATHER["function"]["parameters"],  # type: ignore[index]
            "strict": True,
        }
    ]


def test_an_answer_that_held_nothing_is_left_out() -> None:
    empty = {"role": "assistant", "content": ""}
    (turn,) = _native(messages=[_HI, empty, {"role": "user", "content": "Still there?"}])[
        "messages"
    ]
    assert [part["text"] for part in turn["content"]] == ["Hi", "Still there?"]


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        (None, None, None),
        ("auto", None, {"type": "auto"}),
        ("none", None, {"type": "none"}),
        ("none", False, {"type": "none"}),
        ("required", None, {"type": "any"}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (
            {"type": "function", "function": {"name": "weather"}},
            True,
            {"type": "tool", "name": "weather"},
        ),
    ],
)
def test_tool_choices(choice: Any, parallel: bool | None, expected: Any) -> None:
    native = _native(tools=[_WEATHER], tool_choice=choice, parallel_tool_calls=parallel)
    assert native.get("tool_choice") == expected


def test_allowed_tools_leave_the_others_out() -> None:
    other = {"type": "function", "function": {"name": "other"}}
    native = _native(
        tools=[_WEATHER, other],
        tool_choice={
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "required",
                "tools": [{"type": "function", "function": {"name": "other"}}],
            },
        },
    )
    assert [tool["name"] for tool in native["tools"]] == ["other"]
    assert native["tools"][0]["input_schema"] == {"type": "object", "properties": {}}
    assert native["tool_choice"] == {"type": "any"}


def test_pictures_and_files() -> None:
    native = _native(
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,QUJD"}},
                    {
                        "type": "image_url",
                        "image_url": {"url": "https://example.com/a.png", "detail": "low"},
                        "cache_control": {"type": "ephemeral"},
                    },
                    {
                        "type": "file",
                        "file": {
                            "filename": "a.pdf",
                            "file_data": "data:application/pdf;base64,JVBE",
                        },
                    },
                ],
            }
        ]
    )
    assert native["messages"][0]["content"] == [
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/jpeg", "data": "QUJD"},
        },
        {
            "type": "image",
            "source": {"type": "url", "url": "https://example.com/a.png"},
            "cache_control": {"type": "ephemeral"},
        },
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"},
            "title": "a.pdf",
        },
    ]


def test_a_schema_for_the_answer() -> None:
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    native = _native(
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    )
    assert native["output_config"] == {"format": {"type": "json_schema", "schema": schema}}


@pytest.mark.parametrize(
    ("model", "limit"),
    [
        ("claude-opus-5-5", 32_000),
        ("claude-haiku-4-5-20251001", 32_000),
        ("claude-3-5-sonnet-20241022", 8192),
        ("claude-3-haiku-20240307", 4096),
        ("something-new", 32_000),
    ],
)
def test_a_length_is_named_when_the_caller_names_none(model: str, limit: int) -> None:
    assert _native(model)["max_tokens"] == limit


@pytest.mark.parametrize(
    ("model", "effort", "thinking", "output"),
    [
        ("claude-opus-5", "minimal", {"type": "adaptive", "display": "summarized"}, "low"),
        ("claude-sonnet-4-6", "high", {"type": "adaptive", "display": "summarized"}, "high"),
        ("claude-opus-5-5", "none", {"type": "disabled"}, None),
        ("claude-opus-4-5-20251101", "medium", {"type": "enabled", "budget_tokens": 8192}, None),
        ("claude-opus-4-20250514", "max", {"type": "enabled", "budget_tokens": 31_999}, None),
        ("claude-3-7-sonnet-20250219", "none", None, None),
        ("claude-opus-5", None, None, None),
    ],
)
def test_efforts(model: str, effort: str | None, thinking: Any, output: str | None) -> None:
    native = _native(model, reasoning_effort=effort)
    assert native.get("thinking") == thinking
    assert native.get("output_config", {}).get("effort") == output


def test_no_room_to_think_is_said() -> None:
    with pytest.raises(InvalidRequestError, match="over 1024 for claude-opus-4-5"):
        _native("claude-opus-4-5", reasoning_effort="low", max_tokens=1000)


def test_thinking_goes_back_as_it_came() -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "xyz"},
    ]
    messages = [_HI, {"role": "assistant", "content": "A", "thinking_blocks": blocks}, _HI]
    assert _native(messages=messages)["messages"][1]["content"] == [
        *blocks,
        {"type": "text", "text": "A"},
    ]


def test_older_models_stop_thinking_when_a_client_lost_their_thoughts() -> None:
    call = {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    answered = {"role": "tool", "tool_call_id": "t1", "content": "hot"}
    lost = [_HI, {"role": "assistant", "tool_calls": [call], "reasoning_content": "hm"}, answered]
    kept = [
        _HI,
        {
            "role": "assistant",
            "tool_calls": [call],
            "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "s"}],
        },
        answered,
    ]
    for messages, thinks in ((lost, False), (kept, True)):
        native = _native(
            "claude-sonnet-4-5", messages=messages, tools=[_WEATHER], reasoning_effort="low"
        )
        assert ("thinking" in native) is thinks


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("logit_bias", {"50": 1}),
        ("frequency_penalty", 0.5),
        ("presence_penalty", -1),
        ("store", True),
        ("audio", {"voice": "alloy", "format": "wav"}),
        ("modalities", ["text", "audio"]),
        ("functions", [{"name": "f"}]),
        ("function_call", "auto"),
        ("web_search_options", {}),
        ("moderation", {"model": "m"}),
        ("verbosity", "low"),
        ("service_tier", "flex"),
        ("never_heard_of", 1),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        _native(**{name: value})
    assert caught.value.param == name
    assert name in caught.value.message


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1, "logprobs": False, "frequency_penalty": 0.0, "presence_penalty": 0, "store": None},
        {"logit_bias": {}, "modalities": ["text"], "verbosity": "medium", "service_tier": "auto"},
        {"metadata": {"a": "b"}, "prediction": {"type": "content", "content": "x"}, "seed": 1},
        {"prompt_cache_key": "k", "prompt_cache_retention": "24h", "tool_choice": "none"},
        {"response_format": {"type": "text"}},
    ],
)
def test_what_changes_no_answer_passes(fields: dict[str, Any]) -> None:
    assert _native(**fields) == _native()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ({"tools": [_WEATHER], "tool_choice": {"type": "custom"}}, "tool_choice.type"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages[0].role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "messages[0].content[0].type",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}
                ]
            },
            "messages[0].content[0].file.file_id",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image_url", "image_url": {"url": "data:image/bmp;base64,AA"}}
                        ],
                    }
                ]
            },
            "messages[0].content[0].image_url.url",
        ),
        (
            {"messages": [_HI, {"role": "assistant", "content": None, "audio": {"id": "a"}}]},
            "messages[1].audio",
        ),
    ],
)
def test_parts_that_cannot_be_honoured_are_refused_by_path(
    fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        _native(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"messages": ["x"]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{"}}],
                    }
                ]
            },
            "messages[0].tool_calls[0].function.arguments",
        ),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "[1]"}}],
                    }
                ]
            },
            "messages[0].tool_calls[0].function.arguments",
        ),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"tools": {}}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [_WEATHER], "tool_choice": "sometimes"}, "tool_choice"),
        ({"stop": [1]}, "stop"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"reasoning_effort": []}, "reasoning_effort"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": "json"}, "response_format"),
        ({"user": 5}, "user"),
    ],
)
def test_wrong_shapes_are_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        _native(**fields)
    assert caught.value.param == param
