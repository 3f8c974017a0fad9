"""The logs of one gateway, as its owner reads, marks and deletes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from openworks.core.errors import NotFoundError
from openworks.core.ids import RequestId
from openworks.core.json import JsonObject
from openworks.ports.calls import CallBodies
from openworks.ports.logs import LogChange, LogOrder, LogPage, LogQuery, LogStore, StoredCall
from openworks.services.audit import Actor
from openworks.services.gateways import Gateways
from openworks.wire.cloudflare.envelope import timestamp

_BOUNDED: Final[Mapping[str, LogOrder]] = {
    "cost": "cost",
    "duration": "duration",
    "tokens_in": "tokens_in",
    "tokens_out": "tokens_out",
}


class GatewayLogs:
    """Finds logs of gateways that are there."""

    def __init__(self, store: LogStore, gateways: Gateways) -> None:
        self._store = store
        self._gateways = gateways

    async def list(self, actor: Actor, query: LogQuery, *, page: int, per_page: int) -> LogPage:
        """Return one page.

        Raises:
            NotFoundError: There is no such gateway.
        """
        await self._gateways.ensure(actor, query.gateway_id)
        return await self._store.list(query, page=page, per_page=per_page)

    async def bounds(self, query: LogQuery) -> JsonObject:
        """Return the least and the most of what a query finds; None where it finds nothing.

        Of both kinds of tokens together nothing is said, as no index and no order has them.
        """
        found: JsonObject = {"min_total_tokens": None, "max_total_tokens": None}
        for name, order in _BOUNDED.items():
            for end, descending in (("min", False), ("max", True)):
                ordered = _ordered(query, order, descending=descending)
                items = (await self._store.list(ordered, per_page=1)).items
                found[f"{end}_{name}"] = log_row(items[0])[name] if items else None
        return found

    async def get(self, actor: Actor, gateway_id: str, log_id: RequestId) -> StoredCall:
        """Return one log.

        Raises:
            NotFoundError: There is none, or no such gateway.
        """
        await self._gateways.ensure(actor, gateway_id)
        found = await self._store.get(actor.account_id, gateway_id, log_id)
        if found is None:
            raise _no_log(log_id)
        return found

    async def bodies(self, actor: Actor, gateway_id: str, log_id: RequestId) -> CallBodies:
        """Return what was said in a call.

        Raises:
            NotFoundError: There is no such log, or what was said was not kept.
        """
        await self.get(actor, gateway_id, log_id)
        found = await self._store.get_bodies(actor.account_id, gateway_id, log_id)
        if found is None:
            raise NotFoundError(
                f"Of log {log_id[:80]!r} neither request nor response was kept.",
                code="payload_not_kept",
            )
        return found

    async def change(
        self, actor: Actor, gateway_id: str, log_id: RequestId, change: LogChange
    ) -> StoredCall:
        """Change one log and return it.

        Raises:
            NotFoundError: There is none, or no such gateway.
        """
        await self._gateways.ensure(actor, gateway_id)
        found = await self._store.change(actor.account_id, gateway_id, log_id, change)
        if found is None:
            raise _no_log(log_id)
        return found

    async def delete(self, actor: Actor, query: LogQuery, *, limit: int | None) -> int:
        """Delete the first `limit` that match; return how many there were.

        Raises:
            NotFoundError: There is no such gateway.
        """
        await self._gateways.ensure(actor, query.gateway_id)
        return await self._store.delete(query, limit=limit)


def log_row(stored: StoredCall) -> JsonObject:
    """Render a log: the fields of Cloudflare's, and what is kept here beside them.

    `metadata` is an object; answers of the API write it as text, as Cloudflare does.
    """
    call, bodies = stored.call, stored.bodies
    return {
        "id": call.id,
        "created_at": timestamp(call.created_at_s),
        "provider": call.provider,
        "model": call.model,
        "model_type": None,
        "path": call.endpoint or call.route,
        "success": call.outcome == "ok",
        "status_code": call.status,
        "cached": call.cached,
        "duration": round(call.duration_ms),
        "tokens_in": call.usage.prompt_tokens,
        "tokens_out": call.usage.completion_tokens,
        "cost": call.cost_usd,
        "custom_cost": call.custom_cost,
        "metadata": dict(call.metadata),
        "step": call.step,
        "request_type": None,
        "request_content_type": None if bodies is None else bodies.request_type,
        "response_content_type": None if bodies is None else bodies.response_type,
        "request_size": None if bodies is None else bodies.request_bytes,
        "response_size": None if bodies is None else bodies.response_bytes,
        "feedback": stored.feedback,
        "score": stored.score,
        "event_id": call.event_id,
        "key_id": call.key_id,
        "stream": call.stream,
        "first_token_ms": call.first_token_ms,
        "tokens_cached": call.usage.cached_tokens,
        "tokens_reasoning": call.usage.reasoning_tokens,
        "outcome": call.outcome,
        "error_code": call.error_code,
        "attempts": call.attempts,
        "estimated": call.estimated,
        "routed_by": call.routed_by,
        "guard_findings": list(call.guard_findings),
        "deployment": call.deployment,
    }


def _ordered(query: LogQuery, order: LogOrder, *, descending: bool) -> LogQuery:
    return replace(query, order_by=order, descending=descending)


def _no_log(log_id: str) -> NotFoundError:
    return NotFoundError(f"No log found with id {log_id[:80]!r}.")
