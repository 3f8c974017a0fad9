"""Runs in SQL; with each change come its events and the rest of its job, or none of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, and_, insert, select, text, update

from openworks.core.errors import ConflictError
from openworks.core.ids import AccountId, KeyId
from openworks.core.pages import Page, PageRequest
from openworks.ports.calls import Usage
from openworks.ports.runs import (
    FunctionCall,
    NewRun,
    Run,
    RunChange,
    RunError,
    RunSettings,
    RunStep,
)
from openworks.storage.sql.database import Database
from openworks.storage.sql.events import insert_events
from openworks.storage.sql.jobs import hold, insert_job, make_due, put_to_rest
from openworks.storage.sql.messages import append_messages, refuse_active_run, update_message
from openworks.storage.sql.pages import fetch_page
from openworks.storage.sql.run_steps import (
    insert_steps,
    read_page,
    read_step,
    read_steps,
    update_steps,
)
from openworks.storage.sql.tables import ACTIVE_RUN, jobs, runs, threads
from openworks.storage.sql.threads import insert_thread

_COLUMNS = runs.c
_UNLIMITED = 2**31 - 1


class SqlRunStore:
    """Runs and steps in the tables of those names.

    Rows are locked in one order everywhere: the thread, the job, the run.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, new: NewRun) -> bool:
        run = new.run
        conflict = f"A run with id '{run.id}', or something of it, is there already."
        async with self._database.write(conflict=conflict) as connection:
            if new.thread is not None:
                await insert_thread(connection, new.thread, new.messages)
            else:
                if not await append_messages(
                    connection, run.account_id, run.thread_id, new.messages, most=new.most_messages
                ):
                    return False
                await refuse_active_run(
                    connection,
                    run.thread_id,
                    "Thread '{thread}' has an active run already: '{run}'.",
                )
            await connection.execute(insert(runs).values(_values(run)))
            await insert_job(connection, new.job)
            await insert_events(connection, new.events, now_s=run.created_at_s)
        return True

    async def get(self, account_id: AccountId, thread_id: str, run_id: str) -> Run | None:
        return await self._first(_is(account_id, thread_id, run_id))

    async def find(self, run_id: str) -> Run | None:
        return await self._first(_COLUMNS.id == run_id)

    async def list(
        self, account_id: AccountId, thread_id: str, page: PageRequest
    ) -> Page[Run] | None:
        scope = _COLUMNS.thread_id == thread_id
        thread = select(threads.c.id).where(
            threads.c.id == thread_id, threads.c.account_id == account_id
        )
        async with self._database.read() as connection:
            if (await connection.execute(thread)).first() is None:
                return None
            rows, has_more = await fetch_page(
                connection, select(runs).where(scope), page, table=runs, scope=scope
            )
        return Page(items=[_run(row) for row in rows], has_more=has_more)

    async def set_metadata(
        self, account_id: AccountId, thread_id: str, run_id: str, metadata: Mapping[str, str]
    ) -> Run | None:
        this = _is(account_id, thread_id, run_id)
        statement = update(runs).where(this).values(metadata=dict(metadata))
        async with self._database.write() as connection:
            row = (await connection.execute(statement.returning(*_COLUMNS))).first()
        return None if row is None else _run(row)

    async def begin_cancel(self, run: Run, *, now_s: float) -> bool:
        active = and_(_COLUMNS.id == run.id, text(ACTIVE_RUN))
        statement = update(runs).where(active).values(status="cancelling", open_calls=[])
        async with self._database.write() as connection:
            await make_due(connection, "run", run.id, now_s=now_s)
            return (await connection.execute(statement)).rowcount > 0

    async def submit(self, run: Run, outputs: Mapping[str, str], *, now_s: float) -> bool:
        async with self._database.write() as connection:
            of_run = and_(jobs.c.kind == "run", jobs.c.subject_id == run.id)
            await connection.execute(select(jobs.c.token).where(of_run).with_for_update())
            query = select(runs).where(_COLUMNS.id == run.id).with_for_update()
            row = (await connection.execute(query)).first()
            if row is None or row.status != "requires_action":
                return False
            if {call.id for call in _run(row).open_calls} != outputs.keys():
                return False
            await make_due(connection, "run", run.id, now_s=now_s)
            steps = await read_steps(connection, run.id)
            await update_steps(connection, [_answered(steps[-1], outputs)])
            resumed = update(runs).where(_COLUMNS.id == run.id)
            await connection.execute(resumed.values(status="queued", open_calls=[]))
        return True

    async def change(self, change: RunChange, *, now_s: float) -> None:
        run, claim = change.run, change.events.claim
        statement = update(runs).where(_COLUMNS.id == run.id, _COLUMNS.status == change.was)
        async with self._database.write() as connection:
            if change.new_message is not None:
                await append_messages(
                    connection,
                    run.account_id,
                    run.thread_id,
                    [change.new_message],
                    most=_UNLIMITED,  # an answer is not lost for want of room
                )
            await hold(connection, claim, is_progress=change.is_progress)
            if (await connection.execute(statement.values(_changeable(run)))).rowcount == 0:
                raise ConflictError(f"Run '{run.id}' is not {change.was!r} any more.")
            await insert_steps(connection, change.new_steps)
            await update_steps(connection, change.steps)
            if change.message is not None:
                await update_message(connection, change.message)
            await insert_events(connection, change.events, now_s=now_s)
            if change.rest is not None:
                await put_to_rest(connection, claim, change.rest)

    async def steps(self, run_id: str) -> Sequence[RunStep]:
        async with self._database.read() as connection:
            return await read_steps(connection, run_id)

    async def get_step(self, run_id: str, step_id: str) -> RunStep | None:
        async with self._database.read() as connection:
            return await read_step(connection, run_id, step_id)

    async def list_steps(self, run_id: str, page: PageRequest) -> Page[RunStep]:
        async with self._database.read() as connection:
            return await read_page(connection, run_id, page)

    async def _first(self, this: ColumnElement[bool]) -> Run | None:
        async with self._database.read() as connection:
            row = (await connection.execute(select(runs).where(this))).first()
        return None if row is None else _run(row)


