"""What a query for logs means in SQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias, assert_never

from sqlalchemy import (
    ColumnElement,
    Double,
    String,
    and_,
    case,
    cast,
    exists,
    false,
    func,
    not_,
    or_,
    true,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from openworks.ports.logs import FilterKey, FilterValue, LogFilter, LogOrder, LogQuery
from openworks.storage.sql.database import json_pairs
from openworks.storage.sql.tables import call_records

_Test: TypeAlias = Callable[[ColumnElement[Any]], ColumnElement[bool]]

_COLUMNS = call_records.c
_SUCCESS: Final[ColumnElement[Any]] = case((_COLUMNS.outcome == "ok", true()), else_=false())
_TOKENS: Final[ColumnElement[Any]] = _COLUMNS.prompt_tokens + _COLUMNS.completion_tokens
_FILTERED: Final[dict[FilterKey, ColumnElement[Any]]] = {
    "id": _COLUMNS.id,
    "created_at": _COLUMNS.created_at_s,
    "request_content_type": _COLUMNS.request_type,
    "response_content_type": _COLUMNS.response_type,
    "success": _COLUMNS.outcome,
    "cached": _COLUMNS.cached,
    "provider": _COLUMNS.provider,
    "model": _COLUMNS.model,
    "cost": _COLUMNS.cost_usd,
    "tokens": _TOKENS,
    "tokens_in": _COLUMNS.prompt_tokens,
    "tokens_out": _COLUMNS.completion_tokens,
    "duration": _COLUMNS.duration_ms,
    "feedback": _COLUMNS.feedback,
    "event_id": _COLUMNS.event_id,
    "status": _COLUMNS.status,
    "key_id": _COLUMNS.key_id,
}
_ORDERED: Final[dict[LogOrder, ColumnElement[Any]]] = {
    "created_at": _COLUMNS.created_at_s,
    "provider": _COLUMNS.provider,
    "model": _COLUMNS.model,
    "success": _SUCCESS,
    "cached": _COLUMNS.cached,
    "cost": _COLUMNS.cost_usd,
    "tokens_in": _COLUMNS.prompt_tokens,
    "tokens_out": _COLUMNS.completion_tokens,
    "duration": _COLUMNS.duration_ms,
    "feedback": func.coalesce(_COLUMNS.feedback, 0),
}


def conditions(connection: AsyncConnection, query: LogQuery) -> list[ColumnElement[bool]]:
    """Return what must hold of a row, beside its account and gateway."""
    found = list(_bounds(query))
    if query.search:
        found.append(_search(query.search))
    found += [_filter(connection, item) for item in query.filters]
    return found


def order_columns(query: LogQuery) -> Sequence[ColumnElement[Any]]:
    """Return what to order by; of equals, the newest comes first."""
    first = _ORDERED[query.order_by]
    if query.order_by == "created_at":
        both = (first, _COLUMNS.id)
        return [column.desc() if query.descending else column.asc() for column in both]
    first = first.desc() if query.descending else first.asc()
    return [first, _COLUMNS.created_at_s.desc(), _COLUMNS.id.desc()]


def _bounds(query: LogQuery) -> Sequence[ColumnElement[bool]]:
    found = []
    for column, least, most in (
        (_COLUMNS.cost_usd, query.min_cost_usd, query.max_cost_usd),
        (_COLUMNS.duration_ms, query.min_duration_ms, query.max_duration_ms),
        (_COLUMNS.prompt_tokens, query.min_tokens_in, query.max_tokens_in),
        (_COLUMNS.completion_tokens, query.min_tokens_out, query.max_tokens_out),
        (_TOKENS, query.min_total_tokens, query.max_total_tokens),
        (_COLUMNS.created_at_s, query.since_s, None),
    ):
        if least is not None:
            found.append(column >= least)
        if most is not None:
            found.append(column <= most)
    if query.until_s is not None:
        found.append(_COLUMNS.created_at_s < query.until_s)
    return found


def _search(text: str) -> ColumnElement[bool]:
    return or_(
        *(
            _contains(column, text)
            for column in (
                _COLUMNS.id,
                _COLUMNS.model,
                _COLUMNS.provider,
                _COLUMNS.error_code,
                cast(_COLUMNS.metadata, String),
            )
        )
    )


def _contains(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    return func.coalesce(func.lower(column), "").contains(text.lower(), autoescape=True)


def _filter(connection: AsyncConnection, item: LogFilter) -> ColumnElement[bool]:
    test = _any_of(item)
    if item.key in ("metadata.key", "metadata.value"):
        found = _metadata(connection, item, test)
    elif item.key == "success":
        found = or_(false(), *(_is_success(value) for value in item.values))
    else:
        found = test(_FILTERED[item.key])
    return not_(found) if item.operator == "neq" else found


def _any_of(item: LogFilter) -> _Test:
    """One of the values fits; for `neq`, the caller turns it round."""
    return lambda column: or_(false(), *(_fits(column, item, value) for value in item.values))


def _fits(column: ColumnElement[Any], item: LogFilter, value: FilterValue) -> ColumnElement[bool]:
    if value is None:
        return column.is_(None)
    match item.operator:
        case "eq" | "neq":  # not the word for a column that was never set: NULL is no answer
            return and_(column.is_not(None), column == value)
        case "contains":
            return _contains(cast(column, String), str(value))
        case "lt":
            return column < value
        case "gt":
            return column > value
        case _:
            assert_never(item.operator)


def _is_success(value: FilterValue) -> ColumnElement[bool]:
    return _COLUMNS.outcome == "ok" if value else _COLUMNS.outcome != "ok"


def _metadata(connection: AsyncConnection, item: LogFilter, test: _Test) -> ColumnElement[bool]:
    pairs = json_pairs(connection, _COLUMNS.metadata)
    if item.key == "metadata.key":
        return exists().where(test(pairs.c.key)).select_from(pairs)
    if item.operator in ("lt", "gt"):
        return exists().where(test(_number(connection, pairs.c.value))).select_from(pairs)
    values = or_(
        false(),
        *(_fits(cast(pairs.c.value, String), item, text) for text in _texts(connection, item)),
    )
    return exists().where(values).select_from(pairs)


def _number(connection: AsyncConnection, value: ColumnElement[Any]) -> ColumnElement[Any]:
    """A value of JSON where it is a number, else NULL; Postgres gives all of them as text."""
    if connection.dialect.name == "postgresql":
        return case((value.regexp_match(r"^-?[0-9]+([.][0-9]+)?$"), cast(value, Double)))
    return case((func.typeof(value).in_(("integer", "real")), value))


def _texts(connection: AsyncConnection, item: LogFilter) -> list[str]:
    """The values as a database writes them: SQLite reads true and false as 1 and 0."""
    found = []
    for value in item.values:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if connection.dialect.name != "postgresql" and isinstance(value, bool):
            text = str(int(value))
        found.append(text)
    return found
