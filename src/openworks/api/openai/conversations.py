"""`/v1/conversations`: items that are kept here, for responses to go on from."""

from __future__ import annotations

from typing import TypedDict, cast

from openai.types.conversations import ConversationCreateParams
from openai.types.shared_params import Metadata

from openworks.api.answers import Answer, Json
from openworks.api.context import Context
from openworks.api.openai import values
from openworks.api.openai.item_request import EXTRA_FIELDS_OF, loosened, parse_items
from openworks.api.openai.objects import body_or_nothing, deleted, path_id
from openworks.core.json import JsonObject
from openworks.ports.conversations import Conversation
from openworks.wire.openai.validate import RequestValidator


class _Update(TypedDict, total=False):
    """As the SDK's type; OpenAI's server requires nothing."""

    metadata: Metadata | None


_CREATE = RequestValidator(ConversationCreateParams, extra_fields_of=EXTRA_FIELDS_OF)
_UPDATE = RequestValidator(_Update, keep_nulls=True)


async def create(context: Context) -> Answer:
    """Make a conversation, with its first items."""
    body = body_or_nothing(context)
    if isinstance(body, dict) and "items" in body:
        body = {**body, "items": loosened(body["items"])}
    fields = cast("JsonObject", _CREATE.check(body))
    conversation = await context.services.conversations.create(
        context.principal.account_id,
        items=parse_items(fields.get("items"), "items"),
        metadata=values.metadata(fields.get("metadata")),
    )
    return Json(conversation_body(conversation))


async def retrieve(context: Context) -> Answer:
    """Return one."""
    account_id = context.principal.account_id
    conversation = await context.services.conversations.get(account_id, _id(context))
    return Json(conversation_body(conversation))


async def update(context: Context) -> Answer:
    """Replace the metadata; null clears it."""
    account_id, conversations = context.principal.account_id, context.services.conversations
    fields = cast("JsonObject", _UPDATE.check(body_or_nothing(context)))
    if "metadata" not in fields:
        return Json(conversation_body(await conversations.get(account_id, _id(context))))
    metadata = values.metadata(fields["metadata"])
    return Json(
        conversation_body(await conversations.set_metadata(account_id, _id(context), metadata))
    )


async def delete(context: Context) -> Answer:
    """Remove one with all its items."""
    conversation_id = _id(context)
    await context.services.conversations.delete(context.principal.account_id, conversation_id)
    return deleted("conversation", conversation_id)


def conversation_body(conversation: Conversation) -> JsonObject:
    """Return OpenAI's conversation object."""
    return {
        "id": conversation.id,
        "object": "conversation",
        "created_at": int(conversation.created_at_s),
        "metadata": dict(conversation.metadata),
    }


def _id(context: Context) -> str:
    return path_id(context, "conversation_id")
