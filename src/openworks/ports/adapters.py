"""LoRA adapters as the engines get them: bytes that lie on this machine, under an exact name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A LoRA that a call asks for beside its base model. Checked before it was stored."""

    id: str
    name: str
    """What callers append to the base model's name, `base+name`."""
    generation: str
    """A digest of the weights: what was computed with other weights has another."""
    folder: Path
    """Holds `adapter_config.json` and `adapter_model.safetensors`, as PEFT writes them."""
    rank: int
    size_bytes: int
