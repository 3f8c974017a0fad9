"""Which finetunes there are, remembered for as long as a call may be behind the database.

Every call with an adapter asks, so answers are kept for two seconds; what is changed through this
server is forgotten at once. While the database is away, what was known last is good for a minute.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Final

from openworks.core.clock import Clock
from openworks.core.errors import AppError
from openworks.core.ids import AccountId
from openworks.ports.documents import DocumentStore
from openworks.services.finetune_documents import PUBLIC, Finetune, of_public, to_finetune

log = logging.getLogger(__name__)

_FRESH_S: Final = 2.0
_STALE_S: Final = 60.0
_MAX_ACCOUNTS: Final = 1000


class KnownFinetunes:
    """Finds finetunes by their names."""

    def __init__(self, store: DocumentStore, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        # An account's own, or under None those that all may use.
        self._seen: OrderedDict[AccountId | None, tuple[float, Sequence[Finetune]]] = OrderedDict()
        self._reading: dict[AccountId | None, asyncio.Task[Sequence[Finetune]]] = {}

    async def close(self) -> None:
        """End what is being read."""
        tasks = list(self._reading.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def of(self, account: AccountId) -> Sequence[Finetune]:
        """Return all that an account has, newest first.

        Raises:
            StorageError: The database is away, and they were not asked for lately.
        """
        return await self._known(account)

    async def public(self) -> Sequence[Finetune]:
        """Return all that every account may use, newest first; raises as `of`."""
        return await self._known(None)

    async def find(self, account: AccountId, model: str, reference: str) -> Finetune | None:
        """Find what an account calls `reference`, of a base model.

        Its own come first; of other accounts' public ones that share a name, the oldest, so that
        nobody takes another's place.

        Args:
            account: Who asks.
            model: The base model's catalogue id.
            reference: An id or a name.
        """
        for own in await self.of(account):
            if own.model == model and reference in (own.id, own.name):
                return own
        shared = [item for item in await self.public() if item.model == model]
        by_id = (item for item in shared if item.id == reference)
        by_name = (item for item in reversed(shared) if item.name == reference)
        return next(by_id, None) or next(by_name, None)

    async def find_openai(self, account: AccountId, name: str) -> Finetune | None:
        """Find one by its name in OpenAI's form, `ft:...`."""
        for item in [*await self.of(account), *await self.public()]:
            if item.openai_name == name:
                return item
        return None

    def forget(self, finetune: Finetune) -> None:
        """Ask anew about an account whose finetune has changed."""
        for key in _keys_of(finetune):
            self._seen.pop(key, None)
            self._reading.pop(key, None)  # it may have read what was before

    async def _known(self, key: AccountId | None) -> Sequence[Finetune]:
        now_s = self._clock.monotonic_s()
        seen = self._seen.get(key)
        if seen is not None and now_s - seen[0] < _FRESH_S:
            return seen[1]
        try:
            return await asyncio.shield(self._read(key))
        except AppError:
            if seen is not None and now_s - seen[0] < _STALE_S:
                return seen[1]
            raise

    def _read(self, key: AccountId | None) -> asyncio.Task[Sequence[Finetune]]:
        """Ask the database; those who ask the same meanwhile share the answer."""
        task = self._reading.get(key)
        if task is None:
            task = self._reading[key] = asyncio.create_task(self._fetch(key))
            task.add_done_callback(lambda ended: self._ended(key, ended))
        return task

    def _ended(self, key: AccountId | None, task: asyncio.Task[Sequence[Finetune]]) -> None:
        if self._reading.get(key) is task:
            del self._reading[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("finetunes.unreadable", extra={"error": str(error)})

    async def _fetch(self, key: AccountId | None) -> Sequence[Finetune]:
        began_s = self._clock.monotonic_s()
        task = asyncio.current_task()
        if key is None:
            found = [
                of_public(item) for item in await self._store.list("public_finetune", PUBLIC, "")
            ]
        else:
            found = [to_finetune(item) for item in await self._store.list("finetune", key, "")]
        if self._reading.get(key) is task:  # otherwise it has been forgotten meanwhile
            self._seen[key] = (began_s, found)
            self._seen.move_to_end(key)
            if len(self._seen) > _MAX_ACCOUNTS:
                self._seen.popitem(last=False)
        return found


def _keys_of(finetune: Finetune) -> Iterator[AccountId | None]:
    yield finetune.account_id
    if finetune.is_public:
        yield None
