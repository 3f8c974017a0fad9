"""Reads the catalogue's TOML files, refusing what it does not know."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Annotated, cast

from pydantic import BaseModel, ConfigDict, Field

from openworks.ports.catalog import (
    Capability,
    ModelEntry,
    Price,
    Task,
    WeightsFormat,
    WeightsSource,
)

_FOLDER = "catalogue"
_ALIASES = "aliases.toml"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Weights(_Strict):
    repo: str | None = None
    package: str | None = None
    file: str | None = None
    mmproj: str | None = None
    revision: str | None = None


class _Price(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    input_usd_per_mtok: Annotated[float, Field(ge=0)] = 0.0
    output_usd_per_mtok: Annotated[float, Field(ge=0)] = 0.0


class _Entry(_Strict):
    id: str
    name: str
    task: Task
    aliases: tuple[str, ...] = ()
    context_tokens: Annotated[int, Field(gt=0)] | None = None
    capabilities: frozenset[Capability] = frozenset()
    license: str | None = None
    gated: bool = False
    parameters: str | None = None
    template: str | None = None
    weights: dict[WeightsFormat, _Weights] = {}
    price: _Price = _Price()


class _File(_Strict):
    model: tuple[_Entry, ...] = ()


class _Aliases(_Strict):
    aliases: dict[str, Task]


@dataclass(frozen=True, slots=True)
class CatalogFiles:
    """What the package's catalogue holds."""

    entries: tuple[ModelEntry, ...]
    task_aliases: Mapping[str, Task]
    """Names that OpenAI code carries → the task whose default model answers to them."""


@cache
def read_catalog() -> CatalogFiles:
    """Read `openworks/catalogue/*.toml`.

    Raises:
        ValueError: An entry is wrong; names the file, the key and what was expected.
    """
    entries: list[ModelEntry] = []
    aliases: Mapping[str, Task] = {}
    for file in sorted(files("openworks").joinpath(_FOLDER).iterdir(), key=lambda f: f.name):
        if not file.name.endswith(".toml"):
            continue
        table = tomllib.loads(file.read_text(encoding="utf-8"))
        if file.name == _ALIASES:
            aliases = _Aliases.model_validate(table).aliases
        else:
            entries += [_entry(entry) for entry in _File.model_validate(table).model]
    return CatalogFiles(entries=tuple(entries), task_aliases=aliases)


def _entry(entry: _Entry) -> ModelEntry:
    units = cast("dict[str, float]", entry.price.model_extra or {})
    return ModelEntry(
        id=entry.id,
        name=entry.name,
        task=entry.task,
        aliases=entry.aliases,
        context_tokens=entry.context_tokens,
        capabilities=entry.capabilities,
        license=entry.license,
        gated=entry.gated,
        parameters=entry.parameters,
        template=entry.template or None,
        weights={
            engine: WeightsSource(**source.model_dump()) for engine, source in entry.weights.items()
        },
        price=Price(
            input_usd_per_mtok=entry.price.input_usd_per_mtok,
            output_usd_per_mtok=entry.price.output_usd_per_mtok,
            units=units,
        ),
    )
