"""`openworks models`: what can be served, and the weights on this machine."""

from __future__ import annotations

import asyncio
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from openworks.app.cli.options import (
    ConfigOption,
    DataDirOption,
    JsonOption,
    make_folder,
    read_settings,
)
from openworks.app.cli.terminal import (
    Downloads,
    bytes_text,
    hide_logs,
    print_json,
    print_table,
    stderr,
    table,
)
from openworks.core.errors import InvalidRequestError, ModelNotFoundError, NotFoundError

if TYPE_CHECKING:
    from openworks.app.settings import Settings
    from openworks.core.json import JsonObject
    from openworks.ports.catalog import ModelEntry, WeightsSource
    from openworks.services.catalog import Catalog
    from openworks.storage.weights.hub import HubWeights

app = typer.Typer(no_args_is_help=True, help="List, fetch and remove models.")

NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="A catalogue id, one of its aliases, or a Hub repository.",
        show_default=False,
    ),
]


@app.command("list")
def list_models(
    every: Annotated[
        bool, typer.Option("--all", help="The whole catalogue, fetched or not.")
    ] = False,
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """List the models whose weights are on this machine."""
    settings = read_settings(config, data_dir)
    rows = asyncio.run(_rows(settings, every=every))
    if as_json:
        print_json(rows)
        return
    _print(rows, every=every)
    if any(row["default"] for row in rows):
        print("\n* answers to OpenAI's own names for its task, such as gpt-4o-mini")
    if not every:
        print(f"{len(rows)} here; all that are known: openworks models list --all")


@app.command()
def pull(name: NameArgument, data_dir: DataDirOption = None, config: ConfigOption = None) -> None:
    """Fetch a model's weights, or go on where an earlier attempt stopped.

    NAME may be a catalogue id, one of its aliases, or a Hub repository: owner/name, or
    owner/name:Q8_0 for one of its quantisations.
    """
    settings = read_settings(config, data_dir)
    make_folder(settings)
    hide_logs()
    asyncio.run(_pull(settings, name))


@app.command()
def rm(name: NameArgument, data_dir: DataDirOption = None, config: ConfigOption = None) -> None:
    """Remove a model's weights: all that was fetched from its repository."""
    settings = read_settings(config, data_dir)
    asyncio.run(_remove(settings, name))


async def _rows(settings: Settings, *, every: bool) -> list[JsonObject]:
    from openworks.app.cli.local_models import local_catalog
    from openworks.app.state import make_weights

    weights = make_weights(settings)
    try:
        catalog, _ = await local_catalog(settings, weights)
        served = catalog.served()
        shown = catalog.entries() if every else served
        shown.sort(key=lambda entry: (not _is_text(entry), entry.task, entry not in served))
        return [_row(catalog, entry, weights) for entry in shown]
    finally:
        await weights.close()


def _row(catalog: Catalog, entry: ModelEntry, weights: HubWeights) -> JsonObject:
    from openworks.app.cli.local_models import source_of, weights_of

    source = source_of(catalog, entry)
    local = weights_of(catalog, entry, weights)
    return {
        "id": entry.id,
        "task": entry.task,
        "context_tokens": entry.context_tokens,
        "from": _origin(source or next(iter(entry.weights.values()), None)),
        "size_bytes": local.size_bytes if local else None,
        "here": local is not None,
        "servable": source is not None,
        "default": catalog.default(entry.task) == entry.id,
        "aliases": [*entry.aliases],
        "gated": entry.gated,
    }


def _print(rows: list[JsonObject], *, every: bool) -> None:
    made = table("MODEL", "CONTEXT", "HERE", "FROM", right=("CONTEXT", "HERE"), cut=("FROM",))
    for task, group in groupby(rows, key=lambda row: row["task"]):
        made.add_row(str(task), style="bold cyan")
        for row in group:
            made.add_row(
                f"  {row['id']}{' *' if row['default'] else ''}",
                str(row["context_tokens"] or "-"),
                _here(row),
                str(row["from"]),
            )
    print_table(made)
    if every:
        print("\nunserved: no engine of this release runs it yet")


def _here(row: JsonObject) -> str:
    if isinstance(size_bytes := row["size_bytes"], int):
        return bytes_text(size_bytes)
    return "no" if row["servable"] else "unserved"


def _is_text(entry: ModelEntry) -> bool:
    return entry.task in {"text-generation", "text-embeddings"}


def _origin(source: WeightsSource | None) -> str:
    if source is None:
        return ""
    if source.package is not None:
        return "this package"
    if source.path is not None:
        return str(source.path)
    return str(source.repo)


async def _pull(settings: Settings, name: str) -> None:
    from openworks.app.cli.local_models import source_of
    from openworks.app.state import chooses_file, hub_source, make_catalog, make_weights
    from openworks.ports.weights import LocalWeights

    weights = make_weights(settings)
    downloads = Downloads(stderr())
    try:
        catalog = await make_catalog(
            _without_models(settings), weights, on_progress=downloads.on_progress
        )
        entry = None if chooses_file(name) else catalog.find(name)
        source = source_of(catalog, entry) if entry is not None else await hub_source(name, weights)
        if source is None:
            raise ModelNotFoundError(f"{name} is known, but no engine of this release runs it yet.")
        local: LocalWeights | None = weights.locate(source)
        if local is not None:
            print(f"{name} is complete already: {bytes_text(local.size_bytes)} at {local.path}")
            return
        with downloads.shown():
            local = await weights.fetch(source, on_progress=downloads.on_progress)
    except asyncio.CancelledError:
        if downloads.seen:
            stderr().print("Stopped; the same command goes on from here.")
        raise
    finally:
        await weights.close()
    print(f"{name} is complete: {bytes_text(local.size_bytes)} at {local.path}")
    print(f"Serve it with: openworks serve --model {name}")


async def _remove(settings: Settings, name: str) -> None:
    from openworks.app.cli.local_models import source_of
    from openworks.app.state import chooses_file, make_catalog, make_weights

    weights = make_weights(settings)
    try:
        catalog = await make_catalog(
            _without_models(settings), weights, on_progress=lambda *_: None
        )
        repo = name.partition(":")[0]
        if chooses_file(name):
            raise InvalidRequestError(
                f"Weights are removed a repository at a time: openworks models rm {repo}"
            )
        entry = catalog.find(name)
        source = source_of(catalog, entry) if entry is not None else None
        if source is not None and source.repo is None:
            raise InvalidRequestError(f"{name} is part of this package and cannot be removed.")
        if source is not None and source.repo is not None:
            repo = source.repo
        freed_bytes = await weights.remove(repo)
    finally:
        await weights.close()
    if not freed_bytes:
        raise NotFoundError(f"Nothing of {name} is on this machine.")
    print(f"Removed {repo}, {bytes_text(freed_bytes)}.")


def _without_models(settings: Settings) -> Settings:
    """Leave out the models to serve, which would be fetched as well."""
    from dataclasses import replace

    return replace(settings, models=())
