"""`/ai-gateway/gateways/{id}/logs/export`: logs as a file, sent while it is made."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from openworks.api.answers import Answer
from openworks.api.cloudflare.frame import actor_of, gateway_id_of
from openworks.api.cloudflare.log_queries import log_query
from openworks.api.cloudflare.paging import flag
from openworks.api.context import Context
from openworks.core.errors import AppError, InvalidRequestError

log = logging.getLogger(__name__)

_TYPES: Final = {"jsonl": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}


class Download(Response):
    """A file of unknown length; one that fails on its way is cut, which every client notices."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], *, name: str, media_type: str) -> None:
        super().__init__(
            media_type=media_type,
            headers={"content-disposition": f'attachment; filename="{name}"'},
        )
        del self.headers["content-length"]
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._pieces) as pieces:
            first = await anext(pieces, b"")  # what fails here has an answer of its own
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            await send({"type": "http.response.body", "body": first, "more_body": True})
            try:
                async for piece in pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            except AppError as error:
                log.warning("export.failed", extra={"error": error.message})
                return  # without an end, so the server closes the connection
        await send({"type": "http.response.body", "body": b"", "more_body": False})


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
