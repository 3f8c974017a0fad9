"""The header of a GGUF file: what a model says of itself, read without loading it.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3. The `gguf`
package reads it too, but brings numpy; the header alone is little work.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

from openworks.core.errors import InvalidRequestError

Scalar: TypeAlias = int | float | bool | str

_MAGIC = b"GGUF"
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9
_MAX_STRING_BYTES = 1 << 24
_MAX_ITEMS = 1 << 24


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """The scalar metadata of a model file. Arrays (the vocabulary, mostly) are passed over."""

    metadata: Mapping[str, Scalar]

    @property
    def architecture(self) -> str:
        """Such as `llama` or `bert`."""
        return str(self.metadata.get("general.architecture", ""))

    def integer(self, key: str) -> int | None:
        """An integer; `{arch}` in the key stands for the architecture."""
        value = self.metadata.get(key.replace("{arch}", self.architecture))
        return value if isinstance(value, int) else None

    def text(self, key: str) -> str | None:
        """A string."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    @property
    def context_tokens(self) -> int | None:
        """The context that the model was trained for."""
        return self.integer("{arch}.context_length")

    def kv_bytes_per_token(self) -> int:
        """What one token of context takes in a 16-bit KV cache; 0 when the header does not say."""
        layers = self.integer("{arch}.block_count") or 0
        heads = self.integer("{arch}.attention.head_count") or 0
        kv_heads = self.integer("{arch}.attention.head_count_kv") or heads
        width = self.integer("{arch}.embedding_length") or 0
        head_dim = self.integer("{arch}.attention.key_length") or (width // heads if heads else 0)
        return 2 * 2 * layers * kv_heads * head_dim


def read_header(path: Path) -> GgufHeader:
    """Read the header of `path`.

    Raises:
        InvalidRequestError: It is not a GGUF file, or its header is broken.
    """
    try:
        with path.open("rb") as file:
            return GgufHeader(_read_metadata(file))
    except (OSError, struct.error, UnicodeDecodeError, KeyError, ValueError) as exc:
        raise InvalidRequestError(f"{path} is not a readable GGUF file: {exc}.") from exc


def _read_metadata(file: BinaryIO) -> dict[str, Scalar]:
    if (magic := file.read(4)) != _MAGIC:
        raise ValueError(f"it begins with {magic!r}, not with {_MAGIC!r}")
    version = _unpack(file, "I")
    if version not in {2, 3}:
        raise ValueError(f"version {version} is unknown")
    _tensors, count = _unpack(file, "Q"), int(_unpack(file, "Q"))
    metadata: dict[str, Scalar] = {}
    for _ in range(_bounded(count, _MAX_ITEMS)):
        key = _read_string(file)
        kind = int(_unpack(file, "I"))
        if kind == _ARRAY:
            _skip_array(file)
        else:
            metadata[key] = _read_string(file) if kind == _STRING else _unpack(file, _SCALARS[kind])
    return metadata


def _skip_array(file: BinaryIO) -> None:
    kind, count = int(_unpack(file, "I")), _bounded(int(_unpack(file, "Q")), _MAX_ITEMS)
    if kind == _STRING:
        for _ in range(count):
            file.seek(_bounded(int(_unpack(file, "Q")), _MAX_STRING_BYTES), 1)
    elif kind == _ARRAY:
        for _ in range(count):
            _skip_array(file)
    else:
        file.seek(struct.calcsize(_SCALARS[kind]) * count, 1)


def _read_string(file: BinaryIO) -> str:
    return file.read(_bounded(int(_unpack(file, "Q")), _MAX_STRING_BYTES)).decode()


def _unpack(file: BinaryIO, code: str) -> int | float | bool:
    (value,) = struct.unpack(f"<{code}", file.read(struct.calcsize(code)))
    assert isinstance(value, int | float | bool)
    return value


def _bounded(size: int, limit: int) -> int:
    if size > limit:
        raise ValueError(f"a length of {size} is beyond any sense")
    return size
