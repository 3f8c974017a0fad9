"""`/v1/assistants`: assistants, which runs will work for."""

from __future__ import annotations

import msgspec

from openworks.api.answers import Answer, Json
from openworks.api.context import Context
from openworks.api.openai import values
from openworks.api.openai.assistant_request import parse_create, parse_update
from openworks.api.openai.objects import body_or_nothing, deleted, list_body, path_id
from openworks.core.json import JsonObject
from openworks.ports.assistants import Assistant, AssistantSettings


async def create(context: Context) -> Answer:
    """Make an assistant."""
    settings = msgspec.convert(parse_create(context.json()), AssistantSettings)
    await _check_model(context, settings.model)
    account_id = context.principal.account_id
    return Json(_body(await context.services.assistants.create(account_id, settings)))


async def list_assistants(context: Context) -> Answer:
    """List the account's assistants, newest first."""
    page = await context.services.assistants.list(
        context.principal.account_id, values.page(context.request.query_params, order="desc")
    )
    return Json(list_body([_body(each) for each in page.items], has_more=page.has_more))


async def retrieve(context: Context) -> Answer:
    """Return one."""
    assistant = await context.services.assistants.get(context.principal.account_id, _id(context))
    return Json(_body(assistant))


async def update(context: Context) -> Answer:
    """Replace those settings that the body names; null clears one."""
    changes = parse_update(body_or_nothing(context))
    if "model" in changes:
        await _check_model(context, str(changes["model"]))
    assistant = await context.services.assistants.update(
        context.principal.account_id, _id(context), changes
    )
    return Json(_body(assistant))


async def delete(context: Context) -> Answer:
    """Remove one."""
    assistant_id = _id(context)
    await context.services.assistants.delete(context.principal.account_id, assistant_id)
    return deleted("assistant", assistant_id)


async def _check_model(context: Context, model: str) -> None:
    """Return if the caller may use `model`, and it can hold a conversation."""
    await context.services.pipeline.resolve(context.call(model), "text-generation")


def _id(context: Context) -> str:
    return path_id(context, "assistant_id")


def _body(assistant: Assistant) -> JsonObject:
    return {
        "id": assistant.id,
        "object": "assistant",
        "created_at": int(assistant.created_at_s),
        **msgspec.to_builtins(assistant.settings),
    }
