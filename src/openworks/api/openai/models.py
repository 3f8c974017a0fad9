"""`GET /v1/models` and `/v1/models/{model}`."""

from __future__ import annotations

from openworks.api.context import Context
from openworks.api.endpoint import Answer, Json
from openworks.core.errors import ModelNotFoundError, PermissionDeniedError
from openworks.core.json import JsonObject
from openworks.ports.calls import Principal
from openworks.ports.catalog import ModelEntry

_CREATED = 1_763_596_800
"""2025-11-20: models have no date of their own here, and the field is required."""


async def list_models(context: Context) -> Answer:
    """List what can answer now, the defaults first."""
    entries = [
        entry for entry in context.services.catalog.served() if _may_see(context.principal, entry)
    ]
    return Json({"object": "list", "data": [_body(context, entry) for entry in entries]})


async def retrieve(context: Context) -> Answer:
    """Describe one model, by any of its names."""
    name = context.request.path_params["model"]
    entry = context.services.catalog.find(name)
    if entry is None or not _may_see(context.principal, entry, name):
        raise ModelNotFoundError(f"The model {name!r} does not exist.", param="model")
    return Json(_body(context, entry))


async def delete(context: Context) -> Answer:
    """Refuse: only fine-tuned models can be deleted, and there are none yet."""
    name = context.request.path_params["model"]
    if context.services.catalog.find(name) is None:
        raise ModelNotFoundError(f"The model {name!r} does not exist.", param="model")
    raise PermissionDeniedError(
        f"The model {name!r} is not a fine-tuned model; its weights are removed with: "
        "openworks models rm"
    )


def _may_see(principal: Principal, entry: ModelEntry, name: str | None = None) -> bool:
    allowed = principal.allowed_models
    return allowed is None or not allowed.isdisjoint({entry.id, name or entry.id})


def _body(context: Context, entry: ModelEntry) -> JsonObject:
    """OpenAI's four fields, then ours, which the SDK passes through."""
    loaded = {row.deployment: row for row in context.services.engines.residency()}
    row = loaded.get(entry.id)
    return {
        "id": entry.id,
        "object": "model",
        "created": _CREATED,
        "owned_by": entry.id.removeprefix("@").split("/")[0] or "openworks",
        "name": entry.name,
        "task": entry.task,
        "context_window": entry.context_tokens,
        "capabilities": [*sorted(entry.capabilities)],
        "license": entry.license,
        "state": row.state if row else "unloaded",
        "memory_bytes": row.memory_bytes if row else 0,
    }
