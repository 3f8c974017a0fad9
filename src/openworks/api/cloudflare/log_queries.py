"""Which logs a query string asks for, in all the ways in which clients write it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, cast, get_args

import orjson
from starlette.datastructures import QueryParams

from openworks.api.cloudflare.paging import flag
from openworks.core.errors import InvalidRequestError, UnsupportedParameterError
from openworks.core.ids import AccountId
from openworks.core.json import JsonValue
from openworks.ports.logs import LogFilter, LogOrder, LogQuery
from openworks.services.log_filters import MAX_FILTERS, log_filter, seconds_of
from openworks.wire.cloudflare.fields import checked
from openworks.wire.cloudflare.logs import Condition

_PARTS: Final = ("filters.key", "filters.operator", "filters.value")
_TEXTS: Final = ("provider", "model", "request_content_type", "response_content_type")
_MAX_SEARCH_CHARS: Final = 200


def log_query(
    query: QueryParams, account_id: AccountId, gateway_id: str, *, descending: bool = True
) -> LogQuery:
    """Read a query string; `descending` is what holds when it says nothing of it.

    Raises:
        InvalidRequestError: A parameter is wrong; names it and its value.
    """
    if query.get("model_type"):
        raise UnsupportedParameterError(
            "Logs of this server say nothing of 'model_type'.", param="model_type"
        )
    search = query.get("search") or None
    if search is not None and len(search) > _MAX_SEARCH_CHARS:
        raise InvalidRequestError(
            f"search may have {_MAX_SEARCH_CHARS} characters, got {len(search)}.", param="search"
        )
    return LogQuery(
        account_id=account_id,
        gateway_id=gateway_id,
        filters=(*_simple_filters(query), *_filters(query)),
        since_s=_time(query, "start_date"),
        until_s=_time(query, "end_date"),
        min_cost_usd=_number(query, "min_cost"),
        max_cost_usd=_number(query, "max_cost"),
        min_duration_ms=_number(query, "min_duration"),
        max_duration_ms=_number(query, "max_duration"),
        min_tokens_in=_number(query, "min_tokens_in"),
        max_tokens_in=_number(query, "max_tokens_in"),
        min_tokens_out=_number(query, "min_tokens_out"),
        max_tokens_out=_number(query, "max_tokens_out"),
        min_total_tokens=_number(query, "min_total_tokens"),
        max_total_tokens=_number(query, "max_total_tokens"),
        search=search,
        order_by=_order(query),
        descending=_descending(query, descending),
    )


def _simple_filters(query: QueryParams) -> Sequence[LogFilter]:
    found = [
        LogFilter(key=name, operator="eq", values=(value,))
        for name in ("success", "cached")
        if (value := flag(query, name)) is not None
    ]
    found += [
        log_filter(name, "eq", [text], param=name) for name in _TEXTS if (text := query.get(name))
    ]
    feedback = query.get("feedback")
    if feedback is not None:
        if feedback not in ("-1", "0", "1"):
            raise InvalidRequestError(
                f"feedback must be 0 or 1, got {feedback[:80]!r}.", param="feedback"
            )
        # Thumbs up are stored as 1, thumbs down as -1; the client asks for those by 0.
        values = (1,) if feedback == "1" else (0, -1)
        found.append(LogFilter(key="feedback", operator="eq", values=values))
    return found


def _filters(query: QueryParams) -> Sequence[LogFilter]:
    text = query.get("filters")
    conditions = _flattened(query) if text is None else _from_json(text)
    if len(conditions) > MAX_FILTERS:
        raise InvalidRequestError(
            f"filters may be {MAX_FILTERS}, got {len(conditions)}.", param="filters"
        )
    merged: dict[tuple[str, str], list[JsonValue]] = {}
    several: list[LogFilter] = []
    for key, operator, values in conditions:
        if operator in ("lt", "gt"):  # two bounds must both hold
            several.append(log_filter(key, operator, values, param="filters"))
        else:  # one property has one value, so twice the same is meant as either
            merged.setdefault((key, operator), []).extend(values)
    return [
        *several,
        *(
            log_filter(key, operator, values, param="filters")
            for (key, operator), values in merged.items()
        ),
    ]


_Condition = tuple[str, str, list[JsonValue]]


def _from_json(text: str) -> list[_Condition]:
    try:
        items = orjson.loads(text)
    except orjson.JSONDecodeError:
        items = None
    if not isinstance(items, list):
        raise InvalidRequestError(
            "filters must be a JSON list, or be given as filters.key, filters.operator and "
            f"filters.value, got {text[:80]!r}.",
            param="filters",
        )
    shapes = [checked(Condition, item) for item in items]
    return [(shape.key, shape.operator, shape.value) for shape in shapes]


def _flattened(query: QueryParams) -> list[_Condition]:
    """Put conditions together again.

    The official client sends all keys, then all operators, then all values: they belong together by
    position. Where another client keeps each condition's parts together, their order is followed.
    """
    pairs = [pair for pair in query.multi_items() if pair[0] in _PARTS]
    names = [name for name, _ in pairs]
    keys, operators, values = ([value for name, value in pairs if name == part] for part in _PARTS)
    if len(keys) != len(operators):
        raise InvalidRequestError(
            f"filters.key was given {len(keys)} times and filters.operator {len(operators)} times.",
            param="filters",
        )
    if not keys and not values:
        return []
    if len(keys) == 1:
        return [(keys[0], operators[0], list(values) or [None])]  # null is sent as nothing
    if "filters.value" in names and "filters.key" in names[names.index("filters.value") :]:
        return _in_sequence(pairs)
    if len(values) != len(keys):
        raise InvalidRequestError(
            f"There are {len(values)} filters.value for {len(keys)} filters: give each filter one, "
            "and repeat a filter to allow several.",
            param="filters",
        )
    return [(keys[place], operators[place], [values[place]]) for place in range(len(keys))]


def _in_sequence(pairs: Sequence[tuple[str, str]]) -> list[_Condition]:
    found: list[dict[str, list[str]]] = []
    for name, value in pairs:
        if not found or (name != "filters.value" and name in found[-1]):
            found.append({})
        found[-1].setdefault(name, []).append(value)
    if not all(len(item.get(part, ())) for item in found for part in _PARTS):
        raise InvalidRequestError(
            "Every filter needs filters.key, filters.operator and filters.value.", param="filters"
        )
    return [
        (item["filters.key"][0], item["filters.operator"][0], list(item["filters.value"]))
        for item in found
    ]


def _number(query: QueryParams, name: str) -> float | None:
    text = query.get(name)
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InvalidRequestError(f"{name} must be a number, got {text[:80]!r}.", param=name)
    return number


def _time(query: QueryParams, name: str) -> float | None:
    text = query.get(name)
    return None if text is None else seconds_of(text, param=name)


def _order(query: QueryParams) -> LogOrder:
    name = query.get("order_by", "created_at")
    if name == "model_type":  # the same for all, so the newest comes first
        return "created_at"
    if name not in get_args(LogOrder):
        raise InvalidRequestError(
            f"order_by must be one of {', '.join(get_args(LogOrder))}, got {name[:80]!r}.",
            param="order_by",
        )
    return cast("LogOrder", name)


def _descending(query: QueryParams, default: bool) -> bool:
    for name in ("order_by_direction", "direction"):
        text = query.get(name)
        if text is not None:
            if text not in ("asc", "desc"):
                raise InvalidRequestError(
                    f"{name} must be asc or desc, got {text[:80]!r}.", param=name
                )
            return text == "desc"
    return default
