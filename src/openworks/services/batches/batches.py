"""Batches as their owners manage them: made, found, listed, cancelled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field

from openworks.core.clock import Clock
from openworks.core.errors import ConflictError, InvalidRequestError, NotFoundError
from openworks.core.ids import AccountId, NewId
from openworks.core.pages import Page, PageRequest
from openworks.ports.batches import Batch, BatchStore
from openworks.ports.calls import Principal
from openworks.services.files import Files
from openworks.services.workers import Workers

_WINDOW_S: Final = 86_400.0
"""The one completion window that the API has, of 24 hours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchesConfig:
    """How much of batches is done at once."""

    max_requests: Annotated[int, Field(ge=1)] = 50_000
    """How many requests one batch may have."""
    max_lines: Annotated[int, Field(ge=1)] = 32
    """Requests of all batches that this server works on at once; accounts share them evenly."""
    max_batches: Annotated[int, Field(ge=1)] = 32
    """Batches that this server works on at once; others take turns with them."""


class Batches:
    """Keeps and finds the batches of one account at a time."""

    def __init__(
        self, store: BatchStore, files: Files, workers: Workers, *, clock: Clock, new_id: NewId
    ) -> None:
        self._store = store
        self._files = files
        self._workers = workers
        self._clock = clock
        self._new_id = new_id

    async def create(
        self,
        principal: Principal,
        *,
        endpoint: str,
        input_file_id: str,
        output_ttl_s: int | None,
        metadata: Mapping[str, str],
    ) -> Batch:
        """Keep a new batch, and begin with it.

        Args:
            principal: In whose name its lines are answered.
            endpoint: What answers them.
            input_file_id: Holds them.
            output_ttl_s: How long the files that it makes live.
            metadata: The caller's own.

        Raises:
            InvalidRequestError: The account has no such file, or it is not for batches.
        """
        account_id = principal.account_id
        file = await self._files.find(account_id, input_file_id)
        if file is None:
            raise _bad_file(f"No file found with id {input_file_id[:80]!r}.")
        if file.purpose != "batch":
            raise _bad_file(
                f"The file {file.id!r} has the purpose {file.purpose!r}; a batch reads files with "
                "the purpose 'batch'."
            )
        now_s = self._clock.now_s()
        batch = Batch(
            id=self._new_id("batch_"),
            account_id=account_id,
            key_id=principal.key_id,
            allowed_models=principal.allowed_models,
            created_at_s=now_s,
            expires_at_s=now_s + _WINDOW_S,
            endpoint=endpoint,
            input_file_id=file.id,
            output_ttl_s=output_ttl_s,
            metadata=metadata,
        )
        job = self._workers.new_job("batch", batch.id, account_id)
        await self._store.insert(batch, job)
        self._workers.begin(job)
        return batch

    async def get(self, account_id: AccountId, batch_id: str) -> Batch:
        """Find one.

        Raises:
            NotFoundError: There is none, or it belongs to another account.
        """
        batch = await self._store.get(account_id, batch_id)
        if batch is None:
            raise _missing(batch_id)
        return batch

    async def list(self, account_id: AccountId, page: PageRequest) -> Page[Batch]:
        """Return a page."""
        return await self._store.list(account_id, page)

    async def cancel(self, account_id: AccountId, batch_id: str) -> Batch:
        """Ask for the end of one; what was answered is in its files soon.

        Raises:
            NotFoundError: The account has no such batch.
            ConflictError: It has ended otherwise, or is about to.
        """
        batch = await self._store.begin_cancel(account_id, batch_id, at_s=self._clock.now_s())
        if batch is None:
            raise _missing(batch_id)
        if batch.status == "cancelling":
            await self._workers.cancel("batch", batch.id)
        elif batch.status != "cancelled":
            raise ConflictError(
                f"Cannot cancel a batch with status {batch.status!r}.", code="batch_not_cancellable"
            )
        return batch


def _bad_file(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, code="invalid_value", param="input_file_id")


def _missing(batch_id: str) -> NotFoundError:
    return NotFoundError(f"No batch found with id {batch_id[:80]!r}.")
