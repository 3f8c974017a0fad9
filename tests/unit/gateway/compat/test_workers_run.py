from __future__ import annotations

from typing import Any

import orjson
import pytest
from openai.types import CompletionCreateParams, EmbeddingCreateParams
from openai.types.chat import CompletionCreateParams as ChatParams
from pydantic import TypeAdapter

from openworks.core.errors import InvalidRequestError, ProviderError, UnsupportedParameterError
from openworks.gateway.compat.workers_run import RunCall, run_embeddings, run_text
from openworks.ports.calls import Usage
from tests.unit.gateway.compat.streams import assert_every_split_agrees, events, fed

_CHAT: TypeAdapter[Any] = TypeAdapter(ChatParams)
_COMPLETION: TypeAdapter[Any] = TypeAdapter(CompletionCreateParams)
_EMBEDDING: TypeAdapter[Any] = TypeAdapter(EmbeddingCreateParams)
_MODEL = "@cf/meta/llama-3.1-8b-instruct"
_USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}


def _run(**fields: Any) -> RunCall:
    call = run_text(_MODEL, fields)
    (_COMPLETION if call.operation == "completions" else _CHAT).validate_python(call.body)
    return call


def _answer(message: dict[str, Any]) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    return orjson.dumps({"id": "x", "choices": [choice], "usage": _USAGE})


def test_a_prompt_is_a_message_of_a_user() -> None:
    call = _run(prompt="Hi", temperature=0.5, top_k=3, repetition_penalty=1.1, lora=None)
    assert call.operation == "chat"
    assert call.body == {
        "model": _MODEL,
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 256,
        "temperature": 0.5,
        "top_k": 3,
        "repeat_penalty": 1.1,
    }
    assert call.answer(_answer({"content": "Hello"})) == {"response": "Hello", "usage": _USAGE}


def test_a_raw_prompt_is_completed_as_it_is() -> None:
    call = _run(prompt="[INST]Hi", raw=True, max_tokens=9)
    assert call.operation == "completions"
    assert call.body == {"model": _MODEL, "prompt": "[INST]Hi", "max_tokens": 9}
    body = orjson.dumps({"choices": [{"index": 0, "text": "Yo"}], "usage": _USAGE})
    assert call.answer(body) == {"response": "Yo", "usage": _USAGE}


def test_tools_in_both_shapes_and_functions() -> None:
    function = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
    call = _run(
        prompt="Hi",
        tools=[function, {"type": "function", "function": function}],
        functions=[{**function, "code": "return 1"}],
    )
    assert call.body["tools"] == [{"type": "function", "function": function}] * 3


def test_calls_come_with_their_arguments_parsed() -> None:
    tool_call = {
        "id": "c",
        "type": "function",
        "function": {"name": "f", "arguments": '{"a":1}'},
    }
    result = _run(prompt="Hi").answer(_answer({"content": None, "tool_calls": [tool_call]}))
    assert result == {
        "response": None,
        "tool_calls": [{"name": "f", "arguments": {"a": 1}}],
        "usage": _USAGE,
    }


def test_results_without_an_id_answer_calls_in_their_order() -> None:
    calls = [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": "{}"}]
    body = _run(
        messages=[
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "", "tool_calls": calls},
            {"role": "tool", "name": "f", "content": "1"},
            {"role": "tool", "name": "g", "content": "2"},
        ]
    ).body
    messages: Any = body["messages"]
    assert messages[1]["tool_calls"] == [
        {
            "id": "call_1_0",
            "type": "function",
            "function": {"name": "f", "arguments": '{"a":1}'},
        },
        {"id": "call_1_1", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    assert [message["tool_call_id"] for message in messages[2:]] == ["call_1_0", "call_1_1"]


def test_openais_own_messages_pass_as_they_are() -> None:
    messages = [
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "c", "content": "1"},
    ]
    assert _run(messages=messages).body["messages"] == messages


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"type": "object"}, {"name": "response", "schema": {"type": "object"}}),
        (
            {"name": "mine", "schema": {"type": "object"}},
            {"name": "mine", "schema": {"type": "object"}},
        ),
    ],
)
def test_json_mode_takes_a_bare_schema_and_returns_the_object(given: Any, expected: Any) -> None:
    call = _run(prompt="Hi", response_format={"type": "json_schema", "json_schema": given})
    assert call.body["response_format"] == {"type": "json_schema", "json_schema": expected}
    assert call.answer(_answer({"content": '{"a": [1]}'}))["response"] == {"a": [1]}


@pytest.mark.parametrize("fields", [{"prompt": "Hi"}, {"prompt": "Hi", "raw": True}])
def test_adapter_is_part_of_the_models_name(fields: dict[str, Any]) -> None:
    call = _run(**fields, lora="pirate")

    assert (call.body["model"], call.lora) == (f"{_MODEL}+pirate", "pirate")


@pytest.mark.parametrize("raw", [True, "true"])
def test_raw_messages_are_said_one_after_the_other(raw: Any) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]

    call = _run(messages=messages, raw=raw)

    assert (call.operation, call.body["prompt"]) == ("completions", "Be brief.\nHi")


