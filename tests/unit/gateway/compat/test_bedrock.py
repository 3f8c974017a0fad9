from __future__ import annotations

import struct
from typing import Any
from zlib import crc32

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworks.core.errors import ProviderError, UnsupportedParameterError
from openworks.core.json import JsonObject
from openworks.gateway.compat.bedrock import BedrockChat, BedrockStream
from openworks.gateway.compat.frames import Frames
from openworks.gateway.compat.read import MalformedAnswer
from openworks.ports.calls import Usage
from tests.fakes import CountingIds, FakeClock
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

_NOVA = "amazon.nova-pro-v1:0"
_CLAUDE = "us.anthropic.claude-opus-4-6-v1"
_HI: JsonObject = {"role": "user", "content": "Hi"}
_TOOL: JsonObject = {
    "type": "function",
    "function": {"name": "weather", "description": "Tells it.", "parameters": {"type": "object"}},
}


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """One event-stream frame, as AWS documents it."""
    written = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value.encode()))
        + value.encode()
        for name, value in headers.items()
    )  # fmt: skip
    prelude = struct.pack(">II", 16 + len(written) + len(payload), len(written))
    body = prelude + struct.pack(">I", crc32(prelude)) + written + payload
    return body + struct.pack(">I", crc32(body))


def _event(kind: str, event: dict[str, Any]) -> bytes:
    headers = {
        ":event-type": kind,
        ":content-type": "application/json",
        ":message-type": "event",
    }
    return frame(headers, orjson.dumps({**event, "p": "abcdefg"}))


def _chat(model: str = _NOVA) -> BedrockChat:
    return BedrockChat(model=model, clock=FakeClock(1_790_000_000.9), new_id=CountingIds())


def _native(model: str = _NOVA, **fields: Any) -> dict[str, Any]:
    fields.setdefault("messages", [_HI])
    native: dict[str, Any] = orjson.loads(
        _chat(model).request({"model": "aws-bedrock/x", **fields}).body
    )
    return native


def _stream_of(*, usage: bool = False) -> BedrockStream:
    return _chat().stream({"stream_options": {"include_usage": usage}})


_CONTENT: list[dict[str, Any]] = [
    {"reasoningContent": {"reasoningText": {"text": "Let me see.", "signature": "c2ln"}}},
    {"reasoningContent": {"redactedContent": "ZW5j"}},
    {"text": "I look — 😀."},
    {"toolUse": {"toolUseId": "t1", "name": "weather", "input": {"city": "Zürich"}}},
    {"toolUse": {"toolUseId": "t2", "name": "now", "input": {}}},
]
_USAGE = {
    "inputTokens": 10,
    "outputTokens": 42,
    "totalTokens": 157,
    "cacheReadInputTokens": 100,
    "cacheWriteInputTokens": 5,
}
_DELTAS: list[list[dict[str, Any]]] = [
    [
        {"reasoningContent": {"text": "Let me"}},
        {"reasoningContent": {"text": " see."}},
        {"reasoningContent": {"signature": "c2ln"}},
    ],
    [{"reasoningContent": {"redactedContent": "ZW5j"}}],
    [{"text": "I look"}, {"text": " — 😀."}],
    [{"toolUse": {"input": '{"city":'}}, {"toolUse": {"input": ' "Zürich"}'}}],
    [{"toolUse": {"input": ""}}],
]


def _answer(**fields: Any) -> bytes:
    return orjson.dumps(
        {
            "output": {"message": {"role": "assistant", "content": _CONTENT}},
            "stopReason": "tool_use",
            "usage": _USAGE,
            "metrics": {"latencyMs": 5},
            **fields,
        }
    )


def _frames(*, stop: str = "tool_use", metadata: bool = True) -> list[bytes]:
    script = [_event("messageStart", {"role": "assistant"})]
    for index, (block, deltas) in enumerate(zip(_CONTENT, _DELTAS, strict=True)):
        at = {"contentBlockIndex": index}
        if "toolUse" in block:
            call = {key: block["toolUse"][key] for key in ("toolUseId", "name")}
            script.append(_event("contentBlockStart", {**at, "start": {"toolUse": call}}))
        script += [_event("contentBlockDelta", {**at, "delta": delta}) for delta in deltas]
        script.append(_event("contentBlockStop", at))
    script.append(_event("messageStop", {"stopReason": stop}))
    if metadata:
        script.append(_event("metadata", {"usage": _USAGE, "metrics": {"latencyMs": 5}}))
    return script


