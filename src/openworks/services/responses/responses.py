"""Responses of models: asked for, listened to, found, cancelled, deleted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass
from typing import Final

from openworks.core.clock import Clock
from openworks.core.errors import AppError, InvalidRequestError, LeaseLostError, NotFoundError
from openworks.core.ids import AccountId, NewId
from openworks.core.json import JsonObject
from openworks.core.pages import Page, PageRequest
from openworks.ports.calls import Call, Usage
from openworks.ports.events import EventStore, NewEvents, StreamEvent
from openworks.ports.jobs import NewJob
from openworks.ports.responses import UNENDED, Response, ResponseStore
from openworks.services.conversations import Conversations
from openworks.services.journal import Journal
from openworks.services.responses.bodies import response_event
from openworks.services.responses.chat import summarise
from openworks.services.responses.items import (
    check_calls,
    check_new,
    named,
    referenced_ids,
    resolved,
)
from openworks.services.responses.jobs import broken_history, is_streamed
from openworks.services.responses.packed import pack
from openworks.services.responses.stream import EventWriter
from openworks.services.responses.work import Models, Responder
from openworks.services.responses.writers import LiveWriter, SilentWriter, numbered
from openworks.services.workers import Workers

_SETTLE_S: Final = 10.0
"""How long a cancelled response is waited for; another server notices within a renewal."""
_LOOK_S: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class NewResponse:
    """A response that a caller asks for, checked but for what it refers to."""

    model: str
    settings: JsonObject
    """As `Response.settings`; `stream` is true where the caller wants to listen."""
    items: tuple[JsonObject, ...]
    """The input, in the shape of answers; ids may be missing, and references stand for items."""
    previous_id: str | None = None
    conversation_id: str | None = None
    is_background: bool = False
    is_stored: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A response that can be made now."""

    response: Response
    own: Sequence[JsonObject]
    messages: Sequence[JsonObject]
    """Of all items, those before it and its own."""
    is_stored: bool


