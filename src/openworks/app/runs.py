"""Builds what runs need: who begins them, and who does the work."""

from __future__ import annotations

from openworks.app.settings import Settings
from openworks.app.work import Work
from openworks.core.clock import Clock
from openworks.core.ids import NewId
from openworks.gateway.pipeline import Pipeline
from openworks.services.agent.loop import Agent
from openworks.services.files import Files
from openworks.services.journal import Journal
from openworks.services.runs.jobs import RunJobs
from openworks.services.runs.prompts import RunPrompts
from openworks.services.runs.runs import Runs
from openworks.storage.sql.database import Database
from openworks.storage.sql.events import SqlEventStore
from openworks.storage.sql.messages import SqlMessageStore
from openworks.storage.sql.runs import SqlRunStore


def make_run_jobs(
    database: Database,
    files: Files,
    pipeline: Pipeline,
    journal: Journal,
    *,
    clock: Clock,
    new_id: NewId,
) -> RunJobs:
    """Return what brings runs to their ends."""
    return RunJobs(
        store=SqlRunStore(database),
        events=SqlEventStore(database),
        journal=journal,
        agent=Agent(pipeline, tools={}),
        prompts=RunPrompts(pipeline, SqlMessageStore(database), files),
        clock=clock,
        new_id=new_id,
    )


def make_runs(
    settings: Settings, database: Database, work: Work, *, clock: Clock, new_id: NewId
) -> Runs:
    """Return what begins runs."""
    return Runs(
        SqlRunStore(database),
        SqlEventStore(database),
        work.journal,
        work.workers,
        settings.runs,
        clock=clock,
        new_id=new_id,
    )
