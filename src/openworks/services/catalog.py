"""The catalogue: from the name that a caller uses to the deployment that answers."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field

from openworks.core.errors import InvalidRequestError, ModelNotFoundError
from openworks.core.gguf import GgufHeader, read_header
from openworks.ports.catalog import (
    Capability,
    Deployment,
    EngineName,
    ModelEntry,
    Task,
    WeightsSource,
)
from openworks.ports.weights import LocalWeights, Weights

SERVED: Mapping[EngineName, frozenset[Task]] = {
    "llamacpp": frozenset({"text-generation", "text-embeddings", "rerank"})
}
"""The engines of this release, the preferred one first, and the tasks that each serves."""

_OVERHEAD_BYTES = 96 << 20
"""What an engine process takes beside weights and KV cache (measured: about 90 MB)."""
MAX_NAME_CHARS = 256
"""A longer name is no model's; it is refused before anything is compared with it."""
_SHOWN_NAME_CHARS = 64
_REPO = re.compile(r"[\w.-]+/[\w.-]+")
_RANK_POOLING = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """How one model is served."""

    context_tokens: Annotated[int, Field(ge=1)] | None = None
    """The longest sequence to serve; None for the smaller of 8192 and the trained maximum."""
    parallel: Annotated[int, Field(ge=1)] | None = None
    """How many requests it decodes at once."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads; None for one on each core, one in all for tiny models."""
    pinned: bool = False
    """Never evicted to make room for another model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogConfig:
    """Which models answer to which names."""

    defaults: Mapping[Task, str] = field(
        default_factory=lambda: {
            "text-generation": "@openworks/tiny-chat",
            "text-embeddings": "@openworks/tiny-embed",
        }
    )
    """Task → the model that answers to OpenAI's own names, such as gpt-4o-mini."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Further names → the models that they stand for; they win over every other name."""
    context_tokens: Annotated[int, Field(ge=1)] = 8192
    """The longest sequence to serve, where the model was trained for as many."""
    parallel: Annotated[int, Field(ge=1)] = 4
    """How many requests a model decodes at once."""
    models: Mapping[str, ModelConfig] = field(default_factory=dict)
    """Model id → how it is served, where it differs."""


