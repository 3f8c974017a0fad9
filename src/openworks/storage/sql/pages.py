"""Cursor pages in SQL: one seek by (created_at_s, id), whatever the noun."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, Table, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from openworks.core.errors import InvalidRequestError
from openworks.core.pages import PageRequest


async def fetch_page(
    connection: AsyncConnection,
    query: Select[Any],
    page: PageRequest,
    *,
    table: Table,
    scope: ColumnElement[bool],
) -> tuple[Sequence[Row[Any]], bool]:
    """Run `query` for one page; return its rows in the order asked for, and whether more follow.

    Args:
        query: Selects from `table` with its filters, without order and limit.
        table: Has the columns `created_at_s` and `id`.
        scope: Where a cursor may point; outside it, an id is unknown.

    Raises:
        InvalidRequestError: `after` or `before` names nothing in scope.
    """
    position = tuple_(table.c.created_at_s, table.c.id)
    ascending = page.order == "asc"
    for param, cursor in (("after", page.after), ("before", page.before)):
        if cursor is None:
            continue
        here = await _seek(connection, table, scope, cursor=cursor, param=param)
        later = ascending == (param == "after")
        query = query.where(position > here if later else position < here)

    # `before` alone asks for the page that ends at the cursor, so it is read from its end.
    backwards = page.before is not None and page.after is None
    columns = (table.c.created_at_s, table.c.id)
    if ascending != backwards:
        query = query.order_by(*(column.asc() for column in columns))
    else:
        query = query.order_by(*(column.desc() for column in columns))
    found = (await connection.execute(query.limit(page.limit + 1))).all()
    rows = found[: page.limit]
    return (rows[::-1] if backwards else rows), len(found) > page.limit


async def _seek(
    connection: AsyncConnection,
    table: Table,
    scope: ColumnElement[bool],
    *,
    cursor: str,
    param: str,
) -> tuple[Any, ...]:
    query = select(table.c.created_at_s, table.c.id).where(scope, table.c.id == cursor)
    row = (await connection.execute(query)).first()
    if row is None:
        raise InvalidRequestError(
            f"{param} must be the id of an item in the list, got '{cursor}'.",
            code="invalid_cursor",
            param=param,
        )
    return tuple(row)
