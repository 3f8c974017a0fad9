"""Chat completions that were asked for with `store: true`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from openworks.core.ids import AccountId
from openworks.core.json import JsonObject
from openworks.core.pages import Page, PageRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCompletion:
    """A completion as it was answered, with the messages that led to it."""

    id: str
    account_id: AccountId
    created_at_s: int
    model: str
    metadata: Mapping[str, str]
    messages: tuple[JsonObject, ...]
    """The request's messages, each with an id of its own."""
    completion: JsonObject
    """The answer in OpenAI's shape, `object: chat.completion`."""


class StoredCompletionStore(Protocol):
    """Where stored completions are kept. What belongs to another account is not there."""

    async def insert(self, item: StoredCompletion) -> None:
        """Keep a completion.

        Raises:
            ConflictError: Its id is there already.
        """
        ...

    async def get(self, account_id: AccountId, completion_id: str) -> StoredCompletion | None:
        """Find one completion."""
        ...

    async def list(
        self,
        account_id: AccountId,
        page: PageRequest,
        *,
        model: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Page[StoredCompletion]:
        """Return a page, ordered by creation, then id; every given metadata pair must match.

        With `before` alone, the page is the one that ends at that item, and `has_more` tells of
        what lies before it.

        Raises:
            InvalidRequestError: `after` or `before` is not the id of an item of the account.
        """
        ...

    async def set_metadata(
        self, account_id: AccountId, completion_id: str, metadata: Mapping[str, str]
    ) -> StoredCompletion | None:
        """Replace the metadata; None when there is no such completion."""
        ...

    async def delete(self, account_id: AccountId, completion_id: str) -> bool:
        """Remove a completion; False when there is none."""
        ...
