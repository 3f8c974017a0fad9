"""`/ai-gateway/audit`: who changed what in the account."""

from __future__ import annotations

from datetime import datetime

from openworks.api.answers import Answer
from openworks.api.cloudflare.frame import actor_of, ok
from openworks.api.cloudflare.paging import whole_number
from openworks.api.context import Context
from openworks.core.errors import InvalidRequestError
from openworks.wire.cloudflare.envelope import timestamp

_MAX_ENTRIES = 1000
_DEFAULT_ENTRIES = 50


async def list_entries(context: Context) -> Answer:
    """List the latest changes, newest first; `before` takes the `at` of the last one seen."""
    actor = await actor_of(context)
    query = context.request.query_params
    limit = whole_number(query, "per_page", default=_DEFAULT_ENTRIES, most=_MAX_ENTRIES)
    before = query.get("before")
    entries = await context.services.audit.list(
        actor.account_id, limit=limit, before_s=None if before is None else _seconds(before)
    )
    return ok(
        [
            {
                "at": timestamp(entry.at_s),
                "actor": entry.actor,
                "action": entry.action,
                "kind": entry.kind,
                "target": entry.target,
                "changed": list(entry.changed),
            }
            for entry in entries
        ],
        info={"per_page": limit, "count": len(entries)},
    )


def _seconds(text: str) -> float:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise InvalidRequestError(
            f"before must be a time such as 2026-11-03T12:00:00Z, got {text[:80]!r}.",
            param="before",
        )
    return at.timestamp()
