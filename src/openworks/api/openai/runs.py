"""`/v1/threads/{thread_id}/runs` and `/v1/threads/runs`: assistants at work on threads."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from openworks.api.answers import Answer, Events, Json
from openworks.api.context import Context
from openworks.api.openai import values
from openworks.api.openai.objects import body_or_nothing, list_body, path_id
from openworks.api.openai.run_request import (
    RunRequest,
    check_include,
    parse_outputs,
    parse_run,
    parse_run_update,
    parse_thread_and_run,
)
from openworks.core.ids import AccountId
from openworks.ports.runs import Run, RunSettings
from openworks.services.runs.documents import run_body
from openworks.services.runs.runs import Beginning
from openworks.wire import sse

_POLL_MS: Final = 100
"""How long the SDK's helpers wait between two looks at a run that is not over."""
_NUMBER: Final = re.compile(r"-1|[0-9]{1,9}")


async def create(context: Context) -> Answer:
    """Begin a run on a thread; its events are streamed if the body says so."""
    check_include(context.request.query_params.multi_items())
    request = parse_run(context.json())
    settings = await _settings(context, request)
    thread_id = path_id(context, "thread_id")
    messages = await context.services.threads.prepare_messages(
        context.principal.account_id, thread_id, request.messages
    )
    beginning = Beginning(settings=settings, metadata=request.metadata, messages=messages)
    return await _begun(context, thread_id, beginning, stream=request.stream)


async def create_with_thread(context: Context) -> Answer:
    """Begin a run on a new thread."""
    thread, request = parse_thread_and_run(context.json())
    settings = await _settings(context, request)
    made, messages = await context.services.threads.prepare(
        context.principal.account_id,
        messages=thread.messages,
        metadata=thread.metadata,
        tool_resources=thread.tool_resources,
    )
    beginning = Beginning(
        settings=settings, metadata=request.metadata, messages=messages, thread=made
    )
    return await _begun(context, made.id, beginning, stream=request.stream)


async def list_runs(context: Context) -> Answer:
    """List a thread's runs, newest first."""
    page = await context.services.runs.list(
        context.principal.account_id,
        path_id(context, "thread_id"),
        values.page(context.request.query_params, order="desc"),
    )
    return Json(list_body([run_body(each) for each in page.items], has_more=page.has_more))


async def retrieve(context: Context) -> Answer:
    """Return one; a header says when it makes sense to look again."""
    run = await run_of(context)
    headers = [(b"openai-poll-after-ms", str(_POLL_MS).encode())] if run.is_active else []
    return Json(run_body(run), headers=headers)


async def update(context: Context) -> Answer:
    """Replace the metadata, which is all that can change; null clears it."""
    fields = parse_run_update(body_or_nothing(context))
    if "metadata" not in fields:
        return Json(run_body(await run_of(context)))
    metadata = values.metadata(fields["metadata"])
    return Json(run_body(await context.services.runs.set_metadata(*_ids(context), metadata)))


async def cancel(context: Context) -> Answer:
    """Ask for a run's end."""
    return Json(run_body(await context.services.runs.cancel(*_ids(context))))


async def submit_tool_outputs(context: Context) -> Answer:
    """Give a run what its calls have returned."""
    outputs, stream = parse_outputs(context.json())
    runs = context.services.runs
    # What is heard begins behind this event: a run that waits tells nothing.
    after = await runs.last_event(await run_of(context)) if stream else -1
    run = await runs.submit(*_ids(context), outputs)
    return _events(context, run, after=after) if stream else Json(run_body(run))


async def events(context: Context) -> Answer:
    """Stream a run's events again, or go on listening, behind the event `starting_after`."""
    given = context.request.query_params.get("starting_after", "-1")
    if not _NUMBER.fullmatch(given):
        raise values.invalid(
            "starting_after", f"starting_after must be the number of an event, got {given[:40]!r}."
        )
    return _events(context, await run_of(context), after=int(given))


async def run_of(context: Context) -> Run:
    """Return the run that the path names."""
    return await context.services.runs.get(*_ids(context))


async def _settings(context: Context, request: RunRequest) -> RunSettings:
    assistant = await context.services.assistants.get(
        context.principal.account_id, request.assistant_id
    )
    settings = request.settings(assistant)
    await context.services.pipeline.resolve(context.call(settings.model), "text-generation")
    return settings


async def _begun(context: Context, thread_id: str, beginning: Beginning, *, stream: bool) -> Answer:
    run = await context.services.runs.create(context.principal, context.route, thread_id, beginning)
    return _events(context, run, after=-1) if stream else Json(run_body(run))


def _events(context: Context, run: Run, *, after: int) -> Events:
    return Events(_encoded(context, run, after))


async def _encoded(context: Context, run: Run, after: int) -> AsyncGenerator[bytes, None]:
    async with aclosing(context.services.runs.events(run, after=after)) as found:
        async for event in found:
            yield sse.named_event(event.name, event.data, number=event.number)


def _ids(context: Context) -> tuple[AccountId, str, str]:
    return (
        context.principal.account_id,
        path_id(context, "thread_id"),
        path_id(context, "run_id"),
    )
