"""Bodies of the Responses API: what clients leave out is filled in, and nothing is passed over."""

from __future__ import annotations

from typing import Any

import pytest

from openworks.api.openai.response_request import parse_compaction, parse_count, parse_response
from openworks.core.errors import InvalidRequestError, UnsupportedParameterError
from openworks.core.json import JsonObject, JsonValue
from openworks.services.responses.packed import pack

PNG = "data:image/png;base64,AAAA"


def parsed_items(*items: Any) -> tuple[JsonObject, ...]:
    return parse_response({"model": "m", "input": list(items)}).new.items


def settings_of(**fields: Any) -> JsonObject:
    return parse_response({"model": "m", "input": "x", **fields}).new.settings


def test_text_is_a_message_of_the_user() -> None:
    (item,) = parse_response({"model": "m", "input": "Hello"}).new.items

    assert item == {
        "type": "message",
        "role": "user",
        "status": "completed",
        "content": [{"type": "input_text", "text": "Hello"}],
    }


@pytest.mark.parametrize(
    "content",
    [
        "Hi.",
        [{"type": "output_text", "text": "Hi."}],
        [{"type": "output_text", "text": "Hi.", "annotations": [], "logprobs": []}],
    ],
)
def test_what_an_assistant_said_needs_no_id(content: object) -> None:
    (item,) = parsed_items({"role": "assistant", "content": content})

    said = {"type": "output_text", "text": "Hi.", "annotations": [], "logprobs": []}
    assert item["content"] == [said]
    assert "id" not in item


def test_picture_needs_no_detail() -> None:
    part = {"type": "input_image", "image_url": PNG}

    (item,) = parsed_items({"role": "user", "content": [part]})

    assert item["content"] == [{"type": "input_image", "detail": "auto", "image_url": PNG}]


def test_ids_of_items_that_come_back_stay() -> None:
    items = parsed_items(
        {"id": "msg_1", "type": "message", "role": "user", "content": "Hi", "status": "completed"},
        {"id": "fc_1", "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": pack("Hm.")},
        {"id": "msg_2"},
    )

    assert [item["id"] for item in items] == ["msg_1", "fc_1", "rs_1", "msg_2"]
    assert items[-1] == {"type": "item_reference", "id": "msg_2"}


def test_function_needs_neither_parameters_nor_strict() -> None:
    settings = settings_of(tools=[{"type": "function", "name": "f"}])

    assert settings["tools"] == [
        {"type": "function", "name": "f", "parameters": None, "strict": None}
    ]


def test_conversation_is_named_in_two_ways() -> None:
    named: list[JsonValue] = ["conv_1", {"id": "conv_1"}]
    for conversation in named:
        new = parse_response({"model": "m", "input": "x", "conversation": conversation}).new
        assert new.conversation_id == "conv_1"


def test_other_requests_are_read_alike() -> None:
    body: JsonObject = {"model": "m", "input": "x", "previous_response_id": "resp_1"}
    for new in (parse_count(body), parse_compaction(body)):
        assert (new.model, new.previous_id, len(new.items)) == ("m", "resp_1", 1)


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"type": "computer_call_output", "call_id": "c", "output": {}}, "input[0]"),
        (
            {"role": "user", "content": [{"type": "input_image", "image_url": "https://a.b/c"}]},
            "input[0].content[0].image_url",
        ),
        (
            {"role": "user", "content": [{"type": "input_image"}]},
            "input[0].content[0]",
        ),
        (
            {"role": "user", "content": [{"type": "input_file", "filename": "a"}]},
            "input[0].content[0]",
        ),
        (
            {
                "type": "function_call_output",
                "call_id": "c",
                "output": [{"type": "input_image", "image_url": PNG}],
            },
            "input[0].output[0].type",
        ),
        (
            {
                "type": "function_call",
                "call_id": "c",
                "name": "f",
                "arguments": "{}",
                "namespace": "n",
            },
            "input[0].namespace",
        ),
        (
            {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "gAAA"},
            "input[0].encrypted_content",
        ),
    ],
)
def test_item_that_nobody_here_reads_is_refused_by_name(item: JsonObject, param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parsed_items(item)

    assert str(caught.value.param).startswith(param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "image_generation"}]}, "tools[0].type"),
        (
            {"tools": [{"type": "function", "name": "f", "allowed_callers": ["programmatic"]}]},
            "tools[0].allowed_callers",
        ),
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ({"image": {"context_compression": "enabled"}}, "image"),
        ({"moderation": {"model": "x"}}, "moderation"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        settings_of(**fields)

    assert caught.value.param == param
