"""Complete weights below a folder of this machine, found without the network."""

from __future__ import annotations

import json
from pathlib import Path

from openworks.ports.catalog import WeightsSource
from openworks.ports.weights import LocalWeights
from openworks.storage.weights import choose
from openworks.storage.weights.cache import list_files


def locate_below(root: Path, *, file: str | None, mmproj: str | None) -> LocalWeights | None:
    """Find one file with its parts, or a whole model; None when something of it is missing.

    Args:
        root: A folder, or the file itself.
        file: A file in the folder; None for a model in its own format, or else the preferred GGUF.
        mmproj: The vision projector, beside the file; None for the one that lies in a folder with
            a preferred GGUF, if there is one.
    """
    if file is not None:
        return _locate_file(root, file, mmproj)
    if root.is_file():
        return _locate_file(root.parent, root.name, mmproj)
    names = list_files(root)
    needed = choose.snapshot_files(names)
    if any(choose.is_weights(name) for name in needed):
        return _locate_snapshot(root, needed, mmproj)
    gguf = choose.choose_gguf(names)
    return None if gguf is None else _locate_file(root, gguf, mmproj or choose.choose_mmproj(names))


def place(source: WeightsSource) -> str:
    """Say where on this machine a source points, for an error's message."""
    if source.package is not None:
        file = f", file '{source.file}'" if source.file else ""
        return f"'{source.package}' in this package{file}"
    path = source.path or Path()
    return f"'{path / source.file if source.file else path}'"


def _locate_file(folder: Path, name: str, mmproj: str | None) -> LocalWeights | None:
    paths = [folder / part for part in choose.parts_of(name)]
    projector = None if mmproj is None else folder / mmproj
    everything = paths if projector is None else [*paths, projector]
    if not all(path.is_file() for path in everything):
        return None
    size_bytes = sum(path.stat().st_size for path in everything)
    return LocalWeights(path=paths[0], mmproj=projector, size_bytes=size_bytes)


def _locate_snapshot(root: Path, needed: list[str], mmproj: str | None) -> LocalWeights | None:
    projector = None if mmproj is None else root / mmproj
    if projector is not None and not projector.is_file():
        return None
    indexes = [root / name for name in needed if name.endswith(".index.json")]
    if not all(_has_shards(index) for index in indexes):
        return None
    size_bytes = sum((root / name).stat().st_size for name in needed)
    return LocalWeights(path=root, mmproj=projector, size_bytes=size_bytes)


def _has_shards(index: Path) -> bool:
    shards = set(json.loads(index.read_bytes())["weight_map"].values())
    return all((index.parent / shard).is_file() for shard in shards)
