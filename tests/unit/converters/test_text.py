from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworks.converters.text import read, read_json
from openworks.core.errors import InvalidFileError
from tests.unit.converters.sources import text_of

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(text=TEXTS, encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_text_stays_as_it_is_in_each_encoding(text: str, encoding: str) -> None:
    assert text_of(read, "a.txt", text.encode(encoding)) == text


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("größe".encode("latin-1"), "'a.py' is not text in UTF-8, .* byte 2 does not fit"),
        (b"ab\0cd", "character 2 is a zero"),
        (b"\xff\xfea", "not text in UTF-8"),
    ],
)
def test_what_is_no_text_is_refused_with_its_place(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidFileError, match=reason):
        text_of(read, "a.py", data)


@given(value=JSON)
def test_json_means_the_same_with_its_letters_written_out(value: object) -> None:
    text = text_of(read_json, "a.json", json.dumps(value, indent=1).encode())

    assert json.loads(text) == value


@given(text=st.text(st.characters(min_codepoint=0xA0, exclude_categories=["Cs"])))
def test_letters_of_json_can_be_searched_for(text: str) -> None:
    assert text in text_of(read_json, "a.jsonl", json.dumps({"a": text}).encode())


@pytest.mark.parametrize(
    "escape", [r"\ud83d", r"\ude00", r"\\u0416", r"\u0000", r"\u0022", r"\u00"]
)
def test_escapes_that_are_no_letters_stay(escape: str) -> None:
    assert text_of(read_json, "a.json", f'"{escape}"'.encode()) == f'"{escape}"'