def _answered(step: RunStep, outputs: Mapping[str, str]) -> RunStep:
    calls = (replace(call, output=outputs.get(call.id, call.output)) for call in step.tool_calls)
    return replace(step, tool_calls=tuple(calls))


def _is(account_id: AccountId, thread_id: str, run_id: str) -> ColumnElement[bool]:
    return and_(
        _COLUMNS.id == run_id,
        _COLUMNS.thread_id == thread_id,
        _COLUMNS.account_id == account_id,
    )


def _values(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "thread_id": run.thread_id,
        "account_id": run.account_id,
        "created_at_s": run.created_at_s,
        "expires_at_s": run.expires_at_s,
        "key_id": run.key_id,
        "route": run.route,
        "settings": msgspec.to_builtins(run.settings),
        "metadata": dict(run.metadata),
        **_changeable(run),
    }


def _changeable(run: Run) -> dict[str, Any]:
    return {
        "status": run.status,
        "open_calls": msgspec.to_builtins(run.open_calls),
        "started_at_s": run.started_at_s,
        "ended_at_s": run.ended_at_s,
        "num_turns": run.num_turns,
        "prompt_tokens": run.usage.prompt_tokens,
        "completion_tokens": run.usage.completion_tokens,
        "error": msgspec.to_builtins(run.error),
        "incomplete_reason": run.incomplete_reason,
    }


def _run(row: Row[Any]) -> Run:
    return Run(
        id=row.id,
        thread_id=row.thread_id,
        account_id=AccountId(row.account_id),
        created_at_s=row.created_at_s,
        expires_at_s=row.expires_at_s,
        key_id=None if row.key_id is None else KeyId(row.key_id),
        route=row.route,
        settings=msgspec.convert(row.settings, RunSettings),
        metadata=row.metadata,
        status=row.status,
        open_calls=msgspec.convert(row.open_calls, tuple[FunctionCall, ...]),
        num_turns=row.num_turns,
        started_at_s=row.started_at_s,
        ended_at_s=row.ended_at_s,
        usage=Usage(prompt_tokens=row.prompt_tokens, completion_tokens=row.completion_tokens),
        error=msgspec.convert(row.error, RunError | None),
        incomplete_reason=row.incomplete_reason,
    )
