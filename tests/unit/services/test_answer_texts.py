from __future__ import annotations

import json

import pytest

from openworks.services.answer_texts import answer_text


def events(*items: object) -> bytes:
    lines = [f"data: {json.dumps(item)}\n\n" for item in items]
    return "".join([*lines, "data: [DONE]\n\n"]).encode()


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"choices": [{"message": {"content": "Hi there"}}]}).encode(),
        json.dumps({"choices": [{"text": "Hi there"}]}).encode(),
        json.dumps({"content": [{"type": "text", "text": "Hi there"}]}).encode(),
        json.dumps({"result": {"response": "Hi there"}, "success": True}).encode(),
        json.dumps({"candidates": [{"content": {"parts": [{"text": "Hi there"}]}}]}).encode(),
        json.dumps(
            {
                "output": [
                    {"type": "message", "content": [{"type": "output_text", "text": "Hi there"}]}
                ]
            }
        ).encode(),
        events(
            {"choices": [{"delta": {"content": "Hi "}}]},
            {"choices": [{"delta": {"content": "there"}}]},
        ),
        events({"response": "Hi "}, {"response": "there"}),
        events(
            {"type": "content_block_start", "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi "}},
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "there"}},
            {"type": "message_stop"},
        ),
        events(
            {"type": "response.output_text.delta", "delta": "Hi there"},
            {"type": "response.output_text.done", "text": "Hi there"},
            {"type": "response.completed", "response": {"output": [{"text": "Hi there"}]}},
        ),
        b"Hi there",
        b'"Hi there"',
    ],
)
def test_text_is_found_in_every_known_shape(body: bytes) -> None:
    assert answer_text(body) == "Hi there"


def test_body_of_no_known_shape_is_its_own_text() -> None:
    assert answer_text(b'{"data":[1,2]}') == '{"data":[1,2]}'
    assert answer_text(b"\xff\xfe") == "\ufffd\ufffd"


def test_body_that_is_nested_without_end_is_read_to_some_depth() -> None:
    assert answer_text(b'{"content":[' * 50 + b"1" + b"]}" * 50)