def test_a_conversation_with_tools() -> None:
    call: JsonObject = {
        "id": "t1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city":"Rome"}'},
    }
    request = _chat().request(
        {
            "model": "x",
            "messages": [
                {"role": "system", "content": "Be short."},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "Look"},
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
                        {
                            "type": "file",
                            "file": {
                                "filename": "a_b.pdf",
                                "file_data": "data:application/pdf;base64,JVBE",
                            },
                        },
                    ],
                },
                {"role": "assistant", "content": "", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "t1", "content": "hot"},
            ],
            "tools": [_TOOL],
            "tool_choice": "required",
            "max_tokens": 50,
            "temperature": 2,
            "top_p": 0.5,
            "stop": ["END"],
            "user": "u",
            "service_tier": "flex",
        }
    )
    assert request.path == "model/amazon.nova-pro-v1%3A0/converse"
    assert orjson.loads(request.body) == {
        "system": [{"text": "Be short."}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"text": "Look"},
                    {"image": {"format": "png", "source": {"bytes": "QUJD"}}},
                    {"document": {"format": "pdf", "name": "a b pdf", "source": {"bytes": "JVBE"}}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"toolUse": {"toolUseId": "t1", "name": "weather", "input": {"city": "Rome"}}}
                ],
            },
            {
                "role": "user",
                "content": [{"toolResult": {"toolUseId": "t1", "content": [{"text": "hot"}]}}],
            },
        ],
        "inferenceConfig": {
            "maxTokens": 50,
            "temperature": 1,
            "topP": 0.5,
            "stopSequences": ["END"],
        },
        "toolConfig": {
            "tools": [
                {
                    "toolSpec": {
                        "name": "weather",
                        "description": "Tells it.",
                        "inputSchema": {"json": {"type": "object"}},
                    }
                }
            ],
            "toolChoice": {"any": {}},
        },
        "serviceTier": {"type": "flex"},
    }


def test_streams_and_arns_have_a_path_of_their_own() -> None:
    arn = "arn:aws:bedrock:us-east-1:1:inference-profile/us.x"
    request = _chat(arn).request({"model": "x", "messages": [_HI], "stream": True})
    assert request.path == (
        "model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.x/converse-stream"
    )


def test_named_and_forbidden_tools() -> None:
    named = {"type": "function", "function": {"name": "weather"}}
    native = _native(tools=[_TOOL], tool_choice=named)
    assert native["toolConfig"]["toolChoice"] == {"tool": {"name": "weather"}}
    assert "toolConfig" not in _native(tools=[_TOOL], tool_choice="none")
    assert _native(tools=[_TOOL], tool_choice="auto")["toolConfig"]["toolChoice"] == {"auto": {}}
    assert "toolChoice" not in _native(tools=[_TOOL])["toolConfig"]


def test_a_schema_and_an_effort_of_claude() -> None:
    schema = {"type": "object", "additionalProperties": False}
    native = _native(
        _CLAUDE,
        reasoning_effort="high",
        top_k=5,
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
    )
    text_format = native["outputConfig"]["textFormat"]
    assert text_format["type"] == "json_schema"
    definition = text_format["structure"]["jsonSchema"]
    assert (definition["name"], orjson.loads(definition["schema"])) == ("a", schema)
    assert native["outputConfig"]["effort"] == "high"
    assert native["additionalModelRequestFields"] == {
        "thinking": {"type": "adaptive", "display": "summarized"},
        "top_k": 5,
    }


def test_open_models_of_openai_take_the_effort_as_it_is() -> None:
    native = _native("openai.gpt-oss-120b-1:0", reasoning_effort="low")
    assert native["additionalModelRequestFields"] == {"reasoning_effort": "low"}


