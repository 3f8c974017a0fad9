"""`/ai-gateway/analytics` and `/ai-gateway/gateways/{id}/analytics`: figures over many calls."""

from __future__ import annotations

from typing import Final, cast, get_args

from starlette.datastructures import QueryParams

from openworks.api.answers import Answer
from openworks.api.cloudflare.frame import actor_of, gateway_id_of, ok
from openworks.api.cloudflare.paging import flag, whole_number
from openworks.api.context import Context
from openworks.core.errors import InvalidRequestError
from openworks.core.ids import AccountId
from openworks.core.json import JsonObject
from openworks.ports.logs import AnalyticsQuery, Dimension, Figures, Quantiles
from openworks.services.log_filters import seconds_of
from openworks.wire.cloudflare.envelope import timestamp

_DAY_S: Final = 86_400.0
_MAX_STEP_S: Final = 366 * 86_400
_MAX_ROWS: Final = 10_000
_FLAGS: Final = frozenset({"cached", "stream"})


async def of_gateway(context: Context) -> Answer:
    """Add up a gateway's calls: requests, errors, tokens, cost and times."""
    actor = await actor_of(context)
    gateway_id = gateway_id_of(context)
    await context.services.gateways.ensure(actor, gateway_id)
    return await _answer(context, actor.account_id, gateway_id)


async def of_account(context: Context) -> Answer:
    """Add up all calls of an account; `where.gateway` and `group_by=gateway` tell them apart."""
    actor = await actor_of(context)
    return await _answer(context, actor.account_id, None)


async def _answer(context: Context, account_id: AccountId, gateway_id: str | None) -> Answer:
    query = _query(context, account_id, gateway_id)
    rows = await context.services.analytics.query(query)
    info: JsonObject = {
        "since": timestamp(query.since_s),
        "until": timestamp(query.until_s),
        "count": len(rows),
        "is_cut": len(rows) == query.limit,
    }
    return ok([_render(row) for row in rows], info=info)


def _query(context: Context, account_id: AccountId, gateway_id: str | None) -> AnalyticsQuery:
    params = context.request.query_params
    until_s = context.services.clock.now_s()
    if "until" in params:
        until_s = seconds_of(params["until"], param="until")
    since_s = until_s - _DAY_S
    if "since" in params:
        since_s = seconds_of(params["since"], param="since")
    if since_s >= until_s:
        raise InvalidRequestError("since must be before until.", param="since")
    step_s = None
    if "step" in params:
        step_s = whole_number(params, "step", default=60, most=_MAX_STEP_S)
    return AnalyticsQuery(
        account_id=account_id,
        gateway_id=gateway_id,
        since_s=since_s,
        until_s=until_s,
        step_s=step_s,
        group_by=_group_by(params),
        where=_where(params),
        limit=whole_number(params, "limit", default=1000, most=_MAX_ROWS),
    )


def _group_by(params: QueryParams) -> tuple[Dimension, ...]:
    given = [
        name.strip() for text in params.getlist("group_by") for name in text.split(",") if name
    ]
    return tuple(_dimension(name, "group_by") for name in dict.fromkeys(given))


def _where(params: QueryParams) -> dict[Dimension, str | int | bool]:
    found: dict[Dimension, str | int | bool] = {}
    for param in params:
        if not param.startswith("where."):
            continue
        name = _dimension(param.removeprefix("where."), param)
        if name in _FLAGS:
            found[name] = flag(params, param) or False
        elif name == "status":
            found[name] = whole_number(params, param, default=200, most=999)
        else:
            found[name] = params[param]
    return found


def _dimension(name: str, param: str) -> Dimension:
    if name not in get_args(Dimension):
        raise InvalidRequestError(
            f"{param} knows {', '.join(get_args(Dimension))}, got {name[:80]!r}.", param=param
        )
    return cast("Dimension", name)


def _render(row: Figures) -> JsonObject:
    usage = row.usage
    return {
        "at": None if row.bucket_s is None else timestamp(row.bucket_s),
        "group": {str(name): value for name, value in row.group.items()},
        "requests": row.requests,
        "errors": row.errors,
        "cached": row.cached,
        "tokens_in": usage.prompt_tokens,
        "tokens_out": usage.completion_tokens,
        "tokens_cached": usage.cached_tokens,
        "cost": row.cost_usd,
        "mean_duration_ms": row.mean_duration_ms,
        "mean_first_token_ms": row.mean_first_token_ms,
        "duration": _quantiles(row.duration),
        "first_token": _quantiles(row.first_token),
    }


def _quantiles(found: Quantiles | None) -> JsonObject | None:
    if found is None:
        return None
    return {"p50_ms": found.p50_ms, "p95_ms": found.p95_ms, "p99_ms": found.p99_ms}
