"""`/v1/models` and `/v1/models/{model}`: the models of all, and the caller's own adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from openworks.api.answers import Answer, Json
from openworks.api.context import Context
from openworks.core.errors import ModelNotFoundError, PermissionDeniedError
from openworks.core.json import JsonObject
from openworks.ports.catalog import ModelEntry
from openworks.ports.engines import AdapterPlace, Residency
from openworks.services.deployments import no_such_model
from openworks.services.finetune_documents import Finetune

_CREATED = 1_763_596_800
"""2025-11-20: models have no date of their own here, and the field is required."""


async def list_models(context: Context) -> Answer:
    """List what can answer now: the models, defaults first, and the account's adapters."""
    allowed = _allowed_ids(context)
    loaded = context.services.engines.residency()
    rows = {row.deployment: row for row in loaded}
    served = {entry.id: entry for entry in context.services.catalog.served()}
    bodies = [
        _body(entry, rows.get(entry.id))
        for entry in served.values()
        if allowed is None or entry.id in allowed
    ]
    bodies += [
        _adapter_body(finetune, served[finetune.model], loaded)
        for finetune in await context.services.deployments.adapters(context.principal.account_id)
        if finetune.model in served and _may_use(finetune, allowed)
    ]
    return Json({"object": "list", "data": [*bodies]})


async def retrieve(context: Context) -> Answer:
    """Describe one model, by any of its names."""
    name = context.request.path_params["model"]
    allowed = _allowed_ids(context)
    loaded = context.services.engines.residency()
    entry = context.services.catalog.find(name)
    if entry is None:
        finetune = await _finetune(context, name)
        base = context.services.catalog.find(finetune.model)
        if base is None or not _may_use(finetune, allowed):
            raise no_such_model(name)
        return Json(_adapter_body(finetune, base, loaded))
    if allowed is not None and entry.id not in allowed:
        raise no_such_model(name)
    return Json(_body(entry, {row.deployment: row for row in loaded}.get(entry.id)))


async def delete(context: Context) -> Answer:
    """Delete one of the account's adapters; models of all are not deleted by callers."""
    name = context.request.path_params["model"]
    if context.services.catalog.find(name) is not None:
        raise PermissionDeniedError(
            f"The model {name!r} is not a fine-tuned model; its weights are removed with: "
            "openworks models rm"
        )
    finetune = await _finetune(context, name)
    account = context.principal.account_id
    if finetune.account_id != account:
        raise PermissionDeniedError(f"The model {name!r} is another account's.")
    await context.services.finetunes.delete(await context.actor(account), finetune.id)
    return Json({"id": name, "object": "model", "deleted": True})


async def _finetune(context: Context, name: str) -> Finetune:
    found = await context.services.deployments.find(name, context.principal.account_id)
    if found is not None:
        return found
    unknown: ModelNotFoundError = context.services.catalog.unknown(name)
    raise unknown


def _allowed_ids(context: Context) -> frozenset[str] | None:
    """The ids of the models that the key's names stand for; None for every model."""
    names = context.principal.allowed_models
    return None if names is None else frozenset(context.canonical(name) for name in names)


def _may_use(finetune: Finetune, allowed: frozenset[str] | None) -> bool:
    """Whether a key may use an adapter: it, or its base model, is one of the key's models."""
    return allowed is None or not allowed.isdisjoint((finetune.model, finetune.model_name))


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


def _adapter_body(finetune: Finetune, base: ModelEntry, loaded: Sequence[Residency]) -> JsonObject:
    """As a model, with the one that it is an adapter of and the place where it is now."""
    places: Mapping[str, AdapterPlace] = {
        place.id: place for row in loaded if row.report is not None for place in row.report.adapters
    }
    place = places.get(finetune.id)
    return {
        "id": finetune.model_name,
        "object": "model",
        "created": int(finetune.created_at_s),
        "owned_by": finetune.account_id,
        "name": finetune.name,
        "task": base.task,
        "context_window": base.context_tokens,
        "capabilities": [*sorted(base.capabilities)],
        "root": finetune.model,
        "parent": finetune.model,
        "fine_tuned_model": finetune.openai_name,
        "finetune_id": finetune.id,
        "state": place.tier if place else "stored",
        "memory_bytes": place.size_bytes if place else 0,
    }
