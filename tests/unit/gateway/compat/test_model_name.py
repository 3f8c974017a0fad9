from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openworks.core.errors import InvalidRequestError
from openworks.gateway.compat.model_name import with_model

_SPELLINGS = ['"model"', '"m\\u006fdel"', '"\\u006D\\u006f\\u0064\\u0065\\u006C"']
_KEYS = st.sampled_from(["model", 'a"model', '"model', "model:", "\\", "{", "x", "a,model", ""])
_TEXTS = st.text(max_size=6) | st.sampled_from(
    ['"model":"x"', '{"model": "x"}', "\\", '\\"', '"', ' "model" : ', "é€😀", "\\u006d"]
)
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _TEXTS
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=8,
)
_SPACE = st.text(alphabet=" \t\r\n", max_size=3)


@st.composite
def _bodies(draw: st.DrawFn) -> tuple[str, str, str]:
    """A body with the place of its model names marked, and the body with other names there."""
    members: list[tuple[str, str]] = []
    for _ in range(draw(st.integers(0, 3))):
        key = draw(_KEYS.filter(lambda name: name != "model"))
        members.append(_member(draw, json.dumps(key), draw(_VALUES)))
    for _ in range(draw(st.integers(1, 2))):
        before = draw(_SPACE)
        key = before + draw(st.sampled_from(_SPELLINGS)) + draw(_SPACE) + ":" + draw(_SPACE)
        after = draw(_SPACE)
        name = json.dumps(draw(_TEXTS), ensure_ascii=draw(st.booleans()))
        members.insert(draw(st.integers(0, len(members))), (key + name + after, key + "\0" + after))
    space = draw(_SPACE), draw(_SPACE)
    body, marked = (
        f"{space[0]}{{{','.join(member[side] for member in members)}}}{space[1]}" for side in (0, 1)
    )
    new = draw(_TEXTS)
    return body, marked, new


def _member(draw: st.DrawFn, key: str, value: Any) -> tuple[str, str]:
    indent = draw(st.sampled_from([None, 1]))
    ascii_only = draw(st.booleans())
    text = f"{draw(_SPACE)}{key}{draw(_SPACE)}:{draw(_SPACE)}"
    text += json.dumps(value, indent=indent, ensure_ascii=ascii_only) + draw(_SPACE)
    return text, text


@given(_bodies())
def test_every_top_level_model_is_replaced_and_every_other_byte_stays(
    case: tuple[str, str, str],
) -> None:
    body, marked, new = case
    replaced = with_model(body.encode(), new)
    name = json.dumps(new, ensure_ascii=False)
    text = replaced.decode()
    pieces = marked.split("\0")
    assert json.loads(text)["model"] == new
    for piece in pieces[:-1]:
        assert text.startswith(piece)
        decoded, size = json.JSONDecoder().raw_decode(text[len(piece) :])
        assert decoded == new
        assert len(text[len(piece) :][:size]) <= max(len(name), len(json.dumps(new)))
        text = text[len(piece) + size :]
    assert text == pieces[-1]


@given(_VALUES)
@example({"model": "nested"})
def test_nested_models_are_not_the_requests(value: Any) -> None:
    inner = json.dumps(value)
    body = f'{{"x": {inner}, "y": [{{"model": "a"}}], "model" : "openai/gpt-4o" , "z": {inner}}}'
    expected = body.replace("openai/gpt-4o", "gpt-4o")
    assert with_model(body.encode(), "gpt-4o") == expected.encode()


@pytest.mark.parametrize(
    "body",
    [b"{}", b'{"messages":[{"model":"x"}]}', b'{"\\"model":"x"}', b'{"x":"\\"model\\":1"}', b"[]"],
)
def test_a_body_without_a_model_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        with_model(body, "m")
    assert caught.value.param == "model"


@pytest.mark.parametrize("value", [b"1", b"null", b"{}", b'["m"]', b""])
def test_a_model_that_is_no_string_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        with_model(b'{"model": ' + value + b"}", "m")


def test_a_key_that_ends_in_model_is_another_key() -> None:
    body = b'{"\\"model":"x","model":"a/b"}'
    assert with_model(body, "b") == b'{"\\"model":"x","model":"b"}'


def test_many_nested_models_take_linear_time() -> None:
    many = b'{"tools":[' + b'{"model":"x"},' * 50_000 + b'0],"model":"a/b"}'
    assert with_model(many, "b").endswith(b'0],"model":"b"}')
