from __future__ import annotations

from collections.abc import AsyncGenerator

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworks.core.ids import AccountId
from openworks.ports.files import File
from openworks.services.batches.lines import LineCheck, RawLine, read_lines
from tests.unit.services.batches.world import ENDPOINT, line


def check_of(*lines: object, max_lines: int = 1000) -> LineCheck:
    check = LineCheck(ENDPOINT, max_lines=max_lines)
    check.feed(
        [
            RawLine(number, each if isinstance(each, bytes) else orjson.dumps(each))
            for number, each in enumerate(lines, 1)
        ]
    )
    return check


def without(name: str) -> dict[str, object]:
    return {key: value for key, value in line("b").items() if key != name}


def test_good_lines_are_counted_and_name_their_model() -> None:
    check = check_of(line("a"), line("b"))

    assert check.errors == []
    assert (check.num_lines, check.model, check.model_line) == (2, "m", 1)


@pytest.mark.parametrize(
    ("bad", "code", "param"),
    [
        (b"{oops", "invalid_json_line", None),
        (b"[1]", "invalid_json_line", None),
        (without("custom_id"), "missing_required_parameter", "custom_id"),
        (line("b", custom_id=""), "missing_required_parameter", "custom_id"),
        (line("b", custom_id=7), "invalid_type", "custom_id"),
        (line("a"), "duplicate_custom_id", "custom_id"),
        (without("method"), "missing_required_parameter", "method"),
        (line("b", method="GET"), "invalid_method", "method"),
        (without("url"), "missing_required_parameter", "url"),
        (line("b", url="/v1/embeddings"), "invalid_url", "url"),
        (without("body"), "missing_required_parameter", "body"),
        (line("b", body="m"), "invalid_type", "body"),
        (line("b", body={"say": "b"}), "missing_required_parameter", "body.model"),
        (line("b", body={"model": 7}), "invalid_type", "body.model"),
        (line("b", body={"model": "other"}), "model_mismatch", "body.model"),
    ],
)
def test_fault_names_line_and_field(bad: object, code: str, param: str | None) -> None:
    (error,) = check_of(line("a"), bad).errors

    assert (error["line"], error["code"], error["param"]) == (2, code, param)
    assert isinstance(error["message"], str)
    assert error["message"].endswith(".")


def test_no_more_than_a_hundred_faults_are_told() -> None:
    assert len(check_of(*[b"{"] * 500).errors) == 100


def test_too_many_lines_are_one_fault() -> None:
    (error,) = check_of(line("a"), line("b"), line("c"), max_lines=2).errors

    assert (error["code"], error["line"]) == ("too_many_requests", None)
    assert "at most 2" in str(error["message"])


class Pieces:
    """Content that is read in pieces of any size."""

    def __init__(self, data: bytes, size: int) -> None:
        self._data = data
        self._size = size

    async def read(
        self, file: File, *, start: int = 0, length: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        end = start + (len(self._data) if length is None else length)
        for at in range(start, end, self._size):
            yield self._data[at : min(at + self._size, end)]


@given(
    lines=st.lists(st.sampled_from([b"", b" ", b"one", b"two words", "drei 🌍".encode()])),
    size=st.integers(1, 9),
)
async def test_lines_are_the_same_wherever_the_file_is_cut(lines: list[bytes], size: int) -> None:
    data = b"\n".join(lines)
    file = File(
        id="f",
        account_id=AccountId("a"),
        created_at_s=0,
        filename="",
        media_type="",
        purpose="batch",
        size_bytes=len(data),
        expires_at_s=None,
    )

    found = [each async for some in read_lines(Pieces(data, size), file) for each in some]

    assert found == [RawLine(number, each) for number, each in enumerate(lines, 1) if each.strip()]
