"""`/ai-gateway/custom-providers`."""

from __future__ import annotations

from collections.abc import Sequence

from openworks.api.answers import Answer
from openworks.api.cloudflare.frame import actor_of, body_of, ok, path_value
from openworks.api.cloudflare.paging import cut, flag, page_of
from openworks.api.context import Context
from openworks.core.json import JsonObject
from openworks.ports.documents import Document
from openworks.wire.cloudflare.envelope import timestamp


async def create(context: Context) -> Answer:
    """Add a provider to the account."""
    actor = await actor_of(context)
    return ok(_render(await context.services.custom_providers.create(actor, body_of(context))))


async def list_providers(context: Context) -> Answer:
    """List them, newest first; by `search` in id and name, `beta` and `enable`."""
    actor = await actor_of(context)
    page = page_of(context.request.query_params)
    found = await context.services.custom_providers.list(actor.account_id)
    rows, info = cut(_filtered(context, found), page)
    return ok([_render(row) for row in rows], info=info)


async def retrieve(context: Context) -> Answer:
    """Return one."""
    actor = await actor_of(context)
    found = await context.services.custom_providers.get(
        actor.account_id, path_value(context, "provider_id")
    )
    return ok(_render(found))


async def update(context: Context) -> Answer:
    """Change one; fields that are left out stay as they are."""
    actor = await actor_of(context)
    found = await context.services.custom_providers.update(
        actor, path_value(context, "provider_id"), body_of(context)
    )
    return ok(_render(found))


async def delete(context: Context) -> Answer:
    """Remove one."""
    actor = await actor_of(context)
    found = await context.services.custom_providers.delete(
        actor, path_value(context, "provider_id")
    )
    return ok(_render(found))


def _filtered(context: Context, found: Sequence[Document]) -> list[Document]:
    query = context.request.query_params
    search = query.get("search", "").lower()
    wanted = {name: flag(query, name) for name in ("beta", "enable")}
    return [
        item
        for item in found
        if (search in item.id.lower() or search in str(item.body["name"]).lower())
        and all(value in (None, item.body[name]) for name, value in wanted.items())
    ]


def _render(document: Document) -> JsonObject:
    return {
        "id": document.id,
        **document.body,
        "created_at": timestamp(document.created_at_s),
        "modified_at": timestamp(document.modified_at_s),
    }
