"""JSON Lines are recognised wherever they are cut, and the line that is wrong is named."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworks.core.errors import InvalidRequestError
from openworks.services.jsonl import JsonLines


def check(*pieces: bytes) -> None:
    lines = JsonLines("file")
    for piece in pieces:
        lines.feed(piece)
    lines.end()


@pytest.mark.parametrize(
    "data", [b"{}", b"{}\n", b'{"a": 1}\r\n{"b": "\xc3\xbc"}\r\n', b"\n{}\n\n \n{}\n\n"]
)
def test_objects_on_lines_are_taken(data: bytes) -> None:
    check(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it has no line"),
        (b"\n \n", "it has no line"),
        (b"{}\n[1]\n", r"line 2 is not a JSON object, it begins with '\[1\]'"),
        (b"{}\n\n7\n", "line 3 is not a JSON object"),
        (b"{}\n{]\n{}\n", "line 2 is not valid JSON"),
        (b'{}\n{"a": "\xff"}\n', "line 2 is not valid JSON .*UTF-8"),
        (b"\xef\xbb\xbf{}\n", "line 1 is not valid JSON"),
        (b'{}\n{"a"', "line 2 is not valid JSON"),
        (b"{} {}\n", "line 1 is not valid JSON"),
    ],
)
def test_line_that_is_wrong_is_named(data: bytes, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message) as raised:
        check(data)

    assert (raised.value.code, raised.value.param) == ("invalid_jsonl", "file")


@given(
    st.lists(st.dictionaries(st.text(), st.text(), max_size=3), min_size=1, max_size=5),
    st.lists(st.integers(0, 500), max_size=5),
)
def test_cuts_make_no_difference(rows: list[dict[str, str]], cuts: list[int]) -> None:
    data = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]

    pieces = [data[start:end] for start, end in pairwise(places)]

    check(*pieces)
    with pytest.raises(InvalidRequestError, match=f"line {len(rows) + 1} "):
        check(*pieces, b"!")


def test_line_without_an_end_is_not_kept_in_memory() -> None:
    with pytest.raises(InvalidRequestError, match="line 1 is over"):
        check(*([b" " * (1 << 20)] * 40))
