"""`/v1/threads`: conversations that are kept here."""

from __future__ import annotations

from openworks.api.answers import Answer, Json
from openworks.api.context import Context
from openworks.api.openai import values
from openworks.api.openai.message_request import parse_thread, parse_thread_update
from openworks.api.openai.objects import body_or_nothing, deleted, list_body, path_id
from openworks.api.openai.tool_resources import tool_resources
from openworks.services.runs.documents import thread_body


async def create(context: Context) -> Answer:
    """Make a thread, with its first messages."""
    fields, messages = parse_thread(body_or_nothing(context))
    thread = await context.services.threads.create(
        context.principal.account_id,
        messages=messages,
        metadata=values.metadata(fields.get("metadata")),
        tool_resources=tool_resources(fields.get("tool_resources")),
    )
    return Json(thread_body(thread))


async def list_threads(context: Context) -> Answer:
    """List an account's threads, newest first; OpenAI has no such list."""
    page = await context.services.threads.list(
        context.principal.account_id, values.page(context.request.query_params, order="desc")
    )
    return Json(list_body([thread_body(each) for each in page.items], has_more=page.has_more))


async def retrieve(context: Context) -> Answer:
    """Return one."""
    return Json(
        thread_body(await context.services.threads.get(context.principal.account_id, _id(context)))
    )


async def update(context: Context) -> Answer:
    """Replace metadata or tool resources; null clears them."""
    fields = parse_thread_update(body_or_nothing(context))
    thread = await context.services.threads.update(
        context.principal.account_id,
        _id(context),
        metadata=values.metadata(fields["metadata"]) if "metadata" in fields else None,
        tool_resources=(
            tool_resources(fields["tool_resources"]) if "tool_resources" in fields else None
        ),
    )
    return Json(thread_body(thread))


async def delete(context: Context) -> Answer:
    """Remove one with all its messages."""
    thread_id = _id(context)
    await context.services.threads.delete(context.principal.account_id, thread_id)
    return deleted("thread", thread_id)


def _id(context: Context) -> str:
    return path_id(context, "thread_id")
