"""`POST /v1/chat/completions`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from openworks.api.answers import Answer, Events, Json
from openworks.api.context import Context
from openworks.api.openai.chat_answer import ChatAnswer, Head, stream_events
from openworks.api.openai.chat_request import ParsedChat, parse_chat
from openworks.core.json import JsonObject
from openworks.ports.text import TextChunk


async def create(context: Context) -> Answer:
    """Answer a conversation, whole or streamed."""
    chat = parse_chat(context.json())
    head = Head(
        id=context.services.new_id("chatcmpl-"),
        created=int(context.services.clock.now_s()),
        model=context.canonical(chat.model),
    )
    with_logprobs = chat.request.sampling.top_logprobs is not None
    answer = ChatAnswer(chat.request.n)
    chunks = _collected(context, chat, answer, head, with_logprobs=with_logprobs)
    if chat.stream:
        return Events(
            stream_events(
                chunks,
                head,
                n=chat.request.n,
                include_usage=chat.include_usage,
                with_logprobs=with_logprobs,
            )
        )
    async with aclosing(chunks):
        async for _ in chunks:
            pass
    return Json(_body(answer, chat, head, with_logprobs=with_logprobs))


async def _collected(
    context: Context, chat: ParsedChat, answer: ChatAnswer, head: Head, *, with_logprobs: bool
) -> AsyncGenerator[TextChunk, None]:
    """Pass chunks on while they add up to `answer`; keep it before the end if it is wanted."""
    call = context.call(chat.model, stream=chat.stream)
    async with aclosing(context.services.pipeline.chat(call, chat.request)) as chunks:
        async for chunk in chunks:
            answer.add(chunk)
            yield chunk
    if chat.store:
        await context.services.stored_completions.keep(
            context.principal.account_id,
            _body(answer, chat, head, with_logprobs=with_logprobs),
            messages=chat.messages,
            metadata=chat.metadata,
        )


def _body(answer: ChatAnswer, chat: ParsedChat, head: Head, *, with_logprobs: bool) -> JsonObject:
    body = answer.body(head, with_logprobs=with_logprobs)
    if chat.store:
        body["metadata"] = dict(chat.metadata)
    return body
