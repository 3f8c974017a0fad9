"""`/ai-gateway/gateways/{id}/url/{provider}`."""

from __future__ import annotations

import re

from openworks.api.answers import Answer
from openworks.api.cloudflare.frame import actor_of, gateway_id_of, ok, path_value
from openworks.api.context import Context
from openworks.core.errors import InvalidRequestError

_PROVIDER = re.compile(r"[a-z0-9][a-z0-9-]{0,70}")


async def retrieve(context: Context) -> Answer:
    """Say at which URL of this server a provider is called through the gateway."""
    actor = await actor_of(context)
    provider = path_value(context, "provider")
    if not _PROVIDER.fullmatch(provider):
        raise InvalidRequestError(
            f"A provider is named like 'openai' or 'custom-mine', got {provider[:80]!r}.",
            param="provider",
        )
    await context.services.gateways.ensure(actor, gateway_id_of(context))
    base = str(context.request.base_url).rstrip("/")
    path = f"{actor.account_id}/{gateway_id_of(context)}/{provider}"
    return ok(f"{base}/gateway/v1/{path}")
