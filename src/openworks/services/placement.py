"""From a model of the catalogue to the engine that serves it, with the memory that it will take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from openworks.core.errors import ModelNotFoundError
from openworks.core.gguf import GgufHeader, read_header
from openworks.core.hf_config import HfConfig, read_config
from openworks.ports.adapters import Adapter
from openworks.ports.catalog import (
    Deployment,
    EngineName,
    ExecutorName,
    ModelEntry,
    Precision,
    Task,
    WeightsFormat,
    WeightsSource,
)
from openworks.ports.weights import LocalWeights, Weights


@dataclass(frozen=True, slots=True)
class Served:
    """What an engine runs."""

    format: WeightsFormat
    tasks: frozenset[Task]
    overhead_bytes: int
    """What its process takes beside weights and cache (measured)."""


SERVED: Mapping[EngineName, Served] = {
    "llamacpp": Served(
        "llamacpp", frozenset({"text-generation", "text-embeddings", "rerank"}), 96 << 20
    ),
    "batched": Served("transformers", frozenset({"text-generation"}), 384 << 20),
}
"""The engines of this release, the preferred one first."""

LORA_BASE = "-lora"
"""How Cloudflare's names of models end that are there to be given adapters."""

EngineChoice: TypeAlias = Literal["auto"] | EngineName


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """How one model is served."""

    engine: EngineName | None = None
    """The one engine that serves it; None for the catalogue's choice."""
    context_tokens: Annotated[int, Field(ge=1)] | None = None
    """The longest sequence to serve; None for the smaller of 8192 and the trained maximum."""
    parallel: Annotated[int, Field(ge=1)] | None = None
    """How many requests it decodes at once."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads; None for one on each core, one in all for tiny models."""
    executor: ExecutorName | None = None
    """What computes in the batched engine; None for the fastest that this machine has."""
    precision: Precision = "auto"
    """What the batched engine computes in; auto: the fastest that keeps the quality. int4 is
    OpenVINO's alone."""
    pinned: bool = False
    """Never evicted to make room for another model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementDefaults:
    """What models are served with that say nothing else."""

    engine: EngineChoice
    context_tokens: int
    parallel: int
    batched_parallel: int


class Placement:
    """Decides which engine runs a model, and describes how."""

    def __init__(
        self,
        weights: Weights,
        *,
        engines: AbstractSet[EngineName],
        models: Mapping[str, ModelConfig],
        defaults: PlacementDefaults,
    ) -> None:
        """Decide for one machine.

        Args:
            weights: What is on this machine.
            engines: The engines whose libraries are installed.
            models: How models are served that differ, by id.
            defaults: How all others are.
        """
        self._weights = weights
        self._engines = engines
        self._models = models
        self._defaults = defaults
        self._made: dict[tuple[str, bool], Deployment] = {}

    def deploy(self, entry: ModelEntry, adapter: Adapter | None = None) -> Deployment:
        """Return how a model is served, with an adapter or without.

        Raises:
            ModelNotFoundError: No engine here runs it, or its weights are not on this machine.
        """
        key = (entry.id, adapter is not None)
        if key not in self._made:
            self._made[key] = self._deploy(entry, with_adapter=adapter is not None)
        return self._made[key] if adapter is None else replace(self._made[key], adapter=adapter)

    def forget(self, entry_id: str) -> None:
        """Decide anew about a model whose entry was replaced."""
        for with_adapter in (False, True):
            self._made.pop((entry_id, with_adapter), None)

    def is_here(self, entry: ModelEntry) -> bool:
        """Whether it can answer now."""
        return self._local(entry, with_adapter=False) is not None

    def servable(
        self, entry: ModelEntry, *, with_adapter: bool = False
    ) -> list[tuple[EngineName, WeightsSource]]:
        """The engines that can run a model for its task, the preferred one first."""
        return [
            (engine, entry.weights[SERVED[engine].format])
            for engine in self._order(entry, with_adapter=with_adapter)
            if engine in self._engines
            and SERVED[engine].format in entry.weights
            and entry.task in SERVED[engine].tasks
        ]

    def source_of(self, entry: ModelEntry) -> WeightsSource:
        """Return the weights of the engine that serves `entry`.

        Raises:
            ModelNotFoundError: No engine here does: its weights would be of no use.
        """
        for _, source in self.servable(entry):
            return source
        raise ModelNotFoundError(
            f"The model {entry.id!r} is known ({entry.task}), but no engine of this server "
            f"runs it yet.{self._remedy(entry)}",
            param="model",
        )

    def _order(self, entry: ModelEntry, *, with_adapter: bool) -> Sequence[EngineName]:
        """The engines that may serve a model, the preferred one first."""
        if (only := self._models.get(entry.id, ModelConfig()).engine) is not None:
            return (only,)
        first = self._defaults.engine
        if first == "auto":
            first = "batched" if with_adapter or entry.id.endswith(LORA_BASE) else "llamacpp"
        return sorted(SERVED, key=lambda engine: engine != first)

    def _remedy(self, entry: ModelEntry) -> str:
        if "transformers" in entry.weights and entry.task in SERVED["batched"].tasks:
            return " The batched engine would: pip install 'openworks[torch]'."
        return ""

    def _local(
        self, entry: ModelEntry, *, with_adapter: bool
    ) -> tuple[EngineName, LocalWeights] | None:
        for engine, source in self.servable(entry, with_adapter=with_adapter):
            if (local := self._weights.locate(source)) is not None:
                return engine, local
        return None

    def _deploy(self, entry: ModelEntry, *, with_adapter: bool) -> Deployment:
        found = self._local(entry, with_adapter=with_adapter)
        if found is None:
            self.source_of(entry)
            raise ModelNotFoundError(
                f"The model {entry.id!r} is known, but its weights are not on this machine. "
                f"Fetch them with: openworks models pull {entry.id}",
                param="model",
            )
        engine, local = found
        config = self._models.get(entry.id, ModelConfig())
        header = _header(engine, local)
        trained = header.context_tokens or entry.context_tokens or self._defaults.context_tokens
        context_tokens = min(trained, config.context_tokens or self._defaults.context_tokens)
        slots = config.parallel or self._defaults.parallel
        is_batched = engine == "batched"
        cache_tokens = context_tokens * slots
        return Deployment(
            entry=entry,
            engine=engine,
            weights=local.path,
            mmproj=local.mmproj,
            context_tokens=context_tokens,
            # The batched engine shares its cache in blocks: more texts than whole contexts fit.
            parallel=max(slots, self._defaults.batched_parallel) if is_batched else slots,
            cache_tokens=cache_tokens,
            threads=config.threads,
            executor=config.executor,
            precision=config.precision,
            pinned=config.pinned,
            memory_bytes=local.size_bytes
            + header.kv_bytes_per_token() * cache_tokens
            + SERVED[engine].overhead_bytes,
        )


def _header(engine: EngineName, local: LocalWeights) -> GgufHeader | HfConfig:
    return read_header(local.path) if engine == "llamacpp" else read_config(local.path)
