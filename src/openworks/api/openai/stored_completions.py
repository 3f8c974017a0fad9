"""`/v1/chat/completions` by id: completions that were stored."""

from __future__ import annotations

from openworks.api.answers import Answer, Json
from openworks.api.context import Context
from openworks.api.openai import values
from openworks.api.openai.objects import list_body
from openworks.core.errors import InvalidRequestError
from openworks.core.json import JsonObject
from openworks.core.pages import Page, PageRequest
from openworks.ports.stored_completions import StoredCompletion


async def list_completions(context: Context) -> Answer:
    """List by model and metadata (`metadata[key]=value`)."""
    query = context.request.query_params
    model = query.get("model")
    page = await context.services.stored_completions.list(
        context.principal.account_id,
        values.page(query),
        model=None if model is None else context.canonical(model),
        metadata={
            name[len("metadata[") : -1]: value
            for name, value in query.items()
            if name.startswith("metadata[") and name.endswith("]")
        },
    )
    return Json(list_body([_body(item) for item in page.items], has_more=page.has_more))


async def retrieve(context: Context) -> Answer:
    """Return one."""
    return Json(_body(await _find(context)))


async def update(context: Context) -> Answer:
    """Replace the metadata."""
    body = context.json()
    if not isinstance(body, dict) or set(body) != {"metadata"}:
        raise values.invalid("metadata", "The body must be an object with 'metadata' alone.")
    if not isinstance(body["metadata"], dict | None):
        raise values.invalid("metadata", "Invalid 'metadata': expected an object.")
    item = await context.services.stored_completions.set_metadata(
        context.principal.account_id, _id(context), values.metadata(body["metadata"])
    )
    return Json(_body(item))


async def delete(context: Context) -> Answer:
    """Remove one."""
    completion_id = _id(context)
    await context.services.stored_completions.delete(context.principal.account_id, completion_id)
    return Json({"object": "chat.completion.deleted", "id": completion_id, "deleted": True})


async def list_messages(context: Context) -> Answer:
    """List the messages that led to one."""
    item = await _find(context)
    page = cut(list(item.messages), values.page(context.request.query_params))
    return Json(list_body([_message_body(row) for row in page.items], has_more=page.has_more))


def cut(rows: list[JsonObject], page: PageRequest) -> Page[JsonObject]:
    """Return the part of `rows`, which are oldest first, that `page` asks for.

    Raises:
        InvalidRequestError: `after` or `before` names none of them.
    """
    if page.order == "desc":
        rows = rows[::-1]
    ids = [row["id"] for row in rows]
    for param, cursor in (("after", page.after), ("before", page.before)):
        if cursor is not None and cursor not in ids:
            raise InvalidRequestError(
                f"{param} must be the id of an item in the list, got '{cursor}'.",
                code="invalid_cursor",
                param=param,
            )
    begin = ids.index(page.after) + 1 if page.after else 0
    end = ids.index(page.before) if page.before else len(rows)
    part = rows[begin:end]
    # `before` alone asks for the page that ends at the cursor.
    backwards = page.before is not None and page.after is None
    kept = part[-page.limit :] if backwards else part[: page.limit]
    return Page(items=kept, has_more=len(part) > page.limit)


async def _find(context: Context) -> StoredCompletion:
    return await context.services.stored_completions.get(context.principal.account_id, _id(context))


def _id(context: Context) -> str:
    return str(context.request.path_params["completion_id"])


def _body(item: StoredCompletion) -> JsonObject:
    return {**item.completion, "metadata": dict(item.metadata)}


def _message_body(message: JsonObject) -> JsonObject:
    """A message as OpenAI lists it: content in parts has a field of its own."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    return {**message, "content": None, "content_parts": content}
