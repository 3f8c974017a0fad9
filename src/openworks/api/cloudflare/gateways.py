"""`/ai-gateway/gateways`."""

from __future__ import annotations

from openworks.api.answers import Answer
from openworks.api.cloudflare.frame import actor_of, body_of, gateway_id_of, ok
from openworks.api.cloudflare.paging import cut, page_of
from openworks.api.context import Context
from openworks.core.json import JsonObject
from openworks.ports.documents import Document
from openworks.ports.gateways import DEFAULT_GATEWAY
from openworks.services.gateway_documents import fields_of
from openworks.wire.cloudflare.envelope import timestamp


async def create(context: Context) -> Answer:
    """Make a gateway."""
    actor = await actor_of(context)
    return ok(_render(await context.services.gateways.create(actor, body_of(context))))


async def list_gateways(context: Context) -> Answer:
    """List the account's gateways, newest first; `search` looks in their ids."""
    actor = await actor_of(context)
    query = context.request.query_params
    page = page_of(query)
    found = await context.services.gateways.list(actor.account_id, search=query.get("search", ""))
    rows, info = cut(found, page)
    return ok([_render(row) for row in rows], info=info)


async def retrieve(context: Context) -> Answer:
    """Return one; `default` is made when it is not there."""
    actor = await actor_of(context)
    return ok(_render(await context.services.gateways.get(actor, gateway_id_of(context))))


async def update(context: Context) -> Answer:
    """Change one; fields that are left out stay as they are."""
    actor = await actor_of(context)
    found = await context.services.gateways.update(actor, gateway_id_of(context), body_of(context))
    return ok(_render(found))


async def delete(context: Context) -> Answer:
    """Delete one, with its credentials and routes."""
    actor = await actor_of(context)
    return ok(_render(await context.services.gateways.delete(actor, gateway_id_of(context))))


def _render(document: Document) -> JsonObject:
    return {
        "id": document.id,
        **fields_of(document.body),
        "created_at": timestamp(document.created_at_s),
        "modified_at": timestamp(document.modified_at_s),
        "is_default": document.id == DEFAULT_GATEWAY,
    }