def test_thinking_goes_back_as_it_came() -> None:
    answer: Any = completion(_chat().answer(_answer()))
    back = _native(messages=[_HI, answer["choices"][0]["message"], _HI])
    assert back["messages"][1]["content"] == _CONTENT


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"top_k": 3}, "top_k"),
        ({"n": 3}, "n"),
        ({"tools": [_TOOL], "parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"service_tier": "scale"}, "service_tier"),
        (
            {
                "tools": [_TOOL],
                "tool_choice": "none",
                "messages": [_HI, {"role": "tool", "tool_call_id": "a", "content": "x"}],
            },
            "tool_choice",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "https://a/b.png"}}],
                    }
                ]
            },
            "messages[0].content[0].image_url.url",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        _native(**fields)
    assert caught.value.param == param


def test_a_streamed_answer_is_the_whole_one() -> None:
    whole: Any = completion(_chat().answer(_answer()))
    translator = _stream_of(usage=True)
    streamed = fed(translator, b"".join(_frames()))
    assert joined(streamed) == message_of(whole)
    assert finish_reasons(streamed) == [whole["choices"][0]["finish_reason"]] == ["tool_calls"]
    last = chunks(streamed)[-1]
    assert last.usage is not None
    assert last.usage.model_dump(exclude_none=True) == whole["usage"]
    assert translator.usage == Usage(prompt_tokens=115, completion_tokens=42, cached_tokens=100)
    assert (last.id, last.model, last.created) == ("chatcmpl-1", _NOVA, 1_790_000_000)
    assert whole["model"] == _NOVA


def test_a_stream_is_the_same_however_it_is_cut() -> None:
    assert_every_split_agrees(lambda: _stream_of(usage=True), b"".join(_frames()))


def test_a_stream_that_was_not_counted_is_still_whole() -> None:
    assert events(fed(_stream_of(), b"".join(_frames(metadata=False))))[-1] == "[DONE]"


def test_blocks_of_one_kind_do_not_run_together() -> None:
    def block(index: int, *deltas: dict[str, Any], start: dict[str, Any] | None = None) -> bytes:
        at = {"contentBlockIndex": index}
        opened = [] if start is None else [_event("contentBlockStart", {**at, "start": start})]
        said = [_event("contentBlockDelta", {**at, "delta": delta}) for delta in deltas]
        return b"".join([*opened, *said, _event("contentBlockStop", at)])

    def thought(text: str) -> list[dict[str, Any]]:
        return [{"reasoningContent": {"text": text}}, {"reasoningContent": {"signature": text}}]

    data = _frames()[0] + block(0, *thought("a"))
    data += block(1, start={"toolUse": {"toolUseId": "t1", "name": "f"}})
    data += block(2, *thought("b")) + b"".join(_frames()[-2:])
    answer = joined(fed(_stream_of(), data))
    assert answer["calls"] == [{"id": "t1", "name": "f", "arguments": {}}]
    assert answer["thinking_blocks"] == [
        {"type": "thinking", "thinking": text, "signature": text} for text in ("a", "b")
    ]


@pytest.mark.parametrize(("cut", "metadata"), [(1, True), (1, False), (40, False), (400, False)])
def test_a_stream_without_its_end_is_an_error(cut: int, metadata: bool) -> None:
    translator = _stream_of()
    said = events(fed(translator, b"".join(_frames(metadata=metadata))[:-cut]))
    assert orjson.loads(said[-1])["error"]["code"] == "stream_incomplete"
    assert translator.failure is not None


@pytest.mark.parametrize("message_type", ["exception", "error"])
def test_an_error_within_a_stream_keeps_its_words(message_type: str) -> None:
    if message_type == "exception":
        headers = {":message-type": "exception", ":exception-type": "throttlingException"}
        end = frame(headers, b'{"message":"Slow down"}')
    else:
        headers = {":message-type": "error", ":error-code": "throttlingException"}
        end = frame({**headers, ":error-message": "Slow down"}, b"")
    error = orjson.loads(events(fed(_stream_of(), _frames()[0] + end))[-1])["error"]
    assert (error["message"], error["code"]) == ("Slow down", "throttlingException")


