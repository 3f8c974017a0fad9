"""The catalogue: from the name that a caller uses to the deployment that answers."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from openworks.core.errors import InvalidRequestError, ModelNotFoundError
from openworks.ports.adapters import Adapter
from openworks.ports.catalog import Deployment, EngineName, ModelEntry, Task, WeightsSource
from openworks.ports.weights import Weights
from openworks.services.model_files import entry_of
from openworks.services.placement import EngineChoice, ModelConfig, Placement, PlacementDefaults

MAX_NAME_CHARS = 256
"""A longer name is no model's; it is refused before anything is compared with it."""
_SHOWN_NAME_CHARS = 64
_REPO = re.compile(r"[\w.-]+/[\w.-]+")


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
    engine: EngineChoice = "auto"
    """The engine that is preferred where several could serve a model. auto: llamacpp, or batched
    for calls with an adapter and for models named `...-lora`. An engine that is not installed, or
    whose weights are not on this machine, leaves a model to another."""
    context_tokens: Annotated[int, Field(ge=1)] = 8192
    """The longest sequence to serve, where the model was trained for as many."""
    parallel: Annotated[int, Field(ge=1)] = 4
    """How many requests of full length a model decodes at once."""
    batched_parallel: Annotated[int, Field(ge=1)] = 32
    """How many requests the batched engine decodes at once, while they fit into its cache."""
    models: Mapping[str, ModelConfig] = field(default_factory=dict)
    """Model id → how it is served, where it differs."""


class Catalog:
    """Resolves the names that all callers share."""

    def __init__(
        self,
        entries: Sequence[ModelEntry],
        task_aliases: Mapping[str, Task],
        *,
        weights: Weights,
        config: CatalogConfig,
        engines: AbstractSet[EngineName] = frozenset({"llamacpp"}),
    ) -> None:
        self._weights = weights
        self._placement = Placement(
            weights,
            engines=engines,
            models=config.models,
            defaults=PlacementDefaults(
                engine=config.engine,
                context_tokens=config.context_tokens,
                parallel=config.parallel,
                batched_parallel=config.batched_parallel,
            ),
        )
        self._config = config
        self._task_aliases = task_aliases
        self._defaults: dict[Task, str] = dict(config.defaults)
        self._entries: dict[str, ModelEntry] = {}
        self._names: dict[str, str] = {}
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
        entry = entry_of(local.path, name, source)
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
        return self.deploy(name)

    def deploy(self, name: str, adapter: Adapter | None = None) -> Deployment:
        """Return what `name` stands for, as it is served with an adapter.

        Raises:
            ModelNotFoundError: As `resolve` does.
        """
        entry = self.find(name)
        if entry is None:
            raise self.unknown(name)
        return self._placement.deploy(entry, adapter)

    def served(self) -> list[ModelEntry]:
        """List the models that can answer now, defaults first."""
        self.register_pulled()
        here = [entry for entry in self._entries.values() if self._placement.is_here(entry)]
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
        self._placement.forget(entry.id)
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
        if local is None:
            return None
        try:
            entry = entry_of(local.path, name, source)
        except InvalidRequestError:  # no model of text, or of a kind that no engine here runs
            return None
        if not self.sources(entry):
            return None
        self._register(entry)
        return entry

    def _is_of_catalogue(self, repo: str) -> bool:
        return any(
            source.repo == repo
            for entry in self._entries.values()
            for source in self.sources(entry)
        )

    def sources(self, entry: ModelEntry) -> list[WeightsSource]:
        """The weights of the engines that could serve `entry`, the preferred one's first."""
        return [source for _, source in self._placement.servable(entry)]

    def source_of(self, entry: ModelEntry) -> WeightsSource:
        """Return the weights of the engine that serves `entry`.

        Raises:
            ModelNotFoundError: No engine here does: its weights would be of no use.
        """
        return self._placement.source_of(entry)
