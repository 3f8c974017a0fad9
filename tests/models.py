"""Models for tests: a tiny random one for mechanics, made on the spot."""

from __future__ import annotations

from pathlib import Path

from benchmarks.random_model import PRESETS, write_random_llama
from openworks.core.ids import AccountId
from openworks.ports.catalog import Deployment, ModelEntry

ACCOUNT = AccountId("acct-test")


def random_model(path: Path, *, seed: int = 0) -> Path:
    """Write a tiny random chat model to `path`: it answers at once, and never with sense."""
    write_random_llama(path, PRESETS["tiny"], quantization="Q8_0", seed=seed)
    return path


def deployment(
    weights: Path, name: str = "random", *, memory_bytes: int = 0, pinned: bool = False
) -> Deployment:
    """Describe a GGUF file as a chat model with four slots of 1024 tokens."""
    return Deployment(
        entry=ModelEntry(id=name, name=name, task="text-generation"),
        engine="llamacpp",
        weights=weights,
        context_tokens=1024,
        parallel=4,
        memory_bytes=memory_bytes,
        pinned=pinned,
    )
