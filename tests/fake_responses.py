"""Fakes of the ports of responses and conversations, in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from openworks.core.errors import ConflictError, InvalidRequestError
from openworks.core.ids import AccountId
from openworks.core.json import JsonObject
from openworks.core.pages import Page, PageRequest
from openworks.ports.conversations import Conversation, Snapshot
from openworks.ports.events import NewEvents
from openworks.ports.jobs import Claim, NewJob, Rest
from openworks.ports.responses import History, Response
from tests.fake_work import MemoryEventStore, MemoryJobStore

T = TypeVar("T")


@dataclass(slots=True)
class _Kept:
    conversation: Conversation
    places: dict[int, JsonObject] = field(default_factory=dict)
    next_position: int = 0

    def add(self, items: Sequence[JsonObject]) -> None:
        for item in items:
            self.places[self.next_position] = item
            self.next_position += 1

    def before(self, position: int) -> tuple[JsonObject, ...]:
        return tuple(item for place, item in self.places.items() if place < position)


class MemoryConversationStore:
    """Conversations in a dict."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    async def insert(self, conversation: Conversation, items: Sequence[JsonObject] = ()) -> None:
        if conversation.id in self._kept:
            raise ConflictError(f"A conversation with id '{conversation.id}' is there already.")
        self._kept[conversation.id] = kept = _Kept(conversation)
        kept.add(items)

    async def get(self, account_id: AccountId, conversation_id: str) -> Conversation | None:
        kept = self.find(account_id, conversation_id)
        return None if kept is None else kept.conversation

    async def list(self, account_id: AccountId, page: PageRequest) -> Page[Conversation]:
        mine = [
            k.conversation for k in self._kept.values() if k.conversation.account_id == account_id
        ]
        mine.sort(key=lambda each: (each.created_at_s, each.id))
        return _page(mine, page, id_of=lambda each: each.id)

    async def set_metadata(
        self, account_id: AccountId, conversation_id: str, metadata: Mapping[str, str]
    ) -> Conversation | None:
        kept = self.find(account_id, conversation_id)
        if kept is None:
            return None
        kept.conversation = replace(kept.conversation, metadata=metadata)
        return kept.conversation

    async def delete(self, account_id: AccountId, conversation_id: str) -> bool:
        is_there = self.find(account_id, conversation_id) is not None
        if is_there:
            del self._kept[conversation_id]
        return is_there

    async def snapshot(self, account_id: AccountId, conversation_id: str) -> Snapshot | None:
        kept = self.find(account_id, conversation_id)
        if kept is None:
            return None
        return Snapshot(items=kept.before(kept.next_position), position=kept.next_position)

    async def append(
        self, account_id: AccountId, conversation_id: str, items: Sequence[JsonObject]
    ) -> bool:
        kept = self.find(account_id, conversation_id)
        if kept is None:
            return False
        known = {str(item["id"]) for item in kept.places.values()}
        for item in items:
            if item["id"] in known:
                raise ConflictError(
                    f"The conversation '{conversation_id}' has an item with id '{item['id']}' "
                    "already."
                )
        kept.add(items)
        return True

    async def list_items(
        self, account_id: AccountId, conversation_id: str, page: PageRequest
    ) -> Page[JsonObject] | None:
        kept = self.find(account_id, conversation_id)
        return None if kept is None else _page([*kept.places.values()], page, id_of=_id)

    async def get_item(
        self, account_id: AccountId, conversation_id: str, item_id: str
    ) -> JsonObject | None:
        kept = self.find(account_id, conversation_id)
        items = () if kept is None else kept.places.values()
        return next((item for item in items if item["id"] == item_id), None)

    async def delete_item(self, account_id: AccountId, conversation_id: str, item_id: str) -> bool:
        kept = self.find(account_id, conversation_id)
        places = {} if kept is None else kept.places
        found = [place for place, item in places.items() if item["id"] == item_id]
        for place in found:
            del places[place]
        return bool(found)

    def find(self, account_id: AccountId, conversation_id: str) -> _Kept | None:
        """Return what is kept of an account's conversation."""
        kept = self._kept.get(conversation_id)
        return kept if kept is not None and kept.conversation.account_id == account_id else None

    def items_of(self, account_id: AccountId) -> Sequence[JsonObject]:
        """Return the items of all conversations of an account."""
        mine = [k for k in self._kept.values() if k.conversation.account_id == account_id]
        return [item for kept in mine for item in kept.places.values()]


@dataclass(slots=True)
class _Row:
    response: Response
    input_items: Sequence[JsonObject]


