"""`/v1/threads/{thread_id}/messages`: what was said in a thread."""

from __future__ import annotations

from openworks.api.answers import Answer, Json
from openworks.api.context import Context
from openworks.api.openai import values
from openworks.api.openai.message_request import parse_message, parse_message_update
from openworks.api.openai.objects import body_or_nothing, deleted, list_body, path_id
from openworks.services.runs.documents import message_body


async def create(context: Context) -> Answer:
    """Put a message at the end of a thread."""
    message = await context.services.threads.add_message(
        context.principal.account_id, _thread_id(context), parse_message(context.json())
    )
    return Json(message_body(message))


async def list_messages(context: Context) -> Answer:
    """List a thread's messages, newest first; `run_id` picks those that one run wrote."""
    query = context.request.query_params
    page = await context.services.threads.list_messages(
        context.principal.account_id,
        _thread_id(context),
        values.page(query, order="desc"),
        run_id=values.query_id(query, "run_id"),
    )
    return Json(list_body([message_body(each) for each in page.items], has_more=page.has_more))


async def retrieve(context: Context) -> Answer:
    """Return one."""
    message = await context.services.threads.get_message(
        context.principal.account_id, _thread_id(context), _id(context)
    )
    return Json(message_body(message))


async def update(context: Context) -> Answer:
    """Replace the metadata, which is all that can change; null clears it."""
    account_id, thread_id, id_ = context.principal.account_id, _thread_id(context), _id(context)
    fields = parse_message_update(body_or_nothing(context))
    threads = context.services.threads
    if "metadata" not in fields:
        return Json(message_body(await threads.get_message(account_id, thread_id, id_)))
    metadata = values.metadata(fields["metadata"])
    return Json(
        message_body(await threads.set_message_metadata(account_id, thread_id, id_, metadata))
    )


async def delete(context: Context) -> Answer:
    """Remove one."""
    message_id = _id(context)
    await context.services.threads.delete_message(
        context.principal.account_id, _thread_id(context), message_id
    )
    return deleted("thread.message", message_id)


def _thread_id(context: Context) -> str:
    return path_id(context, "thread_id")


def _id(context: Context) -> str:
    return path_id(context, "message_id")
