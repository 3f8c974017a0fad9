"""`/v1/responses`: what models answer, kept here unless that is not wanted."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from starlette.responses import Response as PlainResponse

from openworks.api.answers import Answer, Events, Json
from openworks.api.context import Context
from openworks.api.openai import values
from openworks.api.openai.objects import list_body, path_id
from openworks.api.openai.response_request import (
    check_include,
    parse_compaction,
    parse_count,
    parse_response,
)
from openworks.core.errors import AppError
from openworks.ports.events import StreamEvent
from openworks.services.responses.bodies import error_event, response_body, usage_body
from openworks.services.responses.responses import NewResponse
from openworks.services.responses.writers import numbered
from openworks.wire import sse

_NUMBER = re.compile(r"-?[0-9]{1,9}")


async def create(context: Context) -> Answer:
    """Answer, whole or streamed, now or in the background."""
    parsed = parse_response(context.json())
    new = _named(context, parsed.new)
    call = context.call(new.model, stream=parsed.stream)
    responses = context.services.responses
    if not new.is_background:
        if parsed.stream:
            return Events(_encoded(responses.stream(new, call)))
        return Json(response_body(await responses.answer(new, call)))
    response = await responses.start(new, call)
    if parsed.stream:
        return _events(await responses.follow(response.account_id, response.id))
    return Json(response_body(response))


async def retrieve(context: Context) -> Answer:
    """Return one, or the events of one in the background, from any of them on."""
    query = context.request.query_params
    check_include(query.getlist("include[]") + query.getlist("include"))
    account_id, response_id = context.principal.account_id, _id(context)
    after = _starting_after(query.get("starting_after"))
    if query.get("stream") == "true":
        follow = context.services.responses.follow
        return _events(await follow(account_id, response_id, after=-1 if after is None else after))
    if after is not None:
        raise values.invalid(
            "starting_after", "'starting_after' may be sent only when 'stream' is true."
        )
    return Json(response_body(await context.services.responses.get(account_id, response_id)))


async def cancel(context: Context) -> Answer:
    """End one in the background."""
    account_id = context.principal.account_id
    return Json(response_body(await context.services.responses.cancel(account_id, _id(context))))


async def delete(context: Context) -> Answer:
    """Remove one."""
    response_id = _id(context)
    await context.services.responses.delete(context.principal.account_id, response_id)
    return Json({"id": response_id, "object": "response", "deleted": True})


async def list_input_items(context: Context) -> Answer:
    """List what one was asked with, newest first."""
    query = context.request.query_params
    check_include(query.getlist("include[]") + query.getlist("include"))
    page = await context.services.responses.list_input(
        context.principal.account_id, _id(context), values.page(query, order="desc")
    )
    return Json(list_body(page.items, has_more=page.has_more))


async def count_input_tokens(context: Context) -> Answer:
    """Count the tokens of an input; nothing is answered."""
    new = _named(context, parse_count(context.json()))
    count = await context.services.responses.count_input(new, context.call(new.model))
    return Json({"object": "response.input_tokens", "input_tokens": count})


async def compact(context: Context) -> Answer:
    """Say in short what a conversation was about, in an item that stands for it."""
    new = _named(context, parse_compaction(context.json()))
    item, usage = await context.services.responses.compact(new, context.call(new.model))
    return Json(
        {
            "id": context.services.new_id("resp_"),
            "object": "response.compaction",
            "created_at": int(context.services.clock.now_s()),
            "output": [item],
            "usage": usage_body(usage),
        }
    )


def _named(context: Context, new: NewResponse) -> NewResponse:
    return replace(new, settings={**new.settings, "model": context.canonical(new.model)})


def _id(context: Context) -> str:
    return path_id(context, "response_id")


def _starting_after(given: str | None) -> int | None:
    if given is None:
        return None
    if not _NUMBER.fullmatch(given) or int(given) < 0:
        raise values.invalid(
            "starting_after", f"starting_after must be the number of an event, got {given[:40]!r}."
        )
    return int(given)


def _events(events: AsyncGenerator[StreamEvent, None] | None) -> Answer:
    if events is None:
        return PlainResponse(media_type=sse.CONTENT_TYPE)
    return Events(_encoded(events))


async def _encoded(events: AsyncGenerator[StreamEvent, None]) -> AsyncGenerator[bytes, None]:
    """Encode events; what fails after the first of them is the last one."""
    last: StreamEvent | None = None
    async with aclosing(events):
        try:
            async for event in events:
                last = event
                yield sse.named_event(event.name, event.data)
        except AppError as error:
            if last is None:
                raise
            told = error_event(error.code, error.message, error.param)
            (event,) = numbered([told], first=last.number + 1)
            yield sse.named_event(event.name, event.data)
