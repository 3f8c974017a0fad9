"""What commands need without a server: state that outlives it, weights, the catalogue."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from openworks.app.settings import Settings, SettingsError
from openworks.core.clock import Clock, SystemClock
from openworks.core.errors import ModelNotFoundError
from openworks.core.ids import new_id
from openworks.ports.catalog import EngineName, WeightsSource
from openworks.ports.weights import Progress
from openworks.services.catalog import Catalog
from openworks.services.catalog_files import read_catalog
from openworks.services.keys import Keys
from openworks.services.stored_completions import StoredCompletions
from openworks.storage.blobs.store import ObjectBlobs
from openworks.storage.sql.database import Database, DatabaseConfig, sqlite_url
from openworks.storage.sql.keys import SqlKeyStore
from openworks.storage.sql.logs import SqlLogStore
from openworks.storage.sql.records import SqlRecordStore
from openworks.storage.sql.rollups import SqlAnalytics
from openworks.storage.sql.stored_completions import SqlStoredCompletionStore
from openworks.storage.weights import choose
from openworks.storage.weights.cache import list_files

if TYPE_CHECKING:
    from openworks.storage.weights.hub import HubWeights


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What outlives the process: for commands that need no engine."""

    database: Database
    keys: Keys
    records: SqlRecordStore
    logs: SqlLogStore
    analytics: SqlAnalytics
    stored_completions: StoredCompletions


@asynccontextmanager
async def open_state(settings: Settings, clock: Clock | None = None) -> AsyncIterator[State]:
    """Open the database, bringing its tables up to date."""
    settings.folder.mkdir(parents=True, exist_ok=True)
    clock = clock or SystemClock()
    database = Database(DatabaseConfig(url=database_url(settings)))
    await database.open()
    try:
        await database.migrate()
        yield State(
            database=database,
            keys=Keys(SqlKeyStore(database), settings.access, clock=clock, new_id=new_id),
            records=SqlRecordStore(database, clock=clock),
            logs=SqlLogStore(database, make_blobs(settings)),
            analytics=SqlAnalytics(database, clock=clock),
            stored_completions=StoredCompletions(SqlStoredCompletionStore(database)),
        )
    finally:
        await database.close()


def database_url(settings: Settings) -> str:
    """The database's URL: of the settings, or of a file in the data folder."""
    return settings.database.url or sqlite_url(settings.folder / "openworks.db")


def blobs_place(settings: Settings) -> str:
    """Where bodies of calls are: the settings' URL, or a folder in the data folder."""
    return settings.blobs.url or str(settings.folder / "blobs")


def make_blobs(settings: Settings) -> ObjectBlobs:
    """Return the server's own blobs.

    Raises:
        StorageError: Their place cannot be opened.
    """
    return ObjectBlobs(blobs_place(settings), settings.blobs.s3)


def make_weights(settings: Settings) -> HubWeights:
    """Return the weights of this machine."""
    from openworks.storage.weights.hub import HubConfig, HubWeights

    return HubWeights(
        HubConfig(
            cache_dir=settings.folder / "hub",
            endpoint=settings.hub.endpoint,
            token=settings.hub.token,
        )
    )


async def make_catalog(
    settings: Settings, weights: HubWeights, *, on_progress: Progress
) -> Catalog:
    """Return the catalogue with the models that the settings name, fetching what is missing.

    The last named model of a task becomes that task's default.

    Raises:
        SettingsError: Two files would be served under the same name.
        ModelNotFoundError: A name stands for nothing.
    """
    files = read_catalog()
    catalog = Catalog(
        files.entries,
        files.task_aliases,
        weights=weights,
        config=settings.catalog,
        engines=installed_engines(),
    )
    paths: dict[str, Path] = {}
    for name in settings.models:
        entry = None if chooses_file(name) else catalog.find(name)
        if entry is not None:
            source = catalog.source_of(entry)
            if weights.locate(source) is None:
                await weights.fetch(source, on_progress=on_progress)
            catalog.set_default(entry)
        else:
            source = await _source_of(name, weights, on_progress=on_progress)
            catalog.serve(source, name if source.path is None else _claim(paths, source.path))
    return catalog


def installed_engines() -> frozenset[EngineName]:
    """The engines whose libraries this environment has."""
    has_torch = all(find_spec(name) for name in ("torch", "tokenizers", "llguidance"))
    return frozenset({"llamacpp", "batched"}) if has_torch else frozenset({"llamacpp"})


def _claim(paths: dict[str, Path], path: Path) -> str:
    """Return the name under which a file or folder is served, which no other may have."""
    name = path.name if path.is_dir() else path.stem
    if not (other := paths.setdefault(name, path)).samefile(path):
        raise SettingsError(
            f"Two models would both be served as {name!r}: {other} and {path}. Rename one of them."
        )
    return name


def chooses_file(name: str) -> bool:
    """Whether a name is like `owner/name:Q8_0`, which takes a look at the repository's files."""
    return "/" in name and ":" in name


async def _source_of(name: str, weights: HubWeights, *, on_progress: Progress) -> WeightsSource:
    if (path := _local_path(name)) is not None:
        return _source_at(path)
    source = await hub_source(name, weights)
    if weights.locate(source) is None:
        await weights.fetch(source, on_progress=on_progress)
    return source


def _source_at(path: Path) -> WeightsSource:
    """A file, or the GGUF of a folder with the projector beside it."""
    if not path.is_dir():
        return WeightsSource(path=path)
    names = list_files(path)
    return WeightsSource(
        path=path, file=choose.choose_gguf(names), mmproj=choose.choose_mmproj(names)
    )


def _local_path(name: str) -> Path | None:
    path = Path(name).expanduser()
    if path.exists():
        return path.absolute()  # a link keeps its name: in the Hub's cache, its target has none
    if (name.endswith(".gguf") and not chooses_file(name)) or name.startswith(("/", ".", "~")):
        raise ModelNotFoundError(f"There is no file {path}.")
    return None


async def hub_source(name: str, weights: HubWeights) -> WeightsSource:
    """Choose what to take of a repository, for a name that the catalogue does not know.

    Raises:
        ModelNotFoundError: It names no repository, or one without such a file.
    """
    if "/" not in name:
        raise ModelNotFoundError(
            f"No model found with name {name!r}: the catalogue has none (openworks models list "
            "--all), and a repository of the Hub is named owner/name."
        )
    return await weights.resolve_file(name)
