"""What a model name stands for: catalogue entries and the deployments they resolve to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from openworks.core.ids import AccountId
from openworks.ports.adapters import Adapter

Task = Literal[
    "text-generation",
    "text-embeddings",
    "text-classification",
    "rerank",
    "summarization",
    "translation",
    "automatic-speech-recognition",
    "text-to-speech",
    "text-to-image",
    "image-to-image",
    "inpainting",
    "image-classification",
    "object-detection",
    "image-to-text",
    "moderation",
]
Capability = Literal["tools", "json_schema", "reasoning", "vision", "lora", "streaming"]
WeightsFormat = Literal["llamacpp", "transformers", "diffusers"]
"""The library whose files they are: GGUF, or the folders of a Hugging Face library."""
EngineName = Literal["llamacpp", "batched"]
Precision = Literal["auto", "float32", "bfloat16", "int8", "int4"]
ExecutorName = Literal["torch", "openvino", "transformers"]
"""What computes in the batched engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsSource:
    """Where an engine finds a model's weights: exactly one of `repo`, `package` and `path`."""

    repo: str | None = None
    """A Hugging Face Hub repository, `owner/name`."""
    package: str | None = None
    """A folder shipped inside this package, under `openworks/models/`."""
    path: Path | None = None
    """A file or folder on this machine."""
    file: str | None = None
    """The file inside the repository or folder; None for all of it."""
    mmproj: str | None = None
    """The vision projector's file, where the model sees."""
    revision: str | None = None
    """A branch, tag or commit of the repository; None for its default branch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a call costs, in US dollars; the units that the task meters."""

    input_usd_per_mtok: float = 0.0
    output_usd_per_mtok: float = 0.0
    cached_input_usd_per_mtok: float | None = None
    """For prompt tokens that a cache saved; None when they cost what others do."""
    units: Mapping[str, float] = field(default_factory=dict)
    """Other metered units, such as `usd_per_audio_minute`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """One model of the catalogue, as its TOML table states it."""

    id: str
    name: str
    task: Task
    aliases: tuple[str, ...] = ()
    context_tokens: int | None = None
    capabilities: frozenset[Capability] = frozenset()
    license: str | None = None
    gated: bool = False
    parameters: str | None = None
    template: str | None = None
    weights: Mapping[WeightsFormat, WeightsSource] = field(default_factory=dict)
    price: Price = Price()


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What a model name resolves to: an entry, an engine, and weights that are on this machine."""

    entry: ModelEntry
    engine: EngineName
    weights: Path
    """The GGUF file, or the folder of a transformers model."""
    mmproj: Path | None = None
    context_tokens: int | None = None
    """The longest sequence to serve; None for the engine's own choice."""
    parallel: int = 4
    """How many requests the engine decodes at once."""
    cache_tokens: int | None = None
    """Tokens of all requests together for which the batched engine keeps keys and values."""
    threads: int | None = None
    """CPU threads; None lets the engine choose."""
    pinned: bool = False
    """Never evicted to make room for another model."""
    memory_bytes: int = 0
    """What loading it is expected to take."""
    executor: ExecutorName | None = None
    """What computes in the batched engine; None for the fastest that this machine has."""
    precision: Precision = "auto"
    """What the batched engine computes in."""
    adapter_slots: int = 32
    """How many different adapters one step of the batched engine may hold."""
    adapter_memory_bytes: int = 1 << 30
    """Host memory for adapters that are loaded and may be in no step."""
    adapter: Adapter | None = None
    """The LoRA that the caller named beside the model."""

    @property
    def id(self) -> str:
        """What records and `/v1/models` call it: the catalogue id, with the adapter's name."""
        return self.entry.id if self.adapter is None else f"{self.entry.id}+{self.adapter.name}"


class Models(Protocol):
    """The names that callers use."""

    def canonical(self, name: str) -> str:
        """The id of the model that a name stands for; the name itself when there is none."""
        ...

    def resolve(self, name: str) -> Deployment:
        """Return what `name` stands for.

        Raises:
            ModelNotFoundError: Nothing; or a known model whose weights are not on this machine, in
                which case the message says how to get them.
        """
        ...

    async def deploy(self, name: str, account: AccountId) -> Deployment:
        """Return what `name` stands for when `account` calls: also an adapter of its own.

        Raises:
            ModelNotFoundError: As `resolve` does; or an adapter that the account does not have.
        """
        ...
