"""`/ai-gateway/gateways/{id}/logs/export`: logs as a file, sent while it is made."""

from __future__ import annotations

from typing import Final

from openworks.api.answers import Answer
from openworks.api.cloudflare.frame import actor_of, gateway_id_of
from openworks.api.cloudflare.log_queries import log_query
from openworks.api.cloudflare.paging import flag
from openworks.api.context import Context
from openworks.api.downloads import Download
from openworks.core.errors import InvalidRequestError

_TYPES: Final = {"jsonl": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}


async def export(context: Context) -> Answer:
    """Send all logs that match, oldest first; `bodies=true` adds what was said."""
    actor = await actor_of(context)
    params = context.request.query_params
    gateway_id = gateway_id_of(context)
    query = log_query(params, actor.account_id, gateway_id)
    kind = params.get("format", "jsonl")
    if kind not in _TYPES:
        raise InvalidRequestError(
            f"format must be jsonl or parquet, got {kind[:80]!r}.", param="format"
        )
    await context.services.gateways.ensure(actor, gateway_id)
    with_bodies = flag(params, "bodies") or False
    exports = context.services.exports
    if kind == "parquet":
        exports.check_parquet()
        pieces = exports.parquet(query, with_bodies=with_bodies)
    else:
        pieces = exports.lines(query, with_bodies=with_bodies)
    return Download(pieces, name=f"{gateway_id}.{kind}", media_type=_TYPES[kind])
