"""Builds every component, opens it in order and closes it in reverse. Alone knows every class."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry

from openworks.api.context import Services
from openworks.app.control_plane import ControlPlane, make_control_plane
from openworks.app.data_plane import open_data_plane
from openworks.app.labelling import QuestionEmbedder, make_asker
from openworks.app.observability import open_observability, open_outbound, open_spans
from openworks.app.settings import Settings, SettingsError
from openworks.app.shared_state import open_cache, open_limiter
from openworks.core.clock import Clock, SystemClock
from openworks.core.errors import AppError, ModelLoadingError, ModelNotFoundError
from openworks.core.ids import new_id
from openworks.engines.pool import EnginePool
from openworks.gateway.gate import Gate
from openworks.gateway.http.sockets import AiohttpSockets
from openworks.gateway.ledger import Ledger
from openworks.gateway.observe import CallLog, CallMetrics, LogMetrics
from openworks.gateway.pipeline import Pipeline
from openworks.ports.catalog import WeightsSource
from openworks.ports.recorder import Recorder
from openworks.ports.weights import Progress
from openworks.services.catalog import Catalog
from openworks.services.catalog_files import read_catalog
from openworks.services.keys import Keys
from openworks.services.stored_completions import StoredCompletions
from openworks.storage.blobs.store import ObjectBlobs
from openworks.storage.logbook.process import LogbookPlaces, LogbookProcess
from openworks.storage.sql.database import Database, DatabaseConfig, plain_address, sqlite_url
from openworks.storage.sql.keys import SqlKeyStore
from openworks.storage.sql.logs import SqlLogStore
from openworks.storage.sql.records import SqlRecordStore
from openworks.storage.sql.rollups import SqlAnalytics
from openworks.storage.sql.stored_completions import SqlStoredCompletionStore
from openworks.storage.weights import choose
from openworks.storage.weights.cache import list_files
from openworks.storage.weights.hub import HubConfig, HubWeights

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What outlives the process: for commands that need no engine."""

    database: Database
    keys: Keys
    records: SqlRecordStore
    logs: SqlLogStore
    analytics: SqlAnalytics
    stored_completions: StoredCompletions
    control: ControlPlane


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
            logs=SqlLogStore(database, ObjectBlobs(blobs_place(settings))),
            analytics=SqlAnalytics(database, clock=clock),
            stored_completions=StoredCompletions(SqlStoredCompletionStore(database)),
            control=make_control_plane(database, settings, clock=clock, new_id=new_id),
        )
    finally:
        await database.close()


def database_url(settings: Settings) -> str:
    """The database's URL: of the settings, or of a file in the data folder."""
    return settings.database.url or sqlite_url(settings.folder / "openworks.db")


def blobs_place(settings: Settings) -> str:
    """Where bodies of calls are: the settings' URL, or a folder in the data folder."""
    return settings.blobs.url or str(settings.folder / "blobs")


def make_logbook(settings: Settings, clock: Clock) -> LogbookProcess:
    """Return the process that writes calls down, not yet started."""
    dialect, address = plain_address(database_url(settings))
    places = LogbookPlaces(
        dialect=dialect,
        address=address,
        blobs=blobs_place(settings),
        spool=settings.folder / "spool",
    )
    return LogbookProcess(places, settings.logbook, clock=clock)


def make_weights(settings: Settings) -> HubWeights:
    """Return the weights of this machine."""
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
    catalog = Catalog(files.entries, files.task_aliases, weights=weights, config=settings.catalog)
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