class MemoryResponseStore:
    """Responses in a dict, with their jobs and events in the fakes of those."""

    def __init__(
        self,
        conversations: MemoryConversationStore,
        jobs: MemoryJobStore,
        events: MemoryEventStore,
    ) -> None:
        self._rows: dict[str, _Row] = {}
        self._conversations = conversations
        self._jobs = jobs
        self._events = events

    async def insert(
        self,
        response: Response,
        input_items: Sequence[JsonObject],
        job: NewJob,
        *,
        events: NewEvents | None = None,
    ) -> None:
        if response.id in self._rows:
            raise ConflictError(f"A response with id '{response.id}' is there already.")
        self._rows[response.id] = _Row(response, input_items)
        await self._jobs.insert(job)
        await self._keep(events)

    async def get(self, account_id: AccountId, response_id: str) -> Response | None:
        await asyncio.sleep(0)  # others take their turn, as they do while a database answers
        row = self._find(account_id, response_id)
        return None if row is None else row.response

    async def history(self, account_id: AccountId, response_id: str) -> History | None:
        row = self._find(account_id, response_id)
        if row is None:
            return None
        response = row.response
        own = (*row.input_items, *response.output)
        if response.previous_id is not None:
            before = await self.history(account_id, response.previous_id)
            if before is None:
                return History(items=(), missing=response.previous_id)
            if before.missing is not None:
                return before
            return History(items=(*before.items, *own))
        if response.conversation_id is None:
            return History(items=own)
        kept = self._conversations.find(account_id, response.conversation_id)
        if kept is None:
            return History(items=(), missing=response.conversation_id)
        return History(items=(*kept.before(response.conversation_position or 0), *own))

    async def list_input(
        self, account_id: AccountId, response_id: str, page: PageRequest
    ) -> Page[JsonObject] | None:
        row = self._find(account_id, response_id)
        return None if row is None else _page([*row.input_items], page, id_of=_id)

    async def find_items(
        self, account_id: AccountId, item_ids: Collection[str]
    ) -> Mapping[str, JsonObject]:
        items = [*self._conversations.items_of(account_id)]
        for row in self._rows.values():
            if row.response.account_id == account_id:
                items += [*row.input_items, *row.response.output]
        return {str(item["id"]): item for item in items if item["id"] in item_ids}

    async def begin(self, claim: Claim, *, events: NewEvents | None) -> None:
        await self._jobs.hold(claim)
        await self._keep(events)
        row = self._rows[claim.subject_id]
        row.response = replace(row.response, status="in_progress")

    async def end(self, claim: Claim, response: Response, *, events: NewEvents | None) -> None:
        await self._jobs.hold(claim)
        await self._keep(events)
        await self._jobs.rest(claim, Rest())
        row = self._rows[response.id]
        row.response = response
        if response.conversation_id is not None and response.status in {"completed", "incomplete"}:
            kept = self._conversations.find(response.account_id, response.conversation_id)
            if kept is not None:
                kept.add([*row.input_items, *response.output])

    async def drop(self, claim: Claim) -> None:
        await self._jobs.hold(claim)
        del self._rows[claim.subject_id]
        await self._jobs.rest(claim, Rest())

    async def delete(self, account_id: AccountId, response_id: str) -> bool:
        if self._find(account_id, response_id) is None:
            return False
        del self._rows[response_id]
        await self._jobs.delete("response", response_id)
        await self._events.forget(response_id)
        return True

    def _find(self, account_id: AccountId, response_id: str) -> _Row | None:
        row = self._rows.get(response_id)
        return row if row is not None and row.response.account_id == account_id else None

    async def _keep(self, events: NewEvents | None) -> None:
        if events is not None:
            await self._events.insert(events, now_s=0.0)


def _id(item: JsonObject) -> str:
    return str(item["id"])


def _page(items: list[T], page: PageRequest, *, id_of: Callable[[T], str]) -> Page[T]:
    ordered = items if page.order == "asc" else items[::-1]
    ids = [id_of(item) for item in ordered]
    for param, cursor in (("after", page.after), ("before", page.before)):
        if cursor is not None and cursor not in ids:
            raise InvalidRequestError(
                f"{param} must be the id of an item in the list, got '{cursor}'.", param=param
            )
    first = 0 if page.after is None else ids.index(page.after) + 1
    last = len(ids) if page.before is None else ids.index(page.before)
    found = ordered[first:last]
    if page.before is not None and page.after is None:
        return Page(items=found[-page.limit :], has_more=len(found) > page.limit)
    return Page(items=found[: page.limit], has_more=len(found) > page.limit)
