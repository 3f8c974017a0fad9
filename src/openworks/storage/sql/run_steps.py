"""Steps of runs in SQL, in the order in which they were taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from openworks.core.pages import Page, PageRequest
from openworks.ports.calls import Usage
from openworks.ports.runs import FunctionCall, RunError, RunStep
from openworks.storage.sql.pages import fetch_page
from openworks.storage.sql.tables import run_steps

_COLUMNS = run_steps.c


async def insert_steps(connection: AsyncConnection, steps: Sequence[RunStep]) -> None:
    """Insert steps in the transaction of what they do."""
    if steps:
        await connection.execute(insert(run_steps), [_values(step) for step in steps])


async def update_steps(connection: AsyncConnection, steps: Sequence[RunStep]) -> None:
    """Keep what has become of steps."""
    for step in steps:
        statement = update(run_steps).where(_COLUMNS.id == step.id).values(_values(step))
        await connection.execute(statement)


async def read_steps(connection: AsyncConnection, run_id: str) -> Sequence[RunStep]:
    """Return all steps of a run, in their order."""
    query = select(run_steps).where(_COLUMNS.run_id == run_id).order_by(_COLUMNS.number)
    return [_step(row) for row in (await connection.execute(query)).all()]


async def read_step(connection: AsyncConnection, run_id: str, step_id: str) -> RunStep | None:
    """Find a step of a run."""
    query = select(run_steps).where(_COLUMNS.id == step_id, _COLUMNS.run_id == run_id)
    row = (await connection.execute(query)).first()
    return None if row is None else _step(row)


async def read_page(connection: AsyncConnection, run_id: str, page: PageRequest) -> Page[RunStep]:
    """Return a page of the steps of a run."""
    scope = _COLUMNS.run_id == run_id
    rows, has_more = await fetch_page(
        connection,
        select(run_steps).where(scope),
        page,
        table=run_steps,
        scope=scope,
        order=(_COLUMNS.run_id, _COLUMNS.number),
    )
    return Page(items=[_step(row) for row in rows], has_more=has_more)


def _values(step: RunStep) -> dict[str, Any]:
    return {
        "id": step.id,
        "run_id": step.run_id,
        "number": step.number,
        "turn": step.turn,
        "created_at_s": step.created_at_s,
        "status": step.status,
        "ended_at_s": step.ended_at_s,
        "message_id": step.message_id,
        "tool_calls": msgspec.to_builtins(step.tool_calls),
        "prompt_tokens": step.usage.prompt_tokens,
        "completion_tokens": step.usage.completion_tokens,
        "error": msgspec.to_builtins(step.error),
    }


def _step(row: Row[Any]) -> RunStep:
    return RunStep(
        id=row.id,
        run_id=row.run_id,
        number=row.number,
        turn=row.turn,
        created_at_s=row.created_at_s,
        status=row.status,
        ended_at_s=row.ended_at_s,
        message_id=row.message_id,
        tool_calls=msgspec.convert(row.tool_calls, tuple[FunctionCall, ...]),
        usage=Usage(prompt_tokens=row.prompt_tokens, completion_tokens=row.completion_tokens),
        error=msgspec.convert(row.error, RunError | None),
    )
