"""The header of a safetensors file: which tensors it holds and where, read without loading one.

Format: https://github.com/huggingface/safetensors#format. The `safetensors` package reads it too,
but brings a tensor library; files that strangers send are better looked at before that.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final

from openworks.core.errors import InvalidRequestError
from openworks.core.json import JsonValue

LENGTH_BYTES: Final = 8
"""What stands before the header and says how long it is."""
MAX_HEADER_BYTES: Final = 8 << 20
_MAX_DIMENSIONS: Final = 16
_METADATA: Final = "__metadata__"
_BITS: Final = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
_SHOWN_CHARS: Final = 120


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a file."""

    dtype: str
    """As the format writes it: `F32`, `BF16`, …"""
    shape: tuple[int, ...]
    start: int
    """Where its bytes begin, counted from the beginning of the file."""
    size_bytes: int


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """What a file says of its tensors, which fill it without gaps."""

    tensors: Mapping[str, TensorEntry]


def header_length(prefix: bytes, size_bytes: int) -> int:
    """Return how many bytes of header follow the first eight.

    Args:
        prefix: The first eight bytes of the file.
        size_bytes: Of the whole file.

    Raises:
        InvalidRequestError: No such file begins like this.
    """
    if len(prefix) < LENGTH_BYTES:
        raise _broken(f"it has {size_bytes} bytes, too few for a header")
    (length,) = struct.unpack("<Q", prefix[:LENGTH_BYTES])
    assert isinstance(length, int)
    if length > MAX_HEADER_BYTES:
        raise _broken(f"its header claims {length} bytes, of at most {MAX_HEADER_BYTES}")
    if LENGTH_BYTES + length > size_bytes:
        raise _broken(f"its header claims {length} bytes, more than the file has")
    return length


def parse_header(text: bytes, size_bytes: int) -> SafetensorsHeader:
    """Read a header.

    Args:
        text: The bytes after the first eight, as many as they say.
        size_bytes: Of the whole file.

    Raises:
        InvalidRequestError: It is broken, or does not describe a file of this size.
    """
    fields = _decoded(text)
    data_start = LENGTH_BYTES + len(text)
    tensors = {
        name: _entry(name, value, data_start) for name, value in fields.items() if name != _METADATA
    }
    _check_filled(tensors, data_start, size_bytes)
    return SafetensorsHeader(tensors)


def read_header(file: BinaryIO, size_bytes: int) -> SafetensorsHeader:
    """Read the header of an open file from its beginning.

    Raises:
        InvalidRequestError: It is not a safetensors file, or its header is broken.
    """
    file.seek(0)
    length = header_length(file.read(LENGTH_BYTES), size_bytes)
    return parse_header(file.read(length), size_bytes)


def _decoded(text: bytes) -> dict[str, JsonValue]:
    if not text.startswith(b"{"):
        raise _broken(f"its header begins with {text[:8]!r}, not with an object")
    try:
        fields = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as exc:
        raise _broken(f"its header is not readable: {str(exc)[:_SHOWN_CHARS]}") from exc
    assert isinstance(fields, dict), "it begins with a brace and is JSON"
    return fields


def _unique(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:_SHOWN_CHARS]!r} stands in it twice")
    return found


def _no_constant(name: str) -> JsonValue:
    raise ValueError(f"{name} is no JSON")


def _entry(name: str, value: JsonValue, data_start: int) -> TensorEntry:
    shown = repr(name[:_SHOWN_CHARS])
    if not isinstance(value, dict):
        raise _broken(f"the tensor {shown} is described by no object")
    dtype, shape = value.get("dtype"), _counts(value.get("shape"))
    offsets = _counts(value.get("data_offsets"))
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise _broken(f"the tensor {shown} has the unknown type {str(dtype)[:_SHOWN_CHARS]!r}")
    if shape is None or len(shape) > _MAX_DIMENSIONS:
        raise _broken(f"the tensor {shown} has no readable shape")
    if offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _broken(f"the tensor {shown} has no readable place")
    size_bytes = offsets[1] - offsets[0]
    if math.prod(shape) * _BITS[dtype] != 8 * size_bytes:
        raise _broken(f"the tensor {shown} has {size_bytes} bytes, which its shape does not take")
    return TensorEntry(dtype, shape, data_start + offsets[0], size_bytes)


def _counts(value: JsonValue) -> tuple[int, ...] | None:
    """A list of whole numbers that are not negative; None for anything else."""
    if not isinstance(value, list):
        return None
    counts = [item for item in value if type(item) is int and 0 <= item < 1 << 63]
    return tuple(counts) if len(counts) == len(value) else None


def _check_filled(tensors: Mapping[str, TensorEntry], data_start: int, size_bytes: int) -> None:
    """Refuse gaps, in which anything might hide, and tensors that share bytes."""
    end = data_start
    for entry in sorted(tensors.values(), key=lambda entry: (entry.start, entry.size_bytes)):
        if entry.start != end:
            raise _broken(f"its tensors leave a gap or overlap at byte {min(entry.start, end)}")
        end += entry.size_bytes
    if end != size_bytes:
        raise _broken(f"its tensors end at byte {end}, and the file at {size_bytes}")


def _broken(reason: str) -> InvalidRequestError:
    return InvalidRequestError(f"This is not a whole safetensors file: {reason}.", param="file")
