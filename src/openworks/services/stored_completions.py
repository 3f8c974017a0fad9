"""Chat completions kept at the caller's wish (`store: true`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from openworks.core.errors import NotFoundError
from openworks.core.ids import AccountId
from openworks.core.json import JsonObject
from openworks.core.pages import Page, PageRequest
from openworks.ports.stored_completions import StoredCompletion, StoredCompletionStore


class StoredCompletions:
    """Keeps, finds and lists completions of one account at a time."""

    def __init__(self, store: StoredCompletionStore) -> None:
        self._store = store

    async def keep(
        self,
        account_id: AccountId,
        completion: JsonObject,
        *,
        messages: Sequence[JsonObject],
        metadata: Mapping[str, str],
    ) -> None:
        """Keep an answer with the messages that led to it; each gets an id of its own."""
        completion_id, created = completion["id"], completion["created"]
        assert isinstance(completion_id, str)
        assert isinstance(created, int)
        await self._store.insert(
            StoredCompletion(
                id=completion_id,
                account_id=account_id,
                created_at_s=created,
                model=str(completion["model"]),
                metadata=metadata,
                messages=tuple(
                    {**message, "id": f"{completion_id}-{index}"}
                    for index, message in enumerate(messages)
                ),
                completion=completion,
            )
        )

    async def get(self, account_id: AccountId, completion_id: str) -> StoredCompletion:
        """Find one.

        Raises:
            NotFoundError: There is none, or it belongs to another account.
        """
        item = await self._store.get(account_id, completion_id)
        if item is None:
            raise _missing(completion_id)
        return item

    async def list(
        self,
        account_id: AccountId,
        page: PageRequest,
        *,
        model: str | None,
        metadata: Mapping[str, str],
    ) -> Page[StoredCompletion]:
        """Return a page of those that match."""
        return await self._store.list(account_id, page, model=model, metadata=metadata)

    async def set_metadata(
        self, account_id: AccountId, completion_id: str, metadata: Mapping[str, str]
    ) -> StoredCompletion:
        """Replace the metadata."""
        item = await self._store.set_metadata(account_id, completion_id, metadata)
        if item is None:
            raise _missing(completion_id)
        return item

    async def delete(self, account_id: AccountId, completion_id: str) -> None:
        """Remove one."""
        if not await self._store.delete(account_id, completion_id):
            raise _missing(completion_id)


def _missing(completion_id: str) -> NotFoundError:
    return NotFoundError(f"No chat completion found with id {completion_id!r}.")
