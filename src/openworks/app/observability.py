"""Builds what watches the AI Gateway: logs and their exports, evaluations, alerts, spans."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec

from prometheus_client import CollectorRegistry

from openworks.app.control_plane import ControlPlane
from openworks.app.settings import GatewaySettings
from openworks.core.clock import Clock
from openworks.core.ids import NewId
from openworks.gateway.http.choice import open_transport
from openworks.gateway.outbound import TransportOutbound
from openworks.gateway.telemetry.exporter import SpanExporter
from openworks.gateway.telemetry.metrics import TelemetryMetrics
from openworks.gateway.telemetry.spans import Encoding
from openworks.ports.blobs import Blobs
from openworks.ports.logs import Analytics, LogStore
from openworks.ports.outbound import Outbound
from openworks.ports.snapshots import Snapshots
from openworks.ports.tables import OpenTable, TableWriter
from openworks.services.alerts import Alerts
from openworks.services.background import Rounds
from openworks.services.datasets import Datasets
from openworks.services.evaluation_runs import EvaluationRuns
from openworks.services.evaluations import Evaluations
from openworks.services.gateway_logs import GatewayLogs
from openworks.services.graders import AskModel
from openworks.services.log_exports import LogExports
from openworks.services.logpush import LogPush
from openworks.services.snapshots import GatewaySnapshots
from openworks.storage.blobs.store import ObjectBlobs
from openworks.storage.sql.database import Database
from openworks.storage.sql.document_scan import SqlDocumentScan
from openworks.storage.sql.documents import SqlDocumentStore

_EVALUATIONS_EVERY_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Observability:
    """What routes use of it."""

    logs: GatewayLogs
    exports: LogExports
    datasets: Datasets
    evaluations: Evaluations


@asynccontextmanager
async def open_outbound(settings: GatewaySettings) -> AsyncIterator[Outbound]:
    """Open what posts to webhooks and collectors: its connections are not those of calls."""
    transport = open_transport(settings.http)
    try:
        yield TransportOutbound(transport, allow_private=settings.allow_private_providers)
    finally:
        await transport.close()


@asynccontextmanager
async def open_spans(
    snapshots: GatewaySnapshots, outbound: Outbound, registry: CollectorRegistry, clock: Clock
) -> AsyncIterator[SpanExporter]:
    """Open the recorder that sends spans; at the end, it sends what waits."""
    exporter = SpanExporter(snapshots, outbound, clock=clock, protobuf=_protobuf())
    TelemetryMetrics(exporter, registry)
    exporter.open()
    try:
        yield exporter
    finally:
        await exporter.close()


@asynccontextmanager
async def open_observability(
    settings: GatewaySettings,
    *,
    database: Database,
    control: ControlPlane,
    snapshots: Snapshots,
    logs: LogStore,
    analytics: Analytics,
    outbound: Outbound,
    blobs: Blobs,
    written: Callable[[], Awaitable[None]],
    ask_model: AskModel,
    clock: Clock,
    new_id: NewId,
) -> AsyncIterator[Observability]:
    """Run the background jobs for as long as the block lasts.

    Args:
        settings: Of the gateway.
        database: Where documents are.
        control: The control plane.
        snapshots: Gateways with their secrets.
        logs: Of all gateways.
        analytics: Figures over them.
        outbound: Posts to webhooks.
        blobs: The server's own.
        written: Returns once every call that ended before can be found in `logs`.
        ask_model: Asks the embedded chat model, for graders.
        clock: Of this process.
        new_id: Names datasets and evaluations.
    """
    store, scan = SqlDocumentStore(database), SqlDocumentScan(database)
    runs = EvaluationRuns(scan, store, logs, control.audit, clock=clock, ask=ask_model)
    evaluating = Rounds("evaluations", runs.run_all, every_s=_EVALUATIONS_EVERY_S)
    alerts = Alerts(scan, snapshots, analytics, outbound, blobs, clock=clock)
    jobs = [evaluating, Rounds("alerts", alerts.run_all, every_s=settings.alerts.every_s)]
    datasets = Datasets(store, logs, control.audit, control.gateways, clock=clock, new_id=new_id)
    async with AsyncExitStack() as stack:
        exports = LogExports(logs, _parquet())
        stack.push_async_callback(exports.close)
        if settings.logpush.destination is not None:
            push = LogPush(
                scan,
                logs,
                blobs,
                ObjectBlobs(settings.logpush.destination),
                written=written,
                clock=clock,
                interval_s=settings.logpush.interval_s,
            )
            stack.push_async_callback(push.close)
            every_s = settings.logpush.interval_s / 2
            jobs.append(Rounds("logpush", push.run_all, every_s=every_s))
        for job in jobs:
            job.open()
            stack.push_async_callback(job.close)
        yield Observability(
            logs=GatewayLogs(logs, control.gateways),
            exports=exports,
            datasets=datasets,
            evaluations=Evaluations(
                store,
                control.audit,
                control.gateways,
                datasets,
                clock=clock,
                new_id=new_id,
                ask=ask_model,
                wake=evaluating.wake,
            ),
        )


def _protobuf() -> Encoding | None:
    """Return the encoding of the extra `otel`, where that is installed."""
    try:
        from openworks.gateway.telemetry.otlp_protobuf import PROTOBUF
    except ImportError:
        return None
    return PROTOBUF


def _parquet() -> OpenTable | None:
    """Return what opens a table of the extra `parquet`, where that is installed.

    Nothing is imported before the first export: the library takes 40 MB of memory.
    """
    if find_spec("pyarrow") is None:
        return None

    def open_table() -> TableWriter:
        from openworks.storage.parquet.logs import ParquetLogs

        return ParquetLogs()

    return open_table
