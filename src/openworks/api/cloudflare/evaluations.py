"""`/ai-gateway/gateways/{id}/evaluations` and `/ai-gateway/evaluation-types`."""

from __future__ import annotations

from typing import Final

from openworks.api.answers import Answer
from openworks.api.cloudflare.frame import actor_of, body_of, gateway_id_of, ok, path_value
from openworks.api.cloudflare.paging import cut, flag, page_of
from openworks.api.context import Context
from openworks.core.errors import InvalidRequestError
from openworks.core.json import JsonObject
from openworks.ports.documents import Document
from openworks.services.evaluations import FIGURES, GRADERS
from openworks.wire.cloudflare.envelope import timestamp

_SINCE_S: Final = 1_793_491_200.0  # 2026-11-01: types have no age of their own
_NAMES: Final = {
    "cost": "Cost",
    "speed": "Speed",
    "feedback": "Human feedback",
    "string_check": "String check",
    "regex": "Regular expression",
    "json_schema": "JSON schema",
    "model": "Model grader",
}


async def list_types(context: Context) -> Answer:
    """List what can be asked of logs: figures, and graders that are described by their users."""
    await actor_of(context)
    params = context.request.query_params
    rows: list[JsonObject] = [
        {
            "id": name,
            "name": _NAMES[name],
            "type": name,
            "description": text,
            "enable": True,
            "mandatory": False,
            "created_at": timestamp(_SINCE_S),
            "modified_at": timestamp(_SINCE_S),
        }
        for name, text in {**FIGURES, **GRADERS}.items()
    ]
    if (order := params.get("order_by")) is not None:
        if order not in rows[0]:
            raise InvalidRequestError(
                f"order_by must be one of {', '.join(rows[0])}, got {order[:80]!r}.",
                param="order_by",
            )
        rows.sort(key=lambda row: str(row[order]))
    if params.get("order_by_direction") == "desc":
        rows.reverse()
    found, info = cut(rows, page_of(params))
    return ok(list(found), info=info)


async def create(context: Context) -> Answer:
    """Make an evaluation, which then runs by itself; `graders` are ours."""
    actor = await actor_of(context)
    found = await context.services.evaluations.create(
        actor, gateway_id_of(context), body_of(context)
    )
    return ok(_render(found))


async def list_evaluations(context: Context) -> Answer:
    """List them, newest first; by `name`, `processed`, and `search` in id and name."""
    actor = await actor_of(context)
    params = context.request.query_params
    page = page_of(params)
    found = await context.services.evaluations.list(actor, gateway_id_of(context))
    name, is_processed = params.get("name"), flag(params, "processed")
    search = params.get("search", "").lower()
    kept = [
        item
        for item in found
        if name in (None, item.body["name"])
        and is_processed in (None, item.body["processed"])
        and search in f"{item.id} {item.body['name']}".lower()
    ]
    rows, info = cut(kept, page)
    return ok([_render(row) for row in rows], info=info)


async def retrieve(context: Context) -> Answer:
    """Return one with its results so far."""
    actor = await actor_of(context)
    found = await context.services.evaluations.get(actor, gateway_id_of(context), _id(context))
    return ok(_render(found))


async def delete(context: Context) -> Answer:
    """Delete one, also while it runs."""
    actor = await actor_of(context)
    found = await context.services.evaluations.delete(actor, gateway_id_of(context), _id(context))
    return ok(_render(found))


def _id(context: Context) -> str:
    return path_value(context, "evaluation_id")


def _render(document: Document) -> JsonObject:
    return {
        "id": document.id,
        "gateway_id": document.parent,
        **document.body,
        "created_at": timestamp(document.created_at_s),
        "modified_at": timestamp(document.modified_at_s),
    }
