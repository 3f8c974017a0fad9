"""`/v1/conversations/{conversation_id}/items`: what a conversation consists of."""

from __future__ import annotations

from typing import cast

from openai.types.conversations import ItemCreateParams

from openworks.api.answers import Answer, Json
from openworks.api.context import Context
from openworks.api.openai import values
from openworks.api.openai.conversations import conversation_body
from openworks.api.openai.item_request import EXTRA_FIELDS_OF, loosened, parse_items
from openworks.api.openai.objects import list_body, path_id
from openworks.api.openai.response_request import check_include
from openworks.core.json import JsonObject
from openworks.wire.openai.validate import RequestValidator

_CREATE = RequestValidator(ItemCreateParams, extra_fields_of=EXTRA_FIELDS_OF)


async def create(context: Context) -> Answer:
    """Put items at the end of a conversation."""
    _check_include(context)
    body = context.json()
    if isinstance(body, dict) and "items" in body:
        body = {**body, "items": loosened(body["items"])}
    fields = cast("JsonObject", _CREATE.check(body))
    added = await context.services.conversations.add_items(
        context.principal.account_id,
        _conversation_id(context),
        parse_items(fields["items"], "items"),
    )
    return Json(list_body(added, has_more=False))


async def list_items(context: Context) -> Answer:
    """List a conversation's items, newest first."""
    _check_include(context)
    page = await context.services.conversations.list_items(
        context.principal.account_id,
        _conversation_id(context),
        values.page(context.request.query_params, order="desc"),
    )
    return Json(list_body(page.items, has_more=page.has_more))


async def retrieve(context: Context) -> Answer:
    """Return one."""
    _check_include(context)
    account_id = context.principal.account_id
    conversations = context.services.conversations
    return Json(await conversations.get_item(account_id, _conversation_id(context), _id(context)))


async def delete(context: Context) -> Answer:
    """Remove one; the conversation is the answer."""
    conversation = await context.services.conversations.delete_item(
        context.principal.account_id, _conversation_id(context), _id(context)
    )
    return Json(conversation_body(conversation))


def _check_include(context: Context) -> None:
    query = context.request.query_params
    check_include(query.getlist("include[]") + query.getlist("include"))


def _conversation_id(context: Context) -> str:
    return path_id(context, "conversation_id")


def _id(context: Context) -> str:
    return path_id(context, "item_id")