class Responses:
    """Makes, keeps and finds responses of one account at a time."""

    def __init__(
        self,
        store: ResponseStore,
        events: EventStore,
        conversations: Conversations,
        models: Models,
        responder: Responder,
        workers: Workers,
        journal: Journal,
        *,
        clock: Clock,
        new_id: NewId,
        new_seed: Callable[[], int],
    ) -> None:
        """Remember who does what.

        Args:
            store: Keeps responses.
            events: Keeps what was told of those in the background.
            conversations: What responses go on from.
            models: Knows which names there are.
            responder: Makes them.
            workers: Bring those in the background to rest.
            journal: Tells of those in the background.
            clock: Says when.
            new_id: Names responses and items.
            new_seed: Returns a seed for a model, below 2**31.
        """
        self._store = store
        self._events = events
        self._conversations = conversations
        self._models = models
        self._responder = responder
        self._workers = workers
        self._journal = journal
        self._clock = clock
        self._new_id = new_id
        self._new_seed = new_seed

    async def answer(self, new: NewResponse, call: Call) -> Response:
        """Return a whole response. If the caller leaves, it ends as cancelled.

        Raises:
            AppError: What it refers to is not there, or the model could not answer; nothing is
                kept then.
        """
        asked = await self._prepare(new, call)
        job = self._job(asked.response, is_lent=True)
        return await self._make(asked, call, job, SilentWriter(job.claim))

    async def stream(self, new: NewResponse, call: Call) -> AsyncGenerator[StreamEvent, None]:
        """Yield the events of a response while it is made. If the caller leaves, it is cancelled.

        Raises:
            AppError: Before the first event: as `answer`. What fails later is an event.
        """
        asked = await self._prepare(new, call)
        job = self._job(asked.response, is_lent=True)
        writer = LiveWriter(job.claim)
        making = asyncio.create_task(self._make(asked, call, job, writer))
        making.add_done_callback(lambda _: writer.close())
        try:
            async with aclosing(writer.events()) as events:
                async for event in events:
                    yield event
            await making
        finally:
            making.cancel()
            await asyncio.gather(making, return_exceptions=True)

    async def start(self, new: NewResponse, call: Call) -> Response:
        """Begin a response that is made in the background, and return it as it is now.

        Raises:
            AppError: What it refers to is not there.
        """
        asked = await self._prepare(new, call)
        response = asked.response
        job = self._job(response)
        events = None
        if is_streamed(response):
            told = [
                response_event(name, response) for name in ("response.created", "response.queued")
            ]
            events = NewEvents(claim=job.claim, events=numbered(told, first=0))
        await self._store.insert(response, asked.own, job, events=events)
        self._workers.begin(job)
        return response

    async def get(self, account_id: AccountId, response_id: str) -> Response:
        """Find one.

        Raises:
            NotFoundError: There is none, or it belongs to another account.
        """
        response = await self._store.get(account_id, response_id)
        if response is None:
            raise _no_response(response_id)
        return response

    async def follow(
        self, account_id: AccountId, response_id: str, *, after: int = -1
    ) -> AsyncGenerator[StreamEvent, None] | None:
        """Return the events of a response in the background behind a number; -1 for all.

        None when it has ended and there are no more.

        Raises:
            NotFoundError: There is no such response.
            InvalidRequestError: It has no such events, or not any more.
        """
        response = await self.get(account_id, response_id)
        if not (response.is_background and is_streamed(response)):
            raise InvalidRequestError(
                f"The response {response_id!r} cannot be streamed again: that takes 'background' "
                "and 'stream' when it is made.",
                code="invalid_value",
                param="stream",
            )
        last = await self._events.last_number(response_id)
        if last < 0:
            raise InvalidRequestError(
                f"The events of the response {response_id!r} are not kept any more.",
                code="invalid_value",
                param="stream",
            )
        if after > last:
            raise InvalidRequestError(
                f"Invalid 'starting_after': the last event has the number {last}, got {after}.",
                code="invalid_value",
                param="starting_after",
            )
        if after == last and response.status not in UNENDED:
            return None
        return self._journal.follow(response_id, after=after)

    async def cancel(self, account_id: AccountId, response_id: str) -> Response:
        """End a response in the background; one that has ended stays as it is.

        Raises:
            NotFoundError: There is no such response.
            InvalidRequestError: Its caller listens to it, and has only to leave.
        """
        response = await self.get(account_id, response_id)
        if not response.is_background:
            raise InvalidRequestError(
                f"The response {response_id!r} cannot be cancelled: it was not made with "
                "'background'.",
                code="invalid_value",
            )
        if response.status in UNENDED and await self._workers.cancel("response", response_id):
            end_s = self._clock.monotonic_s() + _SETTLE_S
            while response.status in UNENDED and self._clock.monotonic_s() < end_s:
                await self._clock.sleep(_LOOK_S)
                response = await self.get(account_id, response_id)
        return await self.get(account_id, response_id)

    async def delete(self, account_id: AccountId, response_id: str) -> None:
        """Remove one; one in the background ends first, so that whoever listens hears of it.

        Raises:
            NotFoundError: There is none.
        """
        if (await self.get(account_id, response_id)).is_background:
            await self.cancel(account_id, response_id)
        if not await self._store.delete(account_id, response_id):
            raise _no_response(response_id)

    async def list_input(
        self, account_id: AccountId, response_id: str, page: PageRequest
    ) -> Page[JsonObject]:
        """Return a page of what a response was asked with.

        Raises:
            NotFoundError: There is no such response.
        """
        found = await self._store.list_input(account_id, response_id, page)
        if found is None:
            raise _no_response(response_id)
        return found

    async def count_input(self, new: NewResponse, call: Call) -> int:
        """Return the tokens of what a model would be asked.

        Raises:
            AppError: As `answer`.
        """
        asked = await self._prepare(new, call)
        request = await self._responder.request(asked.response, asked.messages, call)
        return await self._models.count_tokens(call, request)

    async def compact(self, new: NewResponse, call: Call) -> tuple[JsonObject, Usage]:
        """Return an item that stands for all that a response would go on from, and its input.

        Raises:
            AppError: As `answer`.
        """
        asked = await self._prepare(new, call)
        request = await self._responder.request(asked.response, asked.messages, call)
        summary, usage = await summarise(self._models, call, request)
        (item,) = named([{"type": "compaction", "encrypted_content": pack(summary)}], self._new_id)
        return item, usage

    async def _make(self, asked: _Asked, call: Call, job: NewJob, writer: EventWriter) -> Response:
        """Make a response for a caller who waits for it."""
        response = asked.response
        request = await self._responder.request(response, asked.messages, call)
        store = self._store if asked.is_stored else None
        keeper = self._responder.keeper(store, job.claim, writer)
        work = self._responder.work(response, request, call, keeper)
        async with AsyncExitStack() as stack:
            if store is not None:
                await store.insert(response, asked.own, job)
                await stack.enter_async_context(self._workers.lend(job))
            try:
                await self._responder.run(work)
            except LeaseLostError:
                raise
            except AppError as error:
                if work.is_announced and is_streamed(response):
                    await work.fail(error)
                else:
                    await keeper.drop()
                    raise
            except asyncio.CancelledError:
                with suppress(AppError):  # its job is then ended by whoever finds it
                    await keeper.cancel(work.response)
                raise
        return work.response

    async def _prepare(self, new: NewResponse, call: Call) -> _Asked:
        await self._models.resolve(call, "text-generation")
        account_id = call.principal.account_id
        before, position = await self._before(account_id, new)
        wanted = referenced_ids(new.items)
        found = await self._store.find_items(account_id, wanted) if wanted else {}
        own = named(resolved(new.items, found, "input"), self._new_id)
        check_new(before, own, "input")
        check_calls(before, own, "input")
        response = Response(
            id=self._new_id("resp_"),
            account_id=account_id,
            key_id=call.principal.key_id,
            route=call.route,
            created_at_s=self._clock.now_s(),
            model=new.model,
            settings=new.settings,
            seed=self._new_seed(),
            status="queued" if new.is_background else "in_progress",
            is_background=new.is_background,
            previous_id=new.previous_id,
            conversation_id=new.conversation_id,
            conversation_position=position,
        )
        messages = await self._responder.messages(response, [*before, *own])
        if not any(message["role"] != "system" for message in messages):
            raise InvalidRequestError(
                "Invalid 'input': there is nothing for the model to go on from.",
                code="invalid_value",
                param="input",
            )
        return _Asked(response=response, own=own, messages=messages, is_stored=new.is_stored)

    async def _before(
        self, account_id: AccountId, new: NewResponse
    ) -> tuple[Sequence[JsonObject], int | None]:
        """Return the items that a response goes on from, and its place in its conversation."""
        if new.conversation_id is not None:
            snapshot = await self._conversations.snapshot(
                account_id, new.conversation_id, param="conversation"
            )
            return snapshot.items, snapshot.position
        if new.previous_id is None:
            return (), None
        previous = await self._store.get(account_id, new.previous_id)
        history = await self._store.history(account_id, new.previous_id)
        if previous is None or history is None:
            raise NotFoundError(
                f"No response found with id {new.previous_id[:100]!r}.",
                code="previous_response_not_found",
                param="previous_response_id",
            )
        if previous.status in UNENDED:
            raise InvalidRequestError(
                f"The response {previous.id!r} has not ended yet; it is {previous.status}.",
                code="invalid_value",
                param="previous_response_id",
            )
        if history.missing is not None:
            raise broken_history(previous.id, history.missing)
        return history.items, None

    def _job(self, response: Response, *, is_lent: bool = False) -> NewJob:
        return self._workers.new_job("response", response.id, response.account_id, is_lent=is_lent)


def _no_response(response_id: str) -> NotFoundError:
    return NotFoundError(f"No response found with id {response_id[:100]!r}.")
