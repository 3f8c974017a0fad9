from __future__ import annotations

from typing import Any

import orjson
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from openworks.core.errors import ProviderError
from openworks.gateway.compat.anthropic import AnthropicChat, AnthropicStream
from openworks.ports.calls import Usage
from tests.fakes import FakeClock
from tests.unit.gateway.compat.streams import (
    assert_every_split_agrees,
    chunks,
    completion,
    events,
    fed,
    finish_reasons,
    joined,
    message_of,
)

_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
_USAGE = {
    "input_tokens": 10,
    "cache_read_input_tokens": 100,
    "cache_creation_input_tokens": 5,
    "output_tokens": 1,
}
_CONTENT: list[dict[str, Any]] = [
    {"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"},
    {"type": "redacted_thinking", "data": "ZW5j"},
    {"type": "text", "text": "I look — “both” 😀.\n", "citations": None},
    {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Zürich"}},
    {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}},
]


def _message(**fields: Any) -> bytes:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-opus-5",
        "content": _CONTENT,
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {**_USAGE, "output_tokens": 42, "output_tokens_details": {"thinking_tokens": 7}},
        **fields,
    }
    Message.model_validate(message)
    return orjson.dumps(message)


def _event(event: dict[str, Any], *, newline: str = "\n") -> bytes:
    if event["type"] not in {"ping", "error", "later_addition"}:
        _EVENT.validate_python(event)
    data = orjson.dumps(event).decode()
    return f"event: {event['type']}{newline}data: {data}{newline}{newline}".encode()


_DELTAS: dict[str, list[list[dict[str, Any]]]] = {
    "thinking": [
        [{"type": "thinking_delta", "thinking": "Let me"}],
        [{"type": "thinking_delta", "thinking": " see."}],
        [{"type": "signature_delta", "signature": "c2ln"}],
    ],
    "text": [
        [{"type": "text_delta", "text": "I look — “both”"}],
        [{"type": "text_delta", "text": " 😀.\n"}],
    ],
    "toolu_1": [
        [{"type": "input_json_delta", "partial_json": ""}],
        [{"type": "input_json_delta", "partial_json": '{"ci'}],
        [{"type": "input_json_delta", "partial_json": 'ty": "Zürich"}'}],
    ],
}


def _stream(*, stop: str = "tool_use", newline: str = "\n", until: str = "message_stop") -> bytes:
    start = {**orjson.loads(_message()), "content": [], "stop_reason": None, "usage": _USAGE}
    script: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    for index, block in enumerate(_CONTENT):
        emptied: dict[str, Any] = {
            key: "" for key in ("thinking", "signature", "text") if key in block
        }
        opened = {**block, **emptied}
        if block["type"] == "tool_use":
            opened["input"] = {}
        script.append({"type": "content_block_start", "index": index, "content_block": opened})
        for (delta,) in _DELTAS.get(block.get("id", block["type"]), []):
            script.append({"type": "content_block_delta", "index": index, "delta": delta})
        script.append({"type": "content_block_stop", "index": index})
    usage = {"output_tokens": 42, "output_tokens_details": {"thinking_tokens": 7}}
    script += [
        {"type": "later_addition", "x": 1},
        {"type": "message_delta", "delta": {"stop_reason": stop}, "usage": usage},
        {"type": "message_stop"},
    ]
    names = [event["type"] for event in script]
    return b"".join(_event(e, newline=newline) for e in script[: names.index(until) + 1])


def _chat() -> AnthropicChat:
    return AnthropicChat(model="claude-opus-5", clock=FakeClock(1_790_000_000.9))


def _translator(*, usage: bool = False) -> AnthropicStream:
    return _chat().stream({"stream_options": {"include_usage": usage}})


def test_a_whole_answer() -> None:
    answer = completion(_chat().answer(_message()))
    assert answer == {
        "id": "msg_1",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": "claude-opus-5",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "I look — “both” 😀.\n",
                    "refusal": None,
                    "reasoning_content": "Let me see.",
                    "thinking_blocks": [_CONTENT[0], _CONTENT[1]],
                    "tool_calls": [
                        {
                            "id": "toolu_1",
                            "type": "function",
                            "function": {"name": "weather", "arguments": '{"city":"Zürich"}'},
                        },
                        {
                            "id": "toolu_2",
                            "type": "function",
                            "function": {"name": "now", "arguments": "{}"},
                        },
                    ],
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {
            "prompt_tokens": 115,
            "completion_tokens": 42,
            "total_tokens": 157,
            "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 5},
            "completion_tokens_details": {"reasoning_tokens": 7},
        },
    }


