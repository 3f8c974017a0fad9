"""Conversations: items in an order that never changes, which responses go on from and add to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from openworks.core.ids import AccountId
from openworks.core.json import JsonObject
from openworks.core.pages import Page, PageRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A conversation of an account."""

    id: str
    account_id: AccountId
    created_at_s: float
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a conversation held at one moment."""

    items: tuple[JsonObject, ...]
    position: int
    """All of these items, and none that came later, have places before it."""


class ConversationStore(Protocol):
    """Where conversations are kept. What belongs to another account is not there.

    Items are objects in the shape of answers, each with an `id` that no other item of its
    conversation has.
    """

    async def insert(self, conversation: Conversation, items: Sequence[JsonObject] = ()) -> None:
        """Keep a conversation with its first items: all of it or nothing.

        Raises:
            ConflictError: Its id is there already.
        """
        ...

    async def get(self, account_id: AccountId, conversation_id: str) -> Conversation | None:
        """Find one."""
        ...

    async def list(self, account_id: AccountId, page: PageRequest) -> Page[Conversation]:
        """Return a page, ordered by creation, then id.

        Raises:
            InvalidRequestError: `after` or `before` is not the id of a conversation of the account.
        """
        ...

    async def set_metadata(
        self, account_id: AccountId, conversation_id: str, metadata: Mapping[str, str]
    ) -> Conversation | None:
        """Replace the metadata; None when there is no such conversation."""
        ...

    async def delete(self, account_id: AccountId, conversation_id: str) -> bool:
        """Remove a conversation with all its items; False when there is none."""
        ...

    async def snapshot(self, account_id: AccountId, conversation_id: str) -> Snapshot | None:
        """Return all items in their order; None when there is no such conversation."""
        ...

    async def append(
        self, account_id: AccountId, conversation_id: str, items: Sequence[JsonObject]
    ) -> bool:
        """Put items at the end, together; False when there is no such conversation.

        Raises:
            ConflictError: The conversation has an item with one of the ids.
        """
        ...

    async def list_items(
        self, account_id: AccountId, conversation_id: str, page: PageRequest
    ) -> Page[JsonObject] | None:
        """Return a page in the order of arrival; None when there is no such conversation.

        Raises:
            InvalidRequestError: `after` or `before` is not the id of one of its items.
        """
        ...

    async def get_item(
        self, account_id: AccountId, conversation_id: str, item_id: str
    ) -> JsonObject | None:
        """Find an item; one of another conversation is not there."""
        ...

    async def delete_item(self, account_id: AccountId, conversation_id: str, item_id: str) -> bool:
        """Remove an item; the others keep their order. False when there is none."""
        ...
