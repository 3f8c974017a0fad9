"""`/health`, `/ready` and `/metrics`: for load balancers and for Prometheus."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from openworks.api.answers import Answer, Json
from openworks.api.context import Context
from openworks.core.errors import AppError
from openworks.core.json import JsonValue


async def health(context: Context) -> Answer:
    """Say that the process answers; `degraded` when the database does not."""
    try:
        await context.services.keys.check_store()
    except AppError as error:
        return Json({"status": "degraded", "database": error.message})
    return Json({"status": "ok"})


async def ready(context: Context) -> Answer:
    """Say whether the default chat model can be asked, with the state of every loaded model."""
    try:
        await context.services.keys.check_store()
    except AppError as error:
        return Json({"status": "unready", "database": error.message}, status=503)
    engines: list[JsonValue] = [
        {
            "model": row.deployment,
            "engine": row.engine,
            "state": row.state,
            "pinned": row.pinned,
            "memory_bytes": row.memory_bytes,
            "in_flight": row.in_flight,
            "restarts": row.restarts,
            "load_s": row.load_s,
        }
        for row in context.services.engines.residency()
    ]
    starting = any(isinstance(row, dict) and row["state"] == "starting" for row in engines)
    return Json(
        {"status": "loading" if starting else "ready", "engines": engines},
        status=503 if starting else 200,
    )


async def metrics(context: Context) -> Answer:
    """Expose the metrics in Prometheus' text format."""
    return Response(generate_latest(context.services.registry), media_type=CONTENT_TYPE_LATEST)
