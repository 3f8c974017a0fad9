"""`/ai-gateway/gateways/{id}/provider_configs`: provider credentials that are kept here."""

from __future__ import annotations

from openworks.api.answers import Answer
from openworks.api.cloudflare.frame import actor_of, body_of, gateway_id_of, ok, path_value
from openworks.api.cloudflare.paging import cut, page_of
from openworks.api.context import Context
from openworks.core.json import JsonObject
from openworks.ports.documents import Document
from openworks.wire.cloudflare.envelope import timestamp
from openworks.wire.cloudflare.fields import checked
from openworks.wire.cloudflare.nouns import NewProviderConfig, ProviderConfigUpdate

_SHOWN = (
    "alias",
    "provider_slug",
    "default_config",
    "secret_id",
    "secret_preview",
    "rate_limit",
    "rate_limit_period",
)


async def create(context: Context) -> Answer:
    """Keep a provider's key, encrypted."""
    actor = await actor_of(context)
    given = checked(NewProviderConfig, body_of(context))
    found = await context.services.credentials.create(actor, gateway_id_of(context), given)
    return ok(_render(found))


async def list_configs(context: Context) -> Answer:
    """List the gateway's provider configs, newest first, without their secrets."""
    actor = await actor_of(context)
    page = page_of(context.request.query_params)
    found = await context.services.credentials.list(actor, gateway_id_of(context))
    rows, info = cut(found, page)
    return ok([_render(row) for row in rows], info=info)


async def retrieve(context: Context) -> Answer:
    """Return one, without its secret."""
    actor = await actor_of(context)
    found = await context.services.credentials.get(
        actor, gateway_id_of(context), path_value(context, "config_id")
    )
    return ok(_render(found))


async def update(context: Context) -> Answer:
    """Change one: put another secret in its place, or make it its provider's default."""
    actor = await actor_of(context)
    given = checked(ProviderConfigUpdate, body_of(context))
    found = await context.services.credentials.update(
        actor, gateway_id_of(context), path_value(context, "config_id"), given
    )
    return ok(_render(found))


async def delete(context: Context) -> Answer:
    """Forget one."""
    actor = await actor_of(context)
    found = await context.services.credentials.delete(
        actor, gateway_id_of(context), path_value(context, "config_id")
    )
    return ok(_render(found))


def _render(document: Document) -> JsonObject:
    return {
        "id": document.id,
        "gateway_id": document.parent,
        **{name: document.body[name] for name in _SHOWN},
        "created_at": timestamp(document.created_at_s),
        "modified_at": timestamp(document.modified_at_s),
    }