@pytest.mark.parametrize("content", ['{"a": ', "5", None, ""])
def test_json_mode_that_failed_says_so_in_cloudflares_words(content: str | None) -> None:
    call = _run(prompt="Hi", response_format={"type": "json_object"})
    with pytest.raises(ProviderError, match=r"^JSON Mode couldn't be met$"):
        call.answer(_answer({"content": content}))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": "x", "best_of": 2}, "best_of"),
        ({"prompt": "x", "stream": True, "response_format": {"type": "json_object"}}, "stream"),
        ({"prompt": "x", "raw": True, "tools": []}, "tools"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        run_text(_MODEL, fields)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"messages": "x"}, "messages"),
        ({"messages": [1]}, "messages[0]"),
        ({"messages": [], "raw": True}, "messages"),
        ({"messages": [{"role": "user"}], "raw": True}, "messages[0]"),
        ({"prompt": "x", "lora": 5}, "lora"),
        ({"prompt": "x", "tools": {}}, "tools"),
        ({"prompt": "x", "response_format": []}, "response_format"),
    ],
)
def test_wrong_shapes_are_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        run_text(_MODEL, fields)
    assert caught.value.param == param


def _chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return b"data: " + orjson.dumps({"id": "x", "choices": [choice], "usage": None}) + b"\n\n"


_DONE = b"data: [DONE]\n\n"
_COUNTS = b"data: " + orjson.dumps({"id": "x", "choices": [], "usage": _USAGE}) + b"\n\n"
_STREAM = (
    _chunk({"role": "assistant", "content": ""})
    + _chunk({"reasoning_content": "hm"})
    + _chunk({"content": "Hé"})
    + _chunk({"content": "llo"})
    + _chunk({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]})
    + _chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]})
    + _chunk({"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]})
    + _chunk({}, "tool_calls")
    + _COUNTS
    + _DONE
)


def test_a_stream_is_told_in_lines_of_response() -> None:
    call = _run(prompt="Hi", stream=True)
    assert call.body["stream_options"] == {"include_usage": True}
    translator = call.stream()
    *lines, done = events(fed(translator, _STREAM))
    assert done == "[DONE]"
    assert [orjson.loads(line) for line in lines] == [
        {"response": "", "reasoning_content": "hm"},
        {"response": "Hé"},
        {"response": "llo"},
        {"response": "", "tool_calls": [{"name": "f", "arguments": {"a": 1}}]},
        {"response": "", "usage": _USAGE},
    ]
    assert translator.usage == Usage(prompt_tokens=3, completion_tokens=5)
    assert translator.failure is None


def test_a_stream_of_completions() -> None:
    chunk = b'data: {"choices":[{"index":0,"text":"Yo","finish_reason":null}]}\n\n'
    said = fed(_run(prompt="x", raw=True, stream=True).stream(), chunk + _DONE)
    assert said == b'data: {"response":"Yo"}\n\ndata: [DONE]\n\n'


def test_a_stream_is_the_same_however_it_is_cut() -> None:
    assert_every_split_agrees(_run(prompt="Hi", stream=True).stream, _STREAM)


def test_calls_that_were_cut_off_are_told_as_far_as_they_came() -> None:
    cut = _STREAM.replace(b'"arguments":"1}"', b'"arguments":"1"')
    line = events(fed(_run(prompt="Hi", stream=True).stream(), cut))[3]
    assert orjson.loads(line)["tool_calls"] == [{"name": "f", "arguments": '{"a":1'}]


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (b'data: {"error":{"message":"No.","code":"engine"}}\n\n', "engine", "No."),
        (_chunk({"content": "x"}), "stream_incomplete", "The stream ended before its last event."),
        (b"data: {]\n\n", "invalid_provider_answer", None),
        (b'data: {"choices":[{"delta":5}]}\n\n', "invalid_provider_answer", None),
        (b'data: {"choices":[{"delta":{"tool_calls":[{}]}}]}\n\n', "invalid_provider_answer", None),
    ],
)
def test_a_stream_that_fails_ends_with_an_error(
    data: bytes, code: str, message: str | None
) -> None:
    translator = _run(prompt="Hi", stream=True).stream()
    last = orjson.loads(events(fed(translator, data))[-1])
    assert last["errors"][0]["code"] == code
    assert message is None or last["errors"][0]["message"] == message
    assert translator.failure is not None


@pytest.mark.parametrize(("text", "inputs"), [("a", ["a"]), (["a", "b"], ["a", "b"])])
def test_embeddings(text: Any, inputs: list[str]) -> None:
    call = run_embeddings("@cf/baai/bge-base-en-v1.5", {"text": text})
    _EMBEDDING.validate_python(call.body)
    assert call.body["input"] == inputs
    data = [{"index": n, "embedding": [0.5, 1.0]} for n in range(len(inputs))]
    result = call.answer(orjson.dumps({"data": data, "usage": _USAGE}))
    assert result == {"shape": [len(inputs), 2], "data": [[0.5, 1.0]] * len(inputs)}


@pytest.mark.parametrize(
    "fields", [{}, {"text": []}, {"text": 5}, {"text": ["a", 5]}, {"text": "a", "pooling": "cls"}]
)
def test_embeddings_of_what_is_no_text_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        run_embeddings("m", fields)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"choices":[]}', b'{"choices":[{}]}'])
def test_answers_that_cannot_be_read_are_an_error(body: bytes) -> None:
    with pytest.raises(ProviderError):
        _run(prompt="Hi").answer(body)