def test_an_answer_goes_back_as_the_blocks_that_it_came_in() -> None:
    answer: Any = completion(_chat().answer(_message()))
    hello = {"role": "user", "content": "Hi"}
    body: Any = {"messages": [hello, answer["choices"][0]["message"], hello]}
    sent = orjson.loads(_chat().request(body).body)["messages"][1]["content"]
    assert sent == [
        {key: value for key, value in block.items() if key != "citations"} for block in _CONTENT
    ]


def test_a_streamed_answer_is_the_whole_one() -> None:
    streamed = fed(_translator(), _stream())
    whole = completion(_chat().answer(_message()))
    assert joined(streamed) == message_of(whole)
    assert finish_reasons(streamed) == ["tool_calls"]
    parts = chunks(streamed)
    assert {(part.id, part.created, part.model) for part in parts} == {
        ("msg_1", 1_790_000_000, "claude-opus-5")
    }
    assert parts[0].choices[0].delta.role == "assistant"
    assert all(part.usage is None for part in parts)


def test_usage_ends_a_stream_only_when_asked_for_and_is_counted_anyway() -> None:
    asked, unasked = _translator(usage=True), _translator()
    last = chunks(fed(asked, _stream()))[-1]
    fed(unasked, _stream())
    assert last.choices == []
    assert last.usage is not None
    whole = completion(_chat().answer(_message()))
    assert last.usage.model_dump(exclude_none=True) == whole["usage"]
    expected = Usage(prompt_tokens=115, completion_tokens=42, cached_tokens=100, reasoning_tokens=7)
    assert asked.usage == unasked.usage == expected


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_stream_is_the_same_however_it_is_cut(newline: str) -> None:
    data = _stream(newline=newline)
    assert_every_split_agrees(lambda: _translator(usage=True), data)
    assert fed(_translator(), data) == fed(_translator(), _stream())


def test_what_a_tool_of_the_provider_is_told_is_no_call_of_the_callers() -> None:
    block = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}
    delta = {"type": "input_json_delta", "partial_json": '{"query": "x"}'}
    searched = (
        _event({"type": "content_block_start", "index": 9, "content_block": block})
        + _event({"type": "content_block_delta", "index": 9, "delta": delta})
        + _event({"type": "content_block_stop", "index": 9})
    )
    begun = _stream(until="ping")
    data = begun + searched + _stream().removeprefix(begun)
    assert fed(_translator(), data) == fed(_translator(), _stream())


@pytest.mark.parametrize("reason", [None, 5])
def test_a_stream_that_stops_without_a_reason_is_an_error(reason: Any) -> None:
    delta = {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {}}
    data = _stream(until="ping")
    for event in (delta, {"type": "message_stop"}):
        data += f"data: {orjson.dumps(event).decode()}\n\n".encode()
    translator = _translator()
    said = events(fed(translator, data))
    assert orjson.loads(said[-1])["error"]["code"] == "invalid_provider_answer"
    assert translator.failure is not None


@pytest.mark.parametrize(
    ("native", "expected"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("tool_use", "stop"),  # no call was given out
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
        ("pause_turn", "stop"),
    ],
)
def test_reasons_to_stop_without_calls(native: str, expected: str) -> None:
    body = _message(content=[{"type": "text", "text": "x"}], stop_reason=native)
    answer: Any = completion(_chat().answer(body))
    assert answer["choices"][0]["finish_reason"] == expected


def test_calls_that_were_cut_off_are_not_called_complete() -> None:
    assert finish_reasons(fed(_translator(), _stream(stop="max_tokens"))) == ["length"]


def test_an_answer_without_words_or_calls_has_empty_content() -> None:
    answer: Any = completion(_chat().answer(_message(content=[], stop_reason="end_turn")))
    assert answer["choices"][0]["message"]["content"] == ""


