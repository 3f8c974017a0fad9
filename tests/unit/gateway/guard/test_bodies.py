import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworks.gateway.guard.bodies import guard_body, texts_of
from tests.unit.gateway.guard.support import compiled, side
from tests.unit.gateway.guard.test_detectors import SECRETS

TOKEN = SECRETS["github-token"]
MARK = "[REDACTED:github-token]"

_PLACES: dict[str, Any] = {
    "chat": {"model": "m", "messages": [{"role": "user", "content": TOKEN}]},
    "chat parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": TOKEN}]}]},
    "chat tool result": {"messages": [{"role": "tool", "tool_call_id": "c", "content": TOKEN}]},
    "chat answer": {"choices": [{"index": 0, "message": {"content": TOKEN}}]},
    "tool arguments": {
        "choices": [
            {"message": {"tool_calls": [{"function": {"arguments": '{"k":"' + TOKEN + '"}'}}]}}
        ]
    },
    "completions": {"model": "m", "prompt": TOKEN},
    "responses": {"input": [{"role": "user", "content": [{"type": "input_text", "text": TOKEN}]}]},
    "responses answer": {"output": [{"content": [{"type": "output_text", "text": TOKEN}]}]},
    "embeddings": {"model": "m", "input": ["a", TOKEN]},
    "anthropic system": {"system": TOKEN, "messages": []},
    "anthropic tool result": {
        "messages": [{"role": "user", "content": [{"type": "tool_result", "content": TOKEN}]}]
    },
    "anthropic tool use": {"content": [{"type": "tool_use", "input": {"where": TOKEN}}]},
    "google": {"contents": [{"parts": [{"text": TOKEN}]}]},
    "google call": {"candidates": [{"content": {"parts": [{"functionCall": {"args": [TOKEN]}}]}}]},
    "workers-ai": {"result": {"response": TOKEN}, "success": True},
    "unknown": {"a": [[{"b": TOKEN}]]},
    "string": TOKEN,
}


@pytest.mark.parametrize("place", _PLACES)
def test_a_secret_is_redacted_wherever_a_body_can_hold_text(place: str) -> None:
    body = json.dumps(_PLACES[place]).encode()
    passed, verdict = guard_body(side(compiled()), body)
    assert passed == body.replace(TOKEN.encode(), MARK.encode())
    assert verdict is not None
    assert verdict.labels == ("github-token",)


def test_a_body_without_findings_is_the_same_object() -> None:
    body = b'{ "messages" : [ {"content":"caf\\u00e9 \\/ 1.0"} ], "n":1.0 }'
    passed, verdict = guard_body(side(compiled()), body)
    assert passed is body
    assert verdict is not None
    assert verdict.action is None


def test_without_policies_nothing_is_looked_at() -> None:
    body = TOKEN.encode()
    assert guard_body(None, body) == (body, None)


def test_only_the_string_concerned_changes() -> None:
    before = b'{ "n": 12345678901234567890123, "x":1.50, "k" : "caf\\u00e9\\/", "t":"'
    after = b'"  ,"e":"\\ud83d\\ude00",  "z":null }'
    passed, _ = guard_body(side(compiled()), before + TOKEN.encode() + after)
    assert passed == before + MARK.encode() + after


def test_escapes_hide_nothing() -> None:
    escaped = "".join(f"\\u{ord(char):04x}" for char in TOKEN).encode()
    passed, _ = guard_body(side(compiled()), b'{"a":"x ' + escaped + b'\\ud83d\\ude00\\"\\n"}')
    assert json.loads(passed) == {"a": f'x {MARK}😀"\n'}


def test_halves_of_surrogate_pairs_stay_what_they_are() -> None:
    body = b'{"a":"\\ud83d ' + TOKEN.encode() + b' \\udc00","b":"\\ud83d"}'
    passed, _ = guard_body(side(compiled()), body)
    assert json.loads(passed) == {"a": f"\ud83d {MARK} \udc00", "b": "\ud83d"}


def test_a_key_that_comes_twice_hides_nothing() -> None:
    body = json.dumps({"a": TOKEN}).encode()[:-1] + b', "a": "' + TOKEN.encode() + b'"}'
    passed, _ = guard_body(side(compiled()), body)
    assert TOKEN.encode() not in passed


def test_escapes_of_json_in_strings_are_no_part_of_words() -> None:
    arguments = json.dumps({"to": "a\nme@example.com\t4111 1111 1111 1111"})
    body = json.dumps({"tool_calls": [{"function": {"arguments": arguments}}]}).encode()
    passed, _ = guard_body(side(compiled()), body)
    inner = json.loads(passed)["tool_calls"][0]["function"]["arguments"]
    assert json.loads(inner) == {"to": "a\n[REDACTED:email]\t[REDACTED:card]"}


def test_ids_and_encoded_bytes_are_no_text() -> None:
    picture = "data:image/png;base64," + "4111111111111111/" * 40
    body = json.dumps(
        {
            "id": "4111111111111111",
            "system_fingerprint": "4111111111111111",
            "image_url": {"url": picture},
            "data": "4111111111111111/" * 40,
            "vector": [0.25] * 5,
        }
    ).encode()
    assert texts_of(body) == []
    assert guard_body(side(compiled()), body)[0] is body


def test_a_body_that_is_no_json_is_one_text() -> None:
    passed, _ = guard_body(side(compiled()), b"plain " + TOKEN.encode())
    assert passed == b"plain " + MARK.encode()
    assert guard_body(side(compiled()), b"\xff\xfe" + TOKEN.encode())[1] is not None
    assert texts_of(b"") == []


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(value=_JSON, spaced=st.booleans(), ascii_only=st.booleans())
def test_any_json_keeps_its_value_when_something_beside_it_is_redacted(
    value: Any, spaced: bool, ascii_only: bool
) -> None:
    body = json.dumps(
        {"value": value, "text": f"x {TOKEN}"},
        indent=2 if spaced else None,
        ensure_ascii=ascii_only,
    ).encode("utf-8", "surrogatepass")
    passed, _ = guard_body(side(compiled()), body)
    assert json.loads(passed) == {"value": value, "text": f"x {MARK}"}