@asynccontextmanager
async def open_services(settings: Settings, catalog: Catalog) -> AsyncIterator[Services]:
    """Open everything that the server needs."""
    clock = SystemClock()
    registry = CollectorRegistry()
    async with AsyncExitStack() as stack:
        state = await stack.enter_async_context(open_state(settings, clock))
        control = state.control
        ledger = await stack.enter_async_context(_open_ledger(settings, clock))
        LogMetrics(ledger, registry)
        recorders: list[Recorder] = [ledger, CallMetrics(registry), CallLog()]
        stack.push_async_callback(control.snapshots.close)
        stack.push_async_callback(state.keys.close)
        outbound = await stack.enter_async_context(open_outbound(settings.gateway))
        recorders.append(
            await stack.enter_async_context(
                open_spans(control.snapshots, outbound, registry, clock)
            )
        )
        engines = await stack.enter_async_context(_open_engines(settings, catalog, clock))
        limiter = await stack.enter_async_context(
            open_limiter(settings.gateway, state.analytics, clock)
        )
        pipeline = Pipeline(
            models=catalog,
            engines=engines,
            recorders=recorders,
            gate=Gate(control.snapshots, limiter),
            clock=clock,
        )
        plane = await stack.enter_async_context(
            open_data_plane(
                settings.gateway,
                keys=state.keys,
                snapshots=control.snapshots,
                models=catalog,
                limiter=limiter,
                cache=await stack.enter_async_context(open_cache(settings.gateway, clock)),
                recorders=recorders,
                services=lambda: services,
                ask_model=make_asker(pipeline, new_id),
                embedder=QuestionEmbedder(pipeline, new_id),
                clock=clock,
            )
        )
        observed = await stack.enter_async_context(
            open_observability(
                settings.gateway,
                database=state.database,
                control=control,
                snapshots=control.snapshots,
                logs=state.logs,
                analytics=state.analytics,
                outbound=outbound,
                blobs=blobs_place(settings),
                written=ledger.drain,
                ask_model=make_asker(pipeline, new_id),
                clock=clock,
                new_id=new_id,
            )
        )
        services = Services(
            sockets=AiohttpSockets(settings.gateway.http),
            pipeline=pipeline,
            plane=plane,
            catalog=catalog,
            engines=engines,
            keys=state.keys,
            stored_completions=state.stored_completions,
            gateways=control.gateways,
            snapshots=control.snapshots,
            credentials=control.credentials,
            custom_providers=control.custom_providers,
            dynamic_routes=control.dynamic_routes,
            audit=control.audit,
            logs=observed.logs,
            exports=observed.exports,
            analytics=state.analytics,
            datasets=observed.datasets,
            evaluations=observed.evaluations,
            registry=registry,
            clock=clock,
            new_id=new_id,
        )
        yield services


@asynccontextmanager
async def _open_ledger(settings: Settings, clock: Clock) -> AsyncIterator[Ledger]:
    logbook = make_logbook(settings, clock)
    ledger = Ledger(logbook, clock=clock, config=settings.ledger)
    await logbook.open()
    ledger.open()
    try:
        yield ledger
    finally:
        await ledger.close()
        await logbook.close()


@asynccontextmanager
async def _open_engines(
    settings: Settings, catalog: Catalog, clock: Clock
) -> AsyncIterator[EnginePool]:
    """Open the pool, with pinned models on their way."""
    engines = EnginePool(settings.engines, clock=clock)
    preloads = [
        asyncio.create_task(_preload(engines, catalog, name))
        for name, model in settings.catalog.models.items()
        if model.pinned
    ]
    try:
        yield engines
    finally:
        for task in preloads:
            task.cancel()
        await asyncio.gather(*preloads, return_exceptions=True)
        await engines.close()


async def _preload(engines: EnginePool, catalog: Catalog, name: str) -> None:
    """Load a pinned model ahead of its first request; a failure is the first request's to tell."""
    try:
        await engines.preload(catalog.resolve(name))
    except ModelLoadingError:  # it goes on loading, longer than a request would have waited
        log.warning("engine.preload_slow", extra={"model": name})
    except AppError as error:
        log.warning("engine.preload_failed", extra={"model": name, "error": error.message})
    except Exception:
        log.exception("engine.preload_failed", extra={"model": name})
