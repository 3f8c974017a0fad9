"""`/v1/threads/{thread_id}/runs/{run_id}/steps`: what a run did, one thing after the other."""

from __future__ import annotations

from openworks.api.answers import Answer, Json
from openworks.api.context import Context
from openworks.api.openai import values
from openworks.api.openai.objects import list_body, path_id
from openworks.api.openai.run_request import check_include
from openworks.api.openai.runs import run_of
from openworks.services.runs.documents import step_body


async def list_steps(context: Context) -> Answer:
    """List a run's steps, newest first."""
    query = context.request.query_params
    check_include(query.multi_items())
    run = await run_of(context)
    page = await context.services.runs.steps(run, values.page(query, order="desc"))
    return Json(list_body([step_body(run, each) for each in page.items], has_more=page.has_more))


async def retrieve(context: Context) -> Answer:
    """Return one."""
    check_include(context.request.query_params.multi_items())
    run = await run_of(context)
    step = await context.services.runs.step(run, path_id(context, "step_id"))
    return Json(step_body(run, step))
