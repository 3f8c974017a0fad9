"""Conversations of an account and their items: made, found, added to, deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from openworks.core.clock import Clock
from openworks.core.errors import ConflictError, InvalidRequestError, NotFoundError
from openworks.core.ids import AccountId, NewId
from openworks.core.json import JsonObject
from openworks.core.pages import Page, PageRequest
from openworks.ports.conversations import Conversation, ConversationStore, Snapshot
from openworks.ports.responses import ResponseStore
from openworks.services.responses.items import check_new, named, referenced_ids, resolved


class Conversations:
    """Keeps and finds conversations of one account at a time."""

    def __init__(
        self, store: ConversationStore, responses: ResponseStore, *, clock: Clock, new_id: NewId
    ) -> None:
        """Remember where.

        Args:
            store: Keeps conversations.
            responses: Knows the items that callers refer to.
            clock: Says when.
            new_id: Names conversations and items.
        """
        self._store = store
        self._responses = responses
        self._clock = clock
        self._new_id = new_id

    async def create(
        self,
        account_id: AccountId,
        *,
        items: Sequence[JsonObject],
        metadata: Mapping[str, str],
    ) -> Conversation:
        """Keep a new conversation with its first items.

        Raises:
            InvalidRequestError: An item comes twice, or refers to one that is not there.
        """
        first = await self._whole(account_id, items)
        conversation = Conversation(
            id=self._new_id("conv_"),
            account_id=account_id,
            created_at_s=self._clock.now_s(),
            metadata=metadata,
        )
        await self._store.insert(conversation, first)
        return conversation

    async def get(self, account_id: AccountId, conversation_id: str) -> Conversation:
        """Find one.

        Raises:
            NotFoundError: There is none, or it belongs to another account.
        """
        conversation = await self._store.get(account_id, conversation_id)
        if conversation is None:
            raise no_conversation(conversation_id)
        return conversation

    async def set_metadata(
        self, account_id: AccountId, conversation_id: str, metadata: Mapping[str, str]
    ) -> Conversation:
        """Replace the metadata."""
        conversation = await self._store.set_metadata(account_id, conversation_id, metadata)
        if conversation is None:
            raise no_conversation(conversation_id)
        return conversation

    async def delete(self, account_id: AccountId, conversation_id: str) -> None:
        """Remove one with all its items."""
        if not await self._store.delete(account_id, conversation_id):
            raise no_conversation(conversation_id)

    async def snapshot(
        self, account_id: AccountId, conversation_id: str, *, param: str
    ) -> Snapshot:
        """Return what one holds now.

        Raises:
            NotFoundError: There is none; `param` is the field that names it.
        """
        snapshot = await self._store.snapshot(account_id, conversation_id)
        if snapshot is None:
            raise no_conversation(conversation_id, param)
        return snapshot

    async def add_items(
        self, account_id: AccountId, conversation_id: str, items: Sequence[JsonObject]
    ) -> list[JsonObject]:
        """Put items at the end; return them as they are kept.

        Raises:
            NotFoundError: There is no such conversation.
            InvalidRequestError: An item is there already, or refers to one that is not there.
        """
        added = await self._whole(account_id, items)
        try:
            if not await self._store.append(account_id, conversation_id, added):
                raise no_conversation(conversation_id)
        except ConflictError as error:
            raise InvalidRequestError(
                error.message, code="duplicate_item", param="items"
            ) from error
        return added

    async def list_items(
        self, account_id: AccountId, conversation_id: str, page: PageRequest
    ) -> Page[JsonObject]:
        """Return a page of a conversation's items.

        Raises:
            NotFoundError: There is no such conversation.
        """
        found = await self._store.list_items(account_id, conversation_id, page)
        if found is None:
            raise no_conversation(conversation_id)
        return found

    async def get_item(
        self, account_id: AccountId, conversation_id: str, item_id: str
    ) -> JsonObject:
        """Find an item.

        Raises:
            NotFoundError: The account has no such item in this conversation.
        """
        item = await self._store.get_item(account_id, conversation_id, item_id)
        if item is None:
            raise _no_item(conversation_id, item_id)
        return item

    async def delete_item(
        self, account_id: AccountId, conversation_id: str, item_id: str
    ) -> Conversation:
        """Remove an item; return its conversation."""
        conversation = await self.get(account_id, conversation_id)
        if not await self._store.delete_item(account_id, conversation_id, item_id):
            raise _no_item(conversation_id, item_id)
        return conversation

    async def _whole(self, account_id: AccountId, items: Sequence[JsonObject]) -> list[JsonObject]:
        wanted = referenced_ids(items)
        found = await self._responses.find_items(account_id, wanted) if wanted else {}
        whole = named(resolved(items, found, "items"), self._new_id)
        check_new((), whole, "items")
        return whole


def no_conversation(conversation_id: str, param: str | None = None) -> NotFoundError:
    """An error about a conversation that is not there."""
    return NotFoundError(f"No conversation found with id {conversation_id[:100]!r}.", param=param)


def _no_item(conversation_id: str, item_id: str) -> NotFoundError:
    return NotFoundError(
        f"No item found with id {item_id[:100]!r} in conversation {conversation_id[:100]!r}."
    )
