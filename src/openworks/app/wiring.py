"""Builds every component, opens it in order and closes it in reverse. Alone knows every class."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from prometheus_client import CollectorRegistry

from openworks.api.context import Services
from openworks.app.batches import make_batch_work
from openworks.app.control_plane import make_control_plane
from openworks.app.data_plane import open_data_plane
from openworks.app.files import make_forms, open_files
from openworks.app.finetunes import open_adapters
from openworks.app.labelling import QuestionEmbedder, make_asker
from openworks.app.observability import open_observability, open_outbound, open_spans
from openworks.app.responses import ResponseParts
from openworks.app.runs import make_run_jobs, make_runs
from openworks.app.settings import Settings
from openworks.app.shared_state import open_cache, open_limiter
from openworks.app.state import blobs_place, database_url, make_blobs, open_state
from openworks.app.work import open_work
from openworks.converters.process import ProcessConverter
from openworks.core.clock import Clock, SystemClock
from openworks.core.errors import AppError, ModelLoadingError
from openworks.core.ids import new_id
from openworks.engines.metrics import EngineMetrics
from openworks.engines.pool import EnginePool
from openworks.gateway.gate import Gate
from openworks.gateway.http.sockets import AiohttpSockets
from openworks.gateway.ledger import Ledger
from openworks.gateway.observe import CallLog, CallMetrics, LogMetrics
from openworks.gateway.pipeline import Pipeline
from openworks.ports.recorder import Recorder
from openworks.services.assistants import Assistants
from openworks.services.batches.batches import Batches
from openworks.services.catalog import Catalog
from openworks.services.threads import Threads
from openworks.storage.logbook.process import LogbookPlaces, LogbookProcess
from openworks.storage.sql.assistants import SqlAssistantStore
from openworks.storage.sql.batches import SqlBatchStore
from openworks.storage.sql.database import plain_address
from openworks.storage.sql.messages import SqlMessageStore
from openworks.storage.sql.threads import SqlThreadStore

log = logging.getLogger(__name__)


def make_logbook(settings: Settings, clock: Clock) -> LogbookProcess:
    """Return the process that writes calls down, not yet started."""
    dialect, address = plain_address(database_url(settings))
    places = LogbookPlaces(
        dialect=dialect,
        address=address,
        blobs=blobs_place(settings),
        s3=settings.blobs.s3,
        spool=settings.folder / "spool",
    )
    return LogbookProcess(places, settings.logbook, clock=clock)


@asynccontextmanager
async def open_services(settings: Settings, catalog: Catalog) -> AsyncIterator[Services]:
    """Open everything that the server needs."""
    clock = SystemClock()
    registry = CollectorRegistry()
    async with AsyncExitStack() as stack:
        state = await stack.enter_async_context(open_state(settings, clock))
        control = make_control_plane(state.database, settings, clock=clock, new_id=new_id)
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
        EngineMetrics(engines, registry)
        adapters = await stack.enter_async_context(
            open_adapters(
                settings,
                state.database,
                catalog,
                on_deleted=engines.forget,
                clock=clock,
                new_id=new_id,
            )
        )
        limiter = await stack.enter_async_context(
            open_limiter(settings.gateway, state.analytics, clock)
        )
        pipeline = Pipeline(
            models=adapters.deployments,
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
                models=adapters.deployments,
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
                blobs=make_blobs(settings),
                written=ledger.drain,
                ask_model=make_asker(pipeline, new_id),
                clock=clock,
                new_id=new_id,
            )
        )
        kept = await stack.enter_async_context(
            open_files(settings, state.database, clock=clock, new_id=new_id)
        )
        converter = ProcessConverter(settings.documents)
        response_parts = ResponseParts(
            database=state.database,
            pipeline=pipeline,
            files=kept.files,
            converter=converter,
            clock=clock,
            new_id=new_id,
        )
        work = await stack.enter_async_context(
            open_work(
                settings,
                state.database,
                lambda journal: {
                    "run": make_run_jobs(
                        state.database, kept.files, pipeline, journal, clock=clock, new_id=new_id
                    ),
                    "response": response_parts.jobs(journal),
                    "batch": make_batch_work(
                        settings, state.database, kept.files, lambda: services, clock=clock
                    ),
                },
                clock=clock,
                new_id=new_id,
            )
        )
        services = Services(
            sockets=AiohttpSockets(settings.gateway.http),
            pipeline=pipeline,
            plane=plane,
            catalog=catalog,
            deployments=adapters.deployments,
            engines=engines,
            keys=state.keys,
            stored_completions=state.stored_completions,
            assistants=Assistants(SqlAssistantStore(state.database), clock=clock, new_id=new_id),
            threads=Threads(
                SqlThreadStore(state.database),
                SqlMessageStore(state.database),
                kept.files,
                clock=clock,
                new_id=new_id,
            ),
            runs=make_runs(settings, state.database, work, clock=clock, new_id=new_id),
            responses=response_parts.responses(work),
            conversations=response_parts.conversations(),
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
            finetunes=adapters.finetunes,
            files=kept.files,
            uploads=kept.uploads,
            batches=Batches(
                SqlBatchStore(state.database),
                kept.files,
                work.workers,
                clock=clock,
                new_id=new_id,
            ),
            converter=converter,
            workers=work.workers,
            journal=work.journal,
            forms=make_forms(settings),
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
