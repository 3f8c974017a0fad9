from __future__ import annotations

import io
import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openworks.core.errors import InvalidRequestError
from openworks.core.safetensors import MAX_HEADER_BYTES, SafetensorsHeader, read_header
from tests.adapters import numbers, safetensors, with_header


def read(data: bytes) -> SafetensorsHeader:
    return read_header(io.BytesIO(data), len(data))


def header_of(**tensors: Any) -> bytes:
    return json.dumps(tensors).encode()


def entry(start: int, end: int, *, dtype: Any = "U8", shape: Any = None) -> dict[str, Any]:
    return {
        "dtype": dtype,
        "shape": [end - start] if shape is None else shape,
        "data_offsets": [start, end],
    }


def test_tensors_are_found_where_they_are() -> None:
    data = safetensors({"b": numbers(2, 3, value=1.5), "a": ("BF16", (4,), b"12345678")})

    found = read(data).tensors

    assert (found["b"].dtype, found["b"].shape, found["b"].size_bytes) == ("F32", (2, 3), 24)
    start = found["a"].start
    assert data[start : start + found["a"].size_bytes] == b"12345678"


def test_header_may_be_padded_with_spaces() -> None:
    assert set(read(with_header(header_of(a=entry(0, 2)) + b"   ", b"xy")).tensors) == {"a"}


def test_file_without_tensors_is_whole() -> None:
    assert read(with_header(b"{}")).tensors == {}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "too few"),
        (b"1234567", "too few"),
        (b"\x80\x02}q\x00." + bytes(100), "claims"),
        (struct.pack("<Q", 2**63) + b"{}", "claims"),
        (struct.pack("<Q", MAX_HEADER_BYTES + 1) + b"{" * 100, "claims"),
        (struct.pack("<Q", 100) + b"{}", "more than the file has"),
        (with_header(b"[]"), "begins with"),
        (with_header(b""), "begins with"),
        (with_header(b"{"), "not readable"),
        (with_header(b'{"\xff": 1}'), "not readable"),
        (with_header(b'{"a": NaN}'), "NaN"),
        (with_header(b'{"a":' * 100_000), "not readable"),
        (with_header(b'{"a": ' + b"1" * 5000 + b"}"), "not readable"),
        (with_header(b'{"a": 1}'), "no object"),
        (with_header(b'{"a": {}, "a": {}}'), "twice"),
        (with_header(header_of(a=entry(0, 1, dtype="Q4"))  , b"x"), "unknown type 'Q4'"),
        (with_header(header_of(a=entry(0, 1, dtype=["F32"])), b"x"), "unknown type"),
        (with_header(header_of(a=entry(0, 1, shape="1")), b"x"), "no readable shape"),
        (with_header(header_of(a=entry(0, 1, shape=[True])), b"x"), "no readable shape"),
        (with_header(header_of(a=entry(0, 1, shape=[-1])), b"x"), "no readable shape"),
        (with_header(header_of(a=entry(0, 1, shape=[1.0])), b"x"), "no readable shape"),
        (with_header(header_of(a=entry(0, 1, shape=[1] * 99)), b"x"), "no readable shape"),
        (with_header(header_of(a=entry(0, 1, shape=[2])), b"x"), "which its shape"),
        (with_header(header_of(a=entry(0, 0, shape=[2**62, 2**62])), b""), "which its shape"),
        (with_header(header_of(a=entry(1, 0, shape=[1])), b"x"), "no readable place"),
        (with_header(header_of(a={"dtype": "U8", "shape": [1]}), b"x"), "no readable place"),
        (with_header(header_of(a=entry(1, 2)), b"xy"), "gap or overlap"),
        (with_header(header_of(a=entry(0, 2), b=entry(1, 3)), b"xyz"), "gap or overlap"),
        (with_header(header_of(a=entry(0, 2), b=entry(0, 2)), b"xy"), "gap or overlap"),
        (with_header(header_of(a=entry(0, 2)), b"x"), "end at byte"),
        (with_header(header_of(a=entry(0, 1)), b"xy"), "end at byte"),
    ],
)  # fmt: skip
def test_broken_file_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=reason) as caught:
        read(data)

    assert len(caught.value.message) < 400


def test_tensor_at_fault_is_named_in_few_words() -> None:
    with pytest.raises(InvalidRequestError, match=r"layers\.0") as caught:
        read(with_header(header_of(**{"layers.0" + "x" * 9000: entry(0, 1, shape=[3])}), b"x"))

    assert len(caught.value.message) < 400


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
json_values = (
    scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=8), scalars)
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["U8", "F32", "BF16", "F16"]) | json_values,
        "shape": st.lists(st.integers(-1, 5), max_size=3) | json_values,
        "data_offsets": st.lists(st.integers(-1, 40), min_size=2, max_size=2) | json_values,
    }
)


@settings(deadline=None)
@given(
    st.binary(max_size=60)
    | st.builds(with_header, st.binary(max_size=60), st.binary(max_size=20))
    | st.builds(
        lambda header, data: with_header(json.dumps(header).encode(), data),
        st.dictionaries(st.text(max_size=8), entries | json_values, max_size=4),
        st.binary(max_size=40),
    )
)
def test_whatever_comes_is_read_or_refused(data: bytes) -> None:
    try:
        header = read(data)
    except InvalidRequestError:
        return
    places = sorted((item.start, item.size_bytes) for item in header.tensors.values())
    filled = sum(size for _, size in places)
    (length,) = struct.unpack("<Q", data[:8])
    assert 8 + length + filled == len(data)


def test_files_of_the_safetensors_library_are_read() -> None:
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("safetensors.torch")
    tensors = {
        "half": torch.zeros(3, 5, dtype=torch.float16),
        "scalar": torch.tensor(1.0),
        "empty": torch.zeros(0, 4),
        "wide": torch.zeros(7, dtype=torch.int64),
    }

    found = read(library.save(tensors, metadata={"format": "pt"})).tensors

    assert {name: item.shape for name, item in found.items()} == {
        name: tuple(tensor.shape) for name, tensor in tensors.items()
    }
