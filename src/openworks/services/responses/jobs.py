"""Responses as durable work: begun, or taken up where a server left them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from openworks.core.errors import AppError, InternalError, InvalidRequestError, LeaseLostError
from openworks.core.ids import RequestId
from openworks.ports.calls import Call, Principal
from openworks.ports.events import EventStore, StreamEvent
from openworks.ports.jobs import Claim
from openworks.ports.responses import Response, ResponseStore
from openworks.services.journal import Journal
from openworks.services.responses.stream import NUMBER_FIELD
from openworks.services.responses.work import Keeper, Responder
from openworks.services.responses.writers import SilentWriter

_PAGE: Final = 1000


class ResponseJobs:
    """The handler of jobs of the kind `response`."""

    def __init__(
        self, store: ResponseStore, events: EventStore, journal: Journal, responder: Responder
    ) -> None:
        self._store = store
        self._events = events
        self._journal = journal
        self._responder = responder

    async def work(self, claim: Claim) -> None:
        async with self._taken_up(claim) as (response, keeper):
            if not response.is_background:
                error = InternalError("The server stopped while it answered.")
                await keeper.fail(response, error)
                return
            if response.status == "queued":
                response = await keeper.begin(response)
            try:
                await self._answer(response, keeper)
            except LeaseLostError:
                raise
            except AppError as error:
                if error.retryable:
                    raise
                await keeper.fail(response, error)

    async def cancel(self, claim: Claim) -> None:
        async with self._taken_up(claim) as (response, keeper):
            await keeper.cancel(response)

    async def give_up(self, claim: Claim, error: AppError) -> None:
        async with self._taken_up(claim) as (response, keeper):
            await keeper.fail(response, error)

    async def _answer(self, response: Response, keeper: Keeper) -> None:
        history = await self._store.history(response.account_id, response.id)
        if history is None:
            raise LeaseLostError(f"The response {response.id!r} was deleted.")
        if history.missing is not None:
            raise broken_history(response.id, history.missing)
        call = Call(
            # Asked anew after a crash, it is the same call.
            request_id=RequestId(f"{response.id}-1"),
            principal=Principal(account_id=response.account_id, key_id=response.key_id),
            route=response.route,
            model=response.model,
            stream=is_streamed(response),
        )
        messages = await self._responder.messages(response, history.items)
        request = await self._responder.request(response, messages, call)
        told = await self._told(response)
        work = self._responder.work(response, request, call, keeper, told=told, is_announced=True)
        await self._responder.run(work)

    async def _told(self, response: Response) -> list[StreamEvent]:
        told: list[StreamEvent] = []
        if is_streamed(response):
            while page := await self._events.read(response.id, after=len(told) - 1, limit=_PAGE):
                told += page
        return told

    @asynccontextmanager
    async def _taken_up(self, claim: Claim) -> AsyncIterator[tuple[Response, Keeper]]:
        response = await self._store.get(claim.account_id, claim.subject_id)
        if response is None:
            raise LeaseLostError(f"The response {claim.subject_id!r} was deleted.")
        if not (response.is_background and is_streamed(response)):
            yield response, self._responder.keeper(self._store, claim, SilentWriter(claim))
            return
        writer = await self._journal.write(claim, number_field=NUMBER_FIELD)
        try:
            keeper = self._responder.keeper(self._store, claim, writer, keeps_events=True)
            yield response, keeper
        finally:
            writer.close()


def is_streamed(response: Response) -> bool:
    """Whether the caller wants to hear a response while it is made."""
    return response.settings.get("stream") is True


def broken_history(response_id: str, missing: str) -> InvalidRequestError:
    """An error about a response whose beginnings were deleted."""
    return InvalidRequestError(
        f"The response {response_id!r} goes on from {missing!r}, which was deleted.",
        code="previous_response_not_found",
        param="previous_response_id",
    )
