"""`/ai-gateway/gateways/{id}/logs`."""

from __future__ import annotations

from contextlib import suppress

import orjson
from starlette.responses import Response

from openworks.api.answers import Answer
from openworks.api.cloudflare.frame import actor_of, body_of, gateway_id_of, ok, path_value
from openworks.api.cloudflare.log_queries import log_query
from openworks.api.cloudflare.paging import flag, page_of, whole_number
from openworks.api.context import Context
from openworks.core.errors import NotFoundError, StorageError
from openworks.core.ids import RequestId
from openworks.core.json import JsonObject
from openworks.ports.calls import CallBodies
from openworks.ports.logs import LogChange, StoredCall
from openworks.services.gateway_logs import log_row
from openworks.wire.cloudflare.fields import checked
from openworks.wire.cloudflare.logs import LogUpdate

HEAD_BYTES = 4096
"""So much of what was said stands in the answer for one log."""
_MAX_DELETED = 10_000_000
_HARMLESS = {"x-content-type-options": "nosniff", "content-security-policy": "sandbox"}
"""A stored body is somebody else's: no browser runs it as a page of ours."""


async def list_logs(context: Context) -> Answer:
    """List a gateway's logs; `meta_info=true` says between which bounds their figures lie."""
    actor = await actor_of(context)
    params = context.request.query_params
    query = log_query(params, actor.account_id, gateway_id_of(context))
    number = page_of(params)
    logs = context.services.logs
    page = await logs.list(actor, query, page=number.page, per_page=number.per_page)
    info = number.info(count=len(page.items), total_count=page.total)
    if flag(params, "meta_info"):
        info |= await logs.bounds(query)
    return ok([render_log(item) for item in page.items], info=info)


async def retrieve(context: Context) -> Answer:
    """Return one log with the beginnings of what was said."""
    actor = await actor_of(context)
    logs, gateway_id = context.services.logs, gateway_id_of(context)
    found = await logs.get(actor, gateway_id, _log_id(context))
    rendered = render_log(found)
    if found.bodies is not None:
        with suppress(StorageError):  # what is known of the call is still worth an answer
            rendered |= _heads(await logs.bodies(actor, gateway_id, _log_id(context)))
    return ok(rendered)


async def update(context: Context) -> Answer:
    """Give a log feedback, a score or other metadata."""
    actor = await actor_of(context)
    given = checked(LogUpdate, body_of(context))
    found = await context.services.logs.change(
        actor,
        gateway_id_of(context),
        _log_id(context),
        LogChange(
            feedback=None if given.feedback is None else int(given.feedback),
            score=given.score,
            metadata=given.metadata,
        ),
    )
    return ok(render_log(found))


async def delete(context: Context) -> Answer:
    """Delete the logs that match, the oldest first; all of them when nothing is filtered."""
    actor = await actor_of(context)
    params = context.request.query_params
    query = log_query(params, actor.account_id, gateway_id_of(context), descending=False)
    limit = None
    if "limit" in params:
        limit = whole_number(params, "limit", default=1, most=_MAX_DELETED)
    num_deleted = await context.services.logs.delete(actor, query, limit=limit)
    return ok({"success": True, "deleted": num_deleted})


async def retrieve_request(context: Context) -> Answer:
    """Return what a caller sent, as it was sent."""
    bodies = await _bodies(context)
    return _raw(_kept(bodies.request, context), bodies.request_type)


async def retrieve_response(context: Context) -> Answer:
    """Return what the caller got, as it was sent."""
    bodies = await _bodies(context)
    return _raw(_kept(bodies.response, context), bodies.response_type)


async def _bodies(context: Context) -> CallBodies:
    actor = await actor_of(context)
    return await context.services.logs.bodies(actor, gateway_id_of(context), _log_id(context))


def _kept(data: bytes, context: Context) -> bytes:
    """Return one side of a call.

    Raises:
        NotFoundError: The call ended before there was one that may be kept.
    """
    if not data:
        raise NotFoundError(
            f"Of log {_log_id(context)[:80]!r} this side was not kept.", code="payload_not_kept"
        )
    return data


def _raw(data: bytes, content_type: str) -> Response:
    return Response(data, headers={**_HARMLESS, "content-type": _one_line(content_type)})


def _one_line(content_type: str) -> str:
    is_safe = content_type.isascii() and content_type.isprintable() and content_type
    return content_type if is_safe else "application/octet-stream"


def _log_id(context: Context) -> RequestId:
    return RequestId(path_value(context, "log_id"))


def render_log(stored: StoredCall) -> JsonObject:
    """Render a log as Cloudflare does."""
    row = log_row(stored)
    row["metadata"] = orjson.dumps(row["metadata"]).decode() if row["metadata"] else None
    return row


def _heads(bodies: CallBodies) -> JsonObject:
    found: JsonObject = {}
    for name, body in (("request", bodies.request), ("response", bodies.response)):
        found[f"{name}_head"] = body[:HEAD_BYTES].decode("utf-8", "replace")
        found[f"{name}_head_complete"] = len(body) <= HEAD_BYTES and not bodies.is_partial
    return found
