"""Assistants of an account: made, found, changed, deleted."""

from __future__ import annotations

from openworks.core.clock import Clock
from openworks.core.errors import NotFoundError
from openworks.core.ids import AccountId, NewId
from openworks.core.json import JsonObject
from openworks.core.pages import Page, PageRequest
from openworks.ports.assistants import Assistant, AssistantSettings, AssistantStore


class Assistants:
    """Keeps, finds and lists assistants of one account at a time."""

    def __init__(self, store: AssistantStore, *, clock: Clock, new_id: NewId) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id

    async def create(self, account_id: AccountId, settings: AssistantSettings) -> Assistant:
        """Keep a new one."""
        assistant = Assistant(
            id=self._new_id("asst_"),
            account_id=account_id,
            created_at_s=self._clock.now_s(),
            settings=settings,
        )
        await self._store.insert(assistant)
        return assistant

    async def get(self, account_id: AccountId, assistant_id: str) -> Assistant:
        """Find one.

        Raises:
            NotFoundError: There is none, or it belongs to another account.
        """
        assistant = await self._store.get(account_id, assistant_id)
        if assistant is None:
            raise _missing(assistant_id)
        return assistant

    async def list(self, account_id: AccountId, page: PageRequest) -> Page[Assistant]:
        """Return a page of them."""
        return await self._store.list(account_id, page)

    async def update(
        self, account_id: AccountId, assistant_id: str, changes: JsonObject
    ) -> Assistant:
        """Replace the settings that `changes` names, which have been checked."""
        assistant = await self._store.update(account_id, assistant_id, changes)
        if assistant is None:
            raise _missing(assistant_id)
        return assistant

    async def delete(self, account_id: AccountId, assistant_id: str) -> None:
        """Remove one; threads are not touched."""
        if not await self._store.delete(account_id, assistant_id):
            raise _missing(assistant_id)


def _missing(assistant_id: str) -> NotFoundError:
    return NotFoundError(f"No assistant found with id {assistant_id[:100]!r}.")
