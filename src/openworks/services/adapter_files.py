"""Adapters on this machine: their files are fetched on first use, and the least used make room."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openworks.core.clock import Clock
from openworks.core.errors import StorageError
from openworks.ports.adapters import Adapter
from openworks.ports.blobs import Blobs
from openworks.services.adapter_check import WEIGHTS_FILE
from openworks.services.finetune_documents import Asset, Finetune

log = logging.getLogger(__name__)

_IN_USE_S: Final = 60.0
"""An engine that was told of a folder reads it within this time; until then it stays."""
_ARRIVING: Final = ".arriving-"


@dataclass(slots=True)
class _Here:
    size_bytes: int
    used_at_s: float


class AdapterFiles:
    """A folder with a folder for each adapter, of which this process alone makes use."""

    def __init__(self, blobs: Blobs, folder: Path, *, max_bytes: int, clock: Clock) -> None:
        """Remember where adapters come from and where they go.

        Args:
            blobs: Holds them all.
            folder: Made when it is not there; what it holds from an earlier run is used again.
            max_bytes: About how much may lie there; what is in use stays beyond that.
            clock: Of this process.
        """
        self._blobs = blobs
        self._folder = folder
        self._max_bytes = max_bytes
        self._clock = clock
        self._here: OrderedDict[str, _Here] | None = None
        self._looking = asyncio.Lock()
        self._fetching: dict[str, asyncio.Task[None]] = {}

    async def close(self) -> None:
        """End what is being fetched."""
        tasks = list(self._fetching.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def bring(self, finetune: Finetune) -> Adapter:
        """Return an adapter whose files lie here; those who want the same share one fetch.

        Raises:
            StorageError: The store of blobs is away, or has lost a file; or the disk is full.
        """
        folder = self._folder / finetune.id
        if not self._use(finetune.id, folder):
            task = self._fetching.get(finetune.id)
            if task is None:
                task = asyncio.create_task(self._fetch(finetune.id, finetune.assets))
                self._fetching[finetune.id] = task
                task.add_done_callback(lambda _: self._fetching.pop(finetune.id, None))
            # The fetch goes on for others, and for the next call, when this one is cancelled.
            await asyncio.shield(task)
        weights = finetune.assets[WEIGHTS_FILE]
        return Adapter(
            id=finetune.id,
            name=finetune.name,
            generation=finetune.generation,
            folder=folder,
            rank=weights.rank,
            size_bytes=weights.size_bytes,
        )

    def forget(self, finetune: Finetune) -> None:
        """Delete the files of an adapter that is no more; blocks for as long as that takes."""
        if self._here is not None:
            self._here.pop(finetune.id, None)
        shutil.rmtree(self._folder / finetune.id, ignore_errors=True)

    def _use(self, name: str, folder: Path) -> bool:
        """Whether an adapter is here; it is then the last to go."""
        if self._here is None or name not in self._here or not folder.is_dir():
            return False  # a folder that is not there was cleaned up by someone
        self._here[name].used_at_s = self._clock.monotonic_s()
        self._here.move_to_end(name)
        return True

    async def _fetch(self, name: str, assets: Mapping[str, Asset]) -> None:
        here = await self._look()
        if self._use(name, self._folder / name):
            return
        arriving = self._folder / f"{_ARRIVING}{name}"
        await asyncio.to_thread(_make_empty, arriving)
        for file_name, asset in assets.items():
            await self._fetch_file(asset, arriving / file_name)
        # In one step, so that a folder is here whole or not at all.
        await asyncio.to_thread(_move, arriving, self._folder / name)
        size_bytes = sum(asset.size_bytes for asset in assets.values())
        here[name] = _Here(size_bytes, self._clock.monotonic_s())
        log.info("adapter.fetched", extra={"adapter": name, "size_bytes": size_bytes})
        await self._make_room(here)

    async def _look(self) -> OrderedDict[str, _Here]:
        """What is here; the folder is looked at once, and before anything arrives in it."""
        async with self._looking:  # a second look would take what arrives for what a crash left
            if self._here is None:
                found = await asyncio.to_thread(_found, self._folder)
                now_s = self._clock.monotonic_s()
                self._here = OrderedDict((key, _Here(size, now_s)) for key, size in found.items())
            return self._here

    async def _fetch_file(self, asset: Asset, path: Path) -> None:
        try:
            is_there = await self._blobs.get_file(asset.blob, path)
            size_bytes = (await asyncio.to_thread(path.stat)).st_size if is_there else None
        except OSError as exc:
            raise StorageError(f"An adapter's file cannot be written here: {exc}.") from exc
        if size_bytes != asset.size_bytes:
            raise StorageError(f"The blob {asset.blob!r} is missing, or not whole.")

    async def _make_room(self, here: OrderedDict[str, _Here]) -> None:
        """Delete what was not used for longest, while there is too much."""
        now_s = self._clock.monotonic_s()
        total = sum(item.size_bytes for item in here.values())
        for name, item in list(here.items()):
            if total <= self._max_bytes or now_s - item.used_at_s < _IN_USE_S:
                break  # all that follow were used later still
            del here[name]
            total -= item.size_bytes
            await asyncio.to_thread(shutil.rmtree, self._folder / name, ignore_errors=True)


def _found(folder: Path) -> dict[str, int]:
    """What an earlier run left whole, and its size; the rest is deleted."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, int] = {}
    for inner in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime):
        if inner.name.startswith(_ARRIVING):
            shutil.rmtree(inner, ignore_errors=True)
        else:
            found[inner.name] = sum(file.stat().st_size for file in inner.iterdir())
    return found


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _move(arriving: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    arriving.rename(folder)
