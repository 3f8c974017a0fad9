"""A LoRA as PEFT writes it, made the GGUF file that llama.cpp loads; no tensor library is needed.

Values are copied as they are (F32, F16 and BF16 are types of both formats). Only the rows of what
queries and keys gain change places in models of the architecture `llama`: there llama.cpp turns
neighbouring channels where others turn two halves.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from openworks.core.errors import InvalidRequestError
from openworks.core.gguf import GgufHeader
from openworks.core.safetensors import TensorEntry, read_header

_FILE = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"
_TENSOR = re.compile(
    r"layers\.(\d+)\.(?:self_attn|mlp)\.(\w+_proj)\.lora_([AB])(?:\.\w+)?\.weight$"
)
_PLACES = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}
_TYPES = {"F32": (0, 4), "F16": (1, 2), "BF16": (30, 2)}
"""dtype → (GGUF's number for it, bytes of one value)"""
_ALIGNMENT = 32
_VERSION = 3
_STRING, _FLOAT = 8, 6


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    kind: int
    entry: TensorEntry
    heads: int | None
    """Heads whose rows change places; None: the rows stay."""

    def read(self, file: BinaryIO) -> bytes:
        file.seek(self.entry.start)
        data = file.read(self.entry.size_bytes)
        if self.heads is None:
            return data
        rows = self.entry.shape[0]
        width = len(data) // rows
        order = _interleaved(rows, self.heads)
        return b"".join(data[row * width : (row + 1) * width] for row in order)


def write_gguf(folder: Path, target: Path, base: GgufHeader) -> None:
    """Write the adapter in `folder` to `target`, for a model with the header `base`.

    Raises:
        InvalidRequestError: The adapter changes something that this format has no name for.
    """
    config = json.loads((folder / _CONFIG).read_bytes())
    source = folder / _FILE
    with source.open("rb") as file:
        header = read_header(file, source.stat().st_size)
        tensors = [_tensor(name, entry, base) for name, entry in sorted(header.tensors.items())]
        partial = target.with_suffix(".partial")
        with partial.open("wb") as out:
            _write_head(out, tensors, base.architecture, alpha=_alpha(config))
            for tensor in tensors:
                _pad(out)
                out.write(tensor.read(file))
            _pad(out)
    partial.rename(target)


def _alpha(config: dict[str, Any]) -> float:
    """What llama.cpp divides by the rank to get the scale."""
    alpha = float(config["lora_alpha"])
    return alpha * math.sqrt(config["r"]) if config.get("use_rslora") else alpha


def _tensor(name: str, entry: TensorEntry, base: GgufHeader) -> _Tensor:
    found = _TENSOR.search(name)
    if found is None or found[2] not in _PLACES or entry.dtype not in _TYPES:
        raise InvalidRequestError(
            f"The adapter's tensor {name!r} ({entry.dtype}) has no place in a GGUF model."
        )
    layer, module, part = found.groups()
    heads = None
    if part == "B" and base.architecture == "llama" and module in {"q_proj", "k_proj"}:
        heads = base.integer("{arch}.attention.head_count")
        if module == "k_proj":
            heads = base.integer("{arch}.attention.head_count_kv") or heads
    kind, _ = _TYPES[entry.dtype]
    return _Tensor(f"blk.{layer}.{_PLACES[module]}.weight.lora_{part.lower()}", kind, entry, heads)


def _interleaved(rows: int, heads: int) -> Sequence[int]:
    """Where each row comes from: within a head, the halves' rows by turns."""
    size = rows // heads
    return [
        head * size + half * (size // 2) + row
        for head in range(heads)
        for row in range(size // 2)
        for half in range(2)
    ]


def _write_head(
    out: BinaryIO, tensors: Sequence[_Tensor], architecture: str, *, alpha: float
) -> None:
    texts = {
        "general.type": "adapter",
        "general.architecture": architecture,
        "adapter.type": "lora",
    }
    out.write(struct.pack("<4sIQQ", b"GGUF", _VERSION, len(tensors), len(texts) + 1))
    for key, text in texts.items():
        out.write(_string(key) + struct.pack("<I", _STRING) + _string(text))
    out.write(_string("adapter.lora.alpha") + struct.pack("<If", _FLOAT, alpha))
    offset = 0
    for tensor in tensors:
        sizes = tensor.entry.shape[::-1]  # the fastest-changing first
        out.write(_string(tensor.name))
        out.write(struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, tensor.kind, offset))
        offset += -(-tensor.entry.size_bytes // _ALIGNMENT) * _ALIGNMENT


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _pad(out: BinaryIO) -> None:
    out.write(bytes(-out.tell() % _ALIGNMENT))