@pytest.mark.parametrize("count", [-1, 1.5, "9"])
def test_counts_that_cannot_be_are_an_error(count: Any) -> None:
    message = {**orjson.loads(_message()), "usage": {**_USAGE, "output_tokens": count}}
    with pytest.raises(ProviderError, match="a count was expected"):
        _chat().answer(orjson.dumps(message))


def test_a_refusal_says_why() -> None:
    details = {"type": "refusal", "category": "bio", "explanation": "Not this."}
    body = _message(content=[], stop_reason="refusal", stop_details=details)
    answer: Any = completion(_chat().answer(body))
    assert answer["choices"][0]["message"]["refusal"] == "Not this."


@pytest.mark.parametrize("until", ["message_start", "content_block_delta", "message_delta"])
def test_a_stream_without_its_end_is_an_error_and_not_done(until: str) -> None:
    translator = _translator()
    said = events(fed(translator, _stream(until=until)))
    assert orjson.loads(said[-1])["error"]["code"] == "stream_incomplete"
    assert "[DONE]" not in said
    assert translator.failure is not None
    assert translator.feed(_stream()) == translator.end() == b""


def test_an_error_within_a_stream_keeps_its_words() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    translator = _translator()
    said = events(fed(translator, _stream(until="content_block_delta") + _event(error)))
    assert orjson.loads(said[-1]) == {
        "error": {
            "message": "Overloaded",
            "type": "provider_error",
            "param": None,
            "code": "overloaded_error",
        }
    }
    assert len(said) > 1
    assert translator.failure is not None
    assert translator.failure.message == "Overloaded"


def test_a_broken_stream_ends_with_the_error_it_is_told_and_only_once() -> None:
    translator = _translator()
    translator.feed(_stream(until="content_block_delta"))
    said = events(translator.broken("It went away.", "reset"))
    assert orjson.loads(said[0])["error"]["message"] == "It went away."
    assert translator.broken("Again.", "reset") == b""
    done = _translator()
    fed(done, _stream())
    assert done.broken("Too late.", "reset") == b""
    assert done.failure is None


def test_errors_keep_type_and_message() -> None:
    body = b'{"type":"error","error":{"type":"invalid_request_error","message":"Bad max_tokens"}}'
    assert orjson.loads(_chat().error(400, body)) == {
        "error": {
            "message": "Bad max_tokens",
            "type": "invalid_request_error",
            "param": None,
            "code": "invalid_request_error",
        }
    }


@pytest.mark.parametrize(
    "body", [b"", b"<html>Bad gateway</html>", b'{"error":"x"}', b"\xff", b"[]"]
)
def test_errors_that_are_not_anthropics_are_told_too(body: bytes) -> None:
    error = orjson.loads(_chat().error(502, body))["error"]
    assert error["message"].startswith("anthropic answered with status 502")
    assert error["type"] == "server_error"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["id", "model", "content", "usage", "type", "text", "input", "name", "stop_reason",
             "delta", "message", "content_block", "index", "error", "input_tokens"]
        ),
        inner | st.sampled_from(["text", "tool_use", "thinking", "message_start", "text_delta"]),
        max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip


@given(_JSON)
def test_answers_of_any_shape_are_translated_or_a_providers_error(value: Any) -> None:
    try:
        answer = _chat().answer(orjson.dumps(value))
    except ProviderError:
        return
    completion(answer)


@given(st.lists(_JSON, max_size=4), st.booleans())
def test_streams_of_any_shape_end_done_or_with_an_error(script: list[Any], begun: bool) -> None:
    data = b"".join(b"data: " + orjson.dumps(value) + b"\n\n" for value in script)
    translator = _translator(usage=True)
    said = events(fed(translator, (_stream(until="ping") if begun else b"") + data))
    assert (said[-1] == "[DONE]") is (translator.failure is None)
    assert "[DONE]" not in said[:-1]


@given(st.binary(max_size=60))
def test_bytes_of_any_kind_are_an_error(data: bytes) -> None:
    translator = _translator()
    assert events(fed(translator, data))
    assert translator.failure is not None
    with pytest.raises(ProviderError):
        _chat().answer(data)