def test_a_flipped_bit_anywhere_is_found() -> None:
    data = _frames()[0]
    for at in range(len(data)):
        broken = data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
        with pytest.raises(MalformedAnswer, match="checksum"):
            list(Frames().feed(broken))


def test_headers_of_every_type_are_passed_over() -> None:
    kinds = {0: b"", 1: b"", 2: b"1", 3: b"22", 4: b"4444", 5: b"8" * 8, 8: b"8" * 8, 9: b"9" * 16}
    written = b"".join(bytes([1, 97 + kind, kind]) + value for kind, value in kinds.items())
    written += b"\x01z\x06\x00\x03bin" + b"\x01s\x07\x00\x02hi"
    prelude = struct.pack(">II", 16 + len(written), len(written))
    body = prelude + struct.pack(">I", crc32(prelude)) + written
    assert list(Frames().feed(body + struct.pack(">I", crc32(body)))) == [({"s": "hi"}, b"")]


@pytest.mark.parametrize(
    "written", [b"\x05ab", b"\x01a\x0a", b"\x01a\x07\x00\x09hi", b"\x01\xff\x00"]
)
def test_broken_headers_are_found(written: bytes) -> None:
    prelude = struct.pack(">II", 16 + len(written), len(written))
    body = prelude + struct.pack(">I", crc32(prelude)) + written
    with pytest.raises(MalformedAnswer):
        list(Frames().feed(body + struct.pack(">I", crc32(body))))


@pytest.mark.parametrize(("total", "headers"), [(15, 0), (16, 1), (2**31, 0)])
def test_impossible_lengths_are_found(total: int, headers: int) -> None:
    prelude = struct.pack(">II", total, headers)
    with pytest.raises(MalformedAnswer, match="not possible"):
        list(Frames().feed(prelude + struct.pack(">I", crc32(prelude))))


@pytest.mark.parametrize(
    ("native", "expected"),
    [
        ("end_turn", "stop"),
        ("max_tokens", "length"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
    ],
)
def test_reasons_to_stop(native: str, expected: str) -> None:
    output = {"message": {"role": "assistant", "content": [{"text": "x"}]}}
    answer: Any = completion(_chat().answer(_answer(stopReason=native, output=output)))
    assert answer["choices"][0]["finish_reason"] == expected


def test_output_that_bedrock_could_not_read_is_an_error() -> None:
    with pytest.raises(ProviderError, match="malformed_tool_use"):
        _chat().answer(_answer(stopReason="malformed_tool_use"))
    translator = _stream_of()
    fed(translator, b"".join(_frames(stop="malformed_model_output")))
    assert translator.failure is not None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"message":"Denied"}', "Denied"),
        (b'{"Message":"Denied"}', "Denied"),
        (b"<x>", "aws-bedrock answered with status 403: <x>"),
        (b"{}", "aws-bedrock answered with status 403: {}"),
    ],
)
def test_errors_keep_their_message(body: bytes, message: str) -> None:
    error = orjson.loads(_chat().error(403, body))["error"]
    assert (error["message"], error["type"]) == (message, "permission_error")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["output", "message", "content", "text", "toolUse", "input", "usage", "stopReason",
             "delta", "start", "reasoningContent", "signature", "inputTokens"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=10,
)  # fmt: skip
_KINDS = ["messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop",
          "messageStop", "metadata", "later"]  # fmt: skip


@given(_JSON)
def test_answers_of_any_shape_are_translated_or_a_providers_error(value: Any) -> None:
    try:
        answer = _chat().answer(orjson.dumps(value))
    except ProviderError:
        return
    completion(answer)


@given(st.lists(st.tuples(st.sampled_from(_KINDS), _JSON), max_size=4))
def test_streams_of_any_shape_end_done_or_with_an_error(script: list[tuple[str, Any]]) -> None:
    headers = {":message-type": "event"}
    data = b"".join(
        frame({**headers, ":event-type": kind}, orjson.dumps(value)) for kind, value in script
    )
    translator = _stream_of(usage=True)
    said = events(fed(translator, _frames()[0] + data))
    assert (said[-1] == "[DONE]") is (translator.failure is None)
