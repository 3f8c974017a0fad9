"""Responses in SQL, with the items that they were asked with and that they consist of."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import CTE, ColumnElement, Row, and_, delete, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from openworks.core.clock import Clock
from openworks.core.ids import AccountId
from openworks.core.json import JsonObject
from openworks.core.pages import Page, PageRequest
from openworks.ports.calls import Usage
from openworks.ports.events import NewEvents
from openworks.ports.jobs import Claim, NewJob, Rest
from openworks.ports.responses import History, Response
from openworks.storage.sql.conversations import add_items, read_items
from openworks.storage.sql.database import Database
from openworks.storage.sql.events import insert_events
from openworks.storage.sql.jobs import delete_job, hold, insert_job, put_to_rest
from openworks.storage.sql.pages import fetch_page
from openworks.storage.sql.tables import (
    conversation_items,
    conversations,
    response_items,
    responses,
)
from openworks.storage.sql.tables import (
    events as event_table,
)

_COLUMNS = responses.c
_ITEMS = response_items.c


class SqlResponseStore:
    """Responses in the table of that name; the database removes their items with them."""

    def __init__(self, database: Database, *, clock: Clock) -> None:
        """Remember where.

        Args:
            database: Keeps them.
            clock: Says when an event was kept.
        """
        self._database = database
        self._clock = clock

    async def insert(
        self,
        response: Response,
        input_items: Sequence[JsonObject],
        job: NewJob,
        *,
        events: NewEvents | None = None,
    ) -> None:
        conflict = f"A response with id '{response.id}' is there already."
        async with self._database.write(conflict=conflict) as connection:
            await connection.execute(insert(responses).values(_values(response)))
            await _insert_items(connection, response.id, input_items, first=0, is_output=False)
            await insert_job(connection, job)
            await self._insert_events(connection, events)

    async def get(self, account_id: AccountId, response_id: str) -> Response | None:
        query = select(responses).where(_is(account_id, response_id))
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
            if row is None:
                return None
            output = await _read_items(connection, response_id, is_output=True)
        return _response(row, tuple(output))

    async def history(self, account_id: AccountId, response_id: str) -> History | None:
        chain = _chain(account_id, response_id)
        oldest = select(chain).order_by(chain.c.depth.desc()).limit(1)
        items = (
            select(_ITEMS.body)
            .join(chain, chain.c.id == _ITEMS.response_id)
            .order_by(chain.c.depth.desc(), _ITEMS.position)
        )
        async with self._database.read() as connection:
            first = (await connection.execute(oldest)).first()
            if first is None:
                return None
            if first.previous_id is not None:
                return History(items=(), missing=first.previous_id)
            before: tuple[JsonObject, ...] = ()
            if (conversation_id := first.conversation_id) is not None:
                position = first.conversation_position
                known = await read_items(connection, account_id, conversation_id, before=position)
                if known is None:
                    return History(items=(), missing=conversation_id)
                before = known.items
            rows = (await connection.execute(items)).all()
        return History(items=(*before, *(row.body for row in rows)))

    async def list_input(
        self, account_id: AccountId, response_id: str, page: PageRequest
    ) -> Page[JsonObject] | None:
        scope = and_(_ITEMS.response_id == response_id, ~_ITEMS.is_output)
        this = select(_COLUMNS.id).where(_is(account_id, response_id))
        async with self._database.read() as connection:
            if (await connection.execute(this)).first() is None:
                return None
            rows, has_more = await fetch_page(
                connection,
                select(response_items).where(scope),
                page,
                table=response_items,
                scope=scope,
                order=(_ITEMS.response_id, _ITEMS.position),
            )
        return Page(items=[row.body for row in rows], has_more=has_more)

    async def find_items(
        self, account_id: AccountId, item_ids: Collection[str]
    ) -> Mapping[str, JsonObject]:
        of_responses = (
            select(_ITEMS.id, _ITEMS.body)
            .join(responses, _COLUMNS.id == _ITEMS.response_id)
            .where(_COLUMNS.account_id == account_id, _ITEMS.id.in_(list(item_ids)))
        )
        items = conversation_items.c
        of_conversations = (
            select(items.id, items.body)
            .join(conversations, conversations.c.id == items.conversation_id)
            .where(conversations.c.account_id == account_id, items.id.in_(list(item_ids)))
        )
        async with self._database.read() as connection:
            rows = [
                *(await connection.execute(of_conversations)).all(),
                *(await connection.execute(of_responses)).all(),
            ]
        return {row.id: row.body for row in rows}

    async def begin(self, claim: Claim, *, events: NewEvents | None) -> None:
        statement = (
            update(responses).where(_COLUMNS.id == claim.subject_id).values(status="in_progress")
        )
        async with self._database.write() as connection:
            await hold(connection, claim)
            await connection.execute(statement)
            await self._insert_events(connection, events)

    async def end(self, claim: Claim, response: Response, *, events: NewEvents | None) -> None:
        values = _values(response)
        changed = {
            name: values[name]
            for name in ("status", "completed_at_s", "error", "incomplete_reason", "usage")
        }
        async with self._database.write() as connection:
            await hold(connection, claim)
            statement = update(responses).where(_COLUMNS.id == response.id).values(changed)
            await connection.execute(statement)
            asked = await _read_items(connection, response.id, is_output=False)
            await _insert_items(
                connection, response.id, response.output, first=len(asked), is_output=True
            )
            if response.conversation_id is not None and response.status in {
                "completed",
                "incomplete",
            }:
                both = [*asked, *response.output]
                await add_items(connection, response.account_id, response.conversation_id, both)
            await self._insert_events(connection, events)
            await put_to_rest(connection, claim, Rest())

    async def drop(self, claim: Claim) -> None:
        async with self._database.write() as connection:
            await hold(connection, claim)
            await connection.execute(delete(responses).where(_COLUMNS.id == claim.subject_id))
            await put_to_rest(connection, claim, Rest())

    async def delete(self, account_id: AccountId, response_id: str) -> bool:
        async with self._database.write() as connection:
            this = select(_COLUMNS.id).where(_is(account_id, response_id))
            if (await connection.execute(this)).first() is None:
                return False
            # The job first, as whoever works on it does: two would wait for each other otherwise.
            await delete_job(connection, "response", response_id)
            await connection.execute(delete(responses).where(_is(account_id, response_id)))
            of_it = event_table.c.stream_id == response_id
            await connection.execute(delete(event_table).where(of_it))
        return True

    async def _insert_events(self, connection: AsyncConnection, events: NewEvents | None) -> None:
        if events is not None:
            await insert_events(connection, events, now_s=self._clock.now_s())


def _chain(account_id: AccountId, response_id: str) -> CTE:
    """A response at depth 0 and those before it, as far as they are there."""
    wanted = (
        _COLUMNS.id,
        _COLUMNS.previous_id,
        _COLUMNS.conversation_id,
        _COLUMNS.conversation_position,
    )
    newest = select(*wanted, literal(0).label("depth")).where(_is(account_id, response_id))
    chain = newest.cte("chain", recursive=True)
    before = select(*wanted, chain.c.depth + 1).where(
        _COLUMNS.id == chain.c.previous_id, _COLUMNS.account_id == account_id
    )
    return chain.union_all(before)


async def _read_items(
    connection: AsyncConnection, response_id: str, *, is_output: bool
) -> list[JsonObject]:
    query = (
        select(_ITEMS.body)
        .where(_ITEMS.response_id == response_id, _ITEMS.is_output == is_output)
        .order_by(_ITEMS.position)
    )
    return [row.body for row in (await connection.execute(query)).all()]


async def _insert_items(
    connection: AsyncConnection,
    response_id: str,
    items: Sequence[JsonObject],
    *,
    first: int,
    is_output: bool,
) -> None:
    rows = [
        {
            "response_id": response_id,
            "position": first + place,
            "id": item["id"],
            "is_output": is_output,
            "body": item,
        }
        for place, item in enumerate(items)
    ]
    if rows:
        await connection.execute(insert(response_items), rows)


def _is(account_id: AccountId, response_id: str) -> ColumnElement[bool]:
    return and_(_COLUMNS.account_id == account_id, _COLUMNS.id == response_id)


def _values(response: Response) -> dict[str, Any]:
    return {
        "id": response.id,
        "account_id": response.account_id,
        "key_id": response.key_id,
        "route": response.route,
        "created_at_s": response.created_at_s,
        "completed_at_s": response.completed_at_s,
        "model": response.model,
        "settings": response.settings,
        "is_background": response.is_background,
        "previous_id": response.previous_id,
        "conversation_id": response.conversation_id,
        "conversation_position": response.conversation_position,
        "seed": response.seed,
        "status": response.status,
        "error": response.error,
        "incomplete_reason": response.incomplete_reason,
        "usage": None if response.usage is None else asdict(response.usage),
    }


def _response(row: Row[Any], output: tuple[JsonObject, ...]) -> Response:
    return Response(
        id=row.id,
        account_id=row.account_id,
        key_id=row.key_id,
        route=row.route,
        created_at_s=row.created_at_s,
        completed_at_s=row.completed_at_s,
        model=row.model,
        settings=row.settings,
        is_background=row.is_background,
        previous_id=row.previous_id,
        conversation_id=row.conversation_id,
        conversation_position=row.conversation_position,
        seed=row.seed,
        status=row.status,
        error=row.error,
        incomplete_reason=row.incomplete_reason,
        usage=None if row.usage is None else Usage(**row.usage),
        output=output,
    )