class Catalog:
    """Resolves names. Implements `ports.catalog.Models`."""

    def __init__(
        self,
        entries: Sequence[ModelEntry],
        task_aliases: Mapping[str, Task],
        *,
        weights: Weights,
        config: CatalogConfig,
    ) -> None:
        self._weights = weights
        self._config = config
        self._task_aliases = task_aliases
        self._defaults: dict[Task, str] = dict(config.defaults)
        self._entries: dict[str, ModelEntry] = {}
        self._names: dict[str, str] = {}
        self._deployments: dict[str, Deployment] = {}
        for entry in entries:
            self._register(entry)

    def serve(self, source: WeightsSource, name: str) -> ModelEntry:
        """Add a model that the operator named, and make it the default of its task.

        Args:
            source: Weights that are on this machine already.
            name: The id under which it is served.
        """
        local = self._weights.locate(source)
        if local is None:
            raise ModelNotFoundError(f"The weights of {name!r} are not on this machine.")
        entry = entry_of_file(local.path, name, source)
        self._register(entry)
        self.set_default(entry)
        return entry

    def set_default(self, entry: ModelEntry) -> None:
        """Let `entry` answer to OpenAI's names for its task."""
        self._defaults[entry.task] = entry.id

    def default(self, task: Task) -> str | None:
        """The id of the model that answers to OpenAI's names for `task`."""
        return self._defaults.get(task)

    def find(self, name: str) -> ModelEntry | None:
        """Return the entry that `name` stands for, whether or not its weights are here."""
        if len(name) > MAX_NAME_CHARS:
            return None
        name = self._config.aliases.get(name, name)
        for id_ in (name, self._names.get(name)):  # an id wins: a file may be called as an alias
            if id_ is not None and (entry := self._entries.get(id_)) is not None:
                return entry
        if (task := self._task_aliases.get(name)) is not None:
            default = self._defaults.get(task)
            return self._entries.get(default) if default else None
        return self._pulled(name)

    def canonical(self, name: str) -> str:
        entry = self.find(name)
        return entry.id if entry else name

    def resolve(self, name: str) -> Deployment:
        entry = self.find(name)
        if entry is None:
            raise self.unknown(name)
        deployment = self._deployments.get(entry.id) or self._deploy(entry)
        self._deployments[entry.id] = deployment
        return deployment

    def served(self) -> list[ModelEntry]:
        """List the models that can answer now, defaults first."""
        self.register_pulled()
        here = [entry for entry in self._entries.values() if self._local(entry) is not None]
        defaults = set(self._defaults.values())
        return sorted(here, key=lambda entry: (entry.id not in defaults, entry.id))

    def register_pulled(self) -> None:
        """Take in the repositories of the local cache, under their own names."""
        for pulled in self._weights.pulled():
            self._pulled(pulled.repo)

    def entries(self) -> list[ModelEntry]:
        """List every known model."""
        return list(self._entries.values())

    def unknown(self, name: str) -> ModelNotFoundError:
        """Make the error that tells a caller of a name that stands for nothing."""
        if len(name) > MAX_NAME_CHARS:
            return ModelNotFoundError(
                f"The model {name[:_SHOWN_NAME_CHARS] + '...'!r} does not exist: a name has at "
                f"most {MAX_NAME_CHARS} characters.",
                param="model",
            )
        known = [*self._entries, *self._names, *self._config.aliases]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return ModelNotFoundError(
            f"The model {name!r} does not exist or you do not have access to it.{hint}",
            param="model",
        )

    def _register(self, entry: ModelEntry) -> None:
        self._entries[entry.id] = entry
        for alias in entry.aliases:
            self._names.setdefault(alias, entry.id)

    def _pulled(self, name: str) -> ModelEntry | None:
        """A repository of the Hub under its own name, if it was pulled and is of use."""
        if name in self._entries or self._is_of_catalogue(name) or not _REPO.fullmatch(name):
            return self._entries.get(name)
        source = WeightsSource(repo=name)
        try:
            local = self._weights.locate(source)
        except InvalidRequestError:  # the Hub has rules for names beyond their shape
            return None
        if local is None or local.path.suffix != ".gguf":
            return None
        entry = entry_of_file(local.path, name, source)
        self._register(entry)
        return entry

    def _is_of_catalogue(self, repo: str) -> bool:
        return any(
            source.repo == repo for entry in self._entries.values() for _, source in servable(entry)
        )

    def _local(self, entry: ModelEntry) -> tuple[EngineName, LocalWeights] | None:
        for engine, source in servable(entry):
            if (local := self._weights.locate(source)) is not None:
                return engine, local
        return None

    def _deploy(self, entry: ModelEntry) -> Deployment:
        found = self._local(entry)
        if found is None:
            raise self._missing(entry)
        engine, local = found
        header = read_header(local.path)
        config = self._config.models.get(entry.id, ModelConfig())
        trained = header.context_tokens or entry.context_tokens or self._config.context_tokens
        context_tokens = min(trained, config.context_tokens or self._config.context_tokens)
        parallel = config.parallel or self._config.parallel
        return Deployment(
            entry=entry,
            engine=engine,
            weights=local.path,
            mmproj=local.mmproj,
            context_tokens=context_tokens,
            parallel=parallel,
            threads=config.threads,
            pinned=config.pinned,
            memory_bytes=local.size_bytes
            + header.kv_bytes_per_token() * context_tokens * parallel
            + _OVERHEAD_BYTES,
        )

    def source_of(self, entry: ModelEntry) -> WeightsSource:
        """Return the weights of the engine that serves `entry`.

        Raises:
            ModelNotFoundError: No engine here does: its weights would be of no use.
        """
        for _, source in servable(entry):
            return source
        raise ModelNotFoundError(
            f"The model {entry.id!r} is known ({entry.task}), but no engine of this server "
            "runs it yet.",
            param="model",
        )

    def _missing(self, entry: ModelEntry) -> ModelNotFoundError:
        self.source_of(entry)
        return ModelNotFoundError(
            f"The model {entry.id!r} is known, but its weights are not on this machine. "
            f"Fetch them with: openworks models pull {entry.id}",
            param="model",
        )


def servable(entry: ModelEntry) -> list[tuple[EngineName, WeightsSource]]:
    """The engines that can run a model for its task, with the weights that each needs."""
    return [
        (engine, entry.weights[engine])
        for engine, tasks in SERVED.items()
        if engine in entry.weights and entry.task in tasks
    ]


def entry_of_file(path: Path, name: str, source: WeightsSource) -> ModelEntry:
    """Describe a GGUF file by its own header.

    Raises:
        InvalidRequestError: It is no GGUF file.
    """
    if path.suffix != ".gguf":
        raise InvalidRequestError(f"{path} is not a .gguf file, the one format served so far.")
    header = read_header(path)
    return ModelEntry(
        id=name,
        name=header.text("general.name") or name,
        task=_task_of(header),
        context_tokens=header.context_tokens,
        capabilities=_capabilities_of(header),
        license=header.text("general.license"),
        parameters=header.text("general.size_label"),
        weights={"llamacpp": source},
    )


def _task_of(header: GgufHeader) -> Task:
    pooling = header.integer("{arch}.pooling_type")
    if pooling == _RANK_POOLING:
        return "rerank"
    return "text-embeddings" if pooling or "bert" in header.architecture else "text-generation"


def _capabilities_of(header: GgufHeader) -> frozenset[Capability]:
    if _task_of(header) != "text-generation":
        return frozenset()
    template = header.text("tokenizer.chat_template") or ""
    found: set[Capability] = {"json_schema", "streaming"}
    if "tools" in template:
        found.add("tools")
    if "enable_thinking" in template or "reasoning_effort" in template or "<think>" in template:
        found.add("reasoning")
    return frozenset(found)
