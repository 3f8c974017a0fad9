"""The catalogue with what is on this machine already, for commands that fetch nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from openworks.app.settings import Settings
from openworks.app.state import chooses_file, make_catalog
from openworks.ports.catalog import ModelEntry, WeightsSource
from openworks.ports.weights import LocalWeights
from openworks.services.catalog import Catalog
from openworks.storage.weights import choose
from openworks.storage.weights.hub import HubWeights


async def local_catalog(settings: Settings, weights: HubWeights) -> tuple[Catalog, list[str]]:
    """Return the catalogue with every model that could be served without the network.

    Returns:
        The catalogue, and those names of the settings whose weights are not here.
    """
    known = await make_catalog(replace(settings, models=()), weights, on_progress=_ignore)
    here = [name for name in settings.models if _is_here(known, weights, name)]
    catalog = await make_catalog(
        replace(settings, models=tuple(here)), weights, on_progress=_ignore
    )
    catalog.register_pulled()
    return catalog, [name for name in settings.models if name not in here]


def source_of(catalog: Catalog, entry: ModelEntry) -> WeightsSource | None:
    """Return where the weights of the engine come from that would serve `entry`; None for none."""
    return next(iter(catalog.sources(entry)), None)


def weights_of(catalog: Catalog, entry: ModelEntry, weights: HubWeights) -> LocalWeights | None:
    """Return the weights of `entry`, if they are on this machine, for any engine."""
    found = (weights.locate(source) for source in catalog.sources(entry))
    return next((local for local in found if local is not None), None)


def _is_here(catalog: Catalog, weights: HubWeights, name: str) -> bool:
    if Path(name).expanduser().exists():
        return True
    if chooses_file(name):
        repo, choice = choose.split_name(name)
        files = [
            file for pulled in weights.pulled() if pulled.repo == repo for file in pulled.files
        ]
        return choose.choose_gguf(files, choice) is not None
    entry = catalog.find(name)
    return entry is not None and weights_of(catalog, entry, weights) is not None


def _ignore(file: str, size_bytes: int, total_bytes: int) -> None:
    """Nothing is fetched here."""
