"""Cursor pages in SQL: one seek by the columns that order the list, whatever the noun."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, Row, Select, Table, select, tuple_
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
    order: Sequence[Column[Any]] = (),
) -> tuple[Sequence[Row[Any]], bool]:
    """Run `query` for one page; return its rows in the order asked for, and whether more follow.

    Args:
        query: Selects from `table` with its filters, without order and limit.
        table: Has the column `id`.
        scope: Where a cursor may point; outside it, an id is unknown.
        order: Columns that no two rows in scope share; `created_at_s` and `id` when there are none.

    Raises:
        InvalidRequestError: `after` or `before` names nothing in scope.
    """
    columns = order or (table.c.created_at_s, table.c.id)
    position = tuple_(*columns)
    ascending = page.order == "asc"
    for param, cursor in (("after", page.after), ("before", page.before)):
        if cursor is None:
            continue
        here = await _seek(connection, table, scope, columns, cursor=cursor, param=param)
        later = ascending == (param == "after")
        query = query.where(position > here if later else position < here)

    # `before` alone asks for the page that ends at the cursor, so it is read from its end.
    backwards = page.before is not None and page.after is None
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
    columns: Sequence[Column[Any]],
    *,
    cursor: str,
    param: str,
) -> tuple[Any, ...]:
    query = select(*columns).where(scope, table.c.id == cursor)
    row = (await connection.execute(query)).first()
    if row is None:
        raise InvalidRequestError(
            f"{param} must be the id of an item in the list, got '{cursor}'.",
            code="invalid_cursor",
            param=param,
        )
    return tuple(row)
