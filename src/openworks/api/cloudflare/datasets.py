"""`/ai-gateway/gateways/{id}/datasets`."""

from __future__ import annotations

import orjson

from openworks.api.answers import Answer
from openworks.api.cloudflare.frame import actor_of, body_of, gateway_id_of, ok, path_value
from openworks.api.cloudflare.logs import render_log
from openworks.api.cloudflare.paging import cut, flag, page_of
from openworks.api.context import Context
from openworks.core.json import JsonObject
from openworks.ports.documents import Document
from openworks.wire.cloudflare.envelope import timestamp


async def create(context: Context) -> Answer:
    """Make a dataset of conditions on logs."""
    actor = await actor_of(context)
    found = await context.services.datasets.create(actor, gateway_id_of(context), body_of(context))
    return ok(_render(found))


async def list_datasets(context: Context) -> Answer:
    """List them, newest first; by `name`, `enable`, and `search` in id, name and filters."""
    actor = await actor_of(context)
    params = context.request.query_params
    page = page_of(params)
    found = await context.services.datasets.list(actor, gateway_id_of(context))
    name, is_enabled = params.get("name"), flag(params, "enable")
    search = params.get("search", "").lower()
    kept = [
        item
        for item in found
        if name in (None, item.body["name"])
        and is_enabled in (None, item.body["enable"])
        and search in f"{item.id} {orjson.dumps(item.body).decode()}".lower()
    ]
    rows, info = cut(kept, page)
    return ok([_render(row) for row in rows], info=info)


async def retrieve(context: Context) -> Answer:
    """Return one."""
    actor = await actor_of(context)
    found = await context.services.datasets.get(actor, gateway_id_of(context), _id(context))
    return ok(_render(found))


async def update(context: Context) -> Answer:
    """Put other fields in the place of all of one's."""
    actor = await actor_of(context)
    found = await context.services.datasets.update(
        actor, gateway_id_of(context), _id(context), body_of(context)
    )
    return ok(_render(found))


async def delete(context: Context) -> Answer:
    """Delete one; its logs stay."""
    actor = await actor_of(context)
    found = await context.services.datasets.delete(actor, gateway_id_of(context), _id(context))
    return ok(_render(found))


async def list_logs(context: Context) -> Answer:
    """List the logs that a dataset chooses now, newest first, and how many they are."""
    actor = await actor_of(context)
    number = page_of(context.request.query_params)
    page = await context.services.datasets.logs(
        actor,
        gateway_id_of(context),
        _id(context),
        page=number.page,
        per_page=number.per_page,
    )
    info = number.info(count=len(page.items), total_count=page.total)
    return ok([render_log(item) for item in page.items], info=info)


def _id(context: Context) -> str:
    return path_value(context, "dataset_id")


def _render(document: Document) -> JsonObject:
    return {
        "id": document.id,
        "gateway_id": document.parent,
        **document.body,
        "created_at": timestamp(document.created_at_s),
        "modified_at": timestamp(document.modified_at_s),
    }
