"""`GET /v1/models` and `/v1/models/{model}`."""

from __future__ import annotations

from collections.abc import Mapping

from openworks.api.answers import Answer, Json
from openworks.api.context import Context
from openworks.core.errors import ModelNotFoundError, PermissionDeniedError
from openworks.core.json import JsonObject
from openworks.ports.catalog import ModelEntry
from openworks.ports.engines import Residency

_CREATED = 1_763_596_800
"""2025-11-20: models have no date of their own here, and the field is required."""


async def list_models(context: Context) -> Answer:
    """List what can answer now, the defaults first."""
    allowed = _allowed_ids(context)
    loaded = _loaded(context)
    bodies = [
        _body(entry, loaded.get(entry.id))
        for entry in context.services.catalog.served()
        if allowed is None or entry.id in allowed
    ]
    return Json({"object": "list", "data": [*bodies]})


async def retrieve(context: Context) -> Answer:
    """Describe one model, by any of its names."""
    name = context.request.path_params["model"]
    entry = context.services.catalog.find(name)
    if entry is None:
        raise context.services.catalog.unknown(name)
    allowed = _allowed_ids(context)
    if allowed is not None and entry.id not in allowed:
        raise ModelNotFoundError(
            f"The model {name!r} does not exist or you do not have access to it.", param="model"
        )
    return Json(_body(entry, _loaded(context).get(entry.id)))


async def delete(context: Context) -> Answer:
    """Refuse: only fine-tuned models can be deleted, and there are none yet."""
    name = context.request.path_params["model"]
    if context.services.catalog.find(name) is None:
        raise context.services.catalog.unknown(name)
    raise PermissionDeniedError(
        f"The model {name!r} is not a fine-tuned model; its weights are removed with: "
        "openworks models rm"
    )


def _allowed_ids(context: Context) -> frozenset[str] | None:
    """The ids of the models that the key's names stand for; None for every model."""
    names = context.principal.allowed_models
    return None if names is None else frozenset(context.canonical(name) for name in names)


def _loaded(context: Context) -> Mapping[str, Residency]:
    return {row.deployment: row for row in context.services.engines.residency()}


def _body(entry: ModelEntry, row: Residency | None) -> JsonObject:
    """OpenAI's four fields, then ours, which the SDK passes through."""
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
