"""Fakes of what batches are kept in and answered by, in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Literal

from openworks.core.errors import ConflictError, InvalidRequestError, LeaseLostError
from openworks.core.ids import AccountId
from openworks.core.pages import Page, PageRequest
from openworks.ports.batches import CANCELLABLE, Batch, KeptLine, LineResult
from openworks.ports.files import File
from openworks.ports.jobs import Claim, NewJob, Rest
from tests.fake_work import MemoryJobStore


class MemoryFileStore:
    """What is known of files, as far as batches ask."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}

    async def insert(self, file: File, *, max_total_bytes: int) -> None:
        self.files[file.id] = file

    async def get(self, account_id: AccountId, file_id: str) -> File | None:
        file = self.files.get(file_id)
        return file if file is not None and file.account_id == account_id else None

    async def list(
        self,
        account_id: AccountId,
        page: PageRequest,
        *,
        now_s: float,
        purpose: str | None = None,
    ) -> Page[File]:
        raise NotImplementedError

    async def delete(self, account_id: AccountId, file_id: str) -> bool:
        return self.files.pop(file_id, None) is not None

    async def delete_expired(self, *, now_s: float, limit: int) -> Sequence[str]:
        raise NotImplementedError

    async def known(self, file_ids: Collection[str]) -> frozenset[str]:
        raise NotImplementedError


class MemoryBatchStore:
    """Batches and their results in dicts, beside the jobs and the files of other fakes."""

    def __init__(self, jobs: MemoryJobStore, files: MemoryFileStore) -> None:
        self._jobs = jobs
        self._files = files
        self._batches: dict[str, Batch] = {}
        self._results: dict[str, dict[int, LineResult]] = {}

    async def insert(self, batch: Batch, job: NewJob) -> None:
        if batch.id in self._batches:
            raise ConflictError(f"A batch with id '{batch.id}' is there already.")
        await self._jobs.insert(job)
        self._batches[batch.id] = batch
        self._results[batch.id] = {}

    async def get(self, account_id: AccountId, batch_id: str) -> Batch | None:
        await asyncio.sleep(0)
        batch = self._batches.get(batch_id)
        return batch if batch is not None and batch.account_id == account_id else None

    async def list(self, account_id: AccountId, page: PageRequest) -> Page[Batch]:
        mine = [each for each in self._batches.values() if each.account_id == account_id]
        mine.sort(key=lambda each: (each.created_at_s, each.id), reverse=page.order == "desc")
        ids = [each.id for each in mine]
        for param, cursor in (("after", page.after), ("before", page.before)):
            if cursor is not None and cursor not in ids:
                raise InvalidRequestError(f"No {cursor}.", code="invalid_cursor", param=param)
        begin = 0 if page.after is None else ids.index(page.after) + 1
        end = len(ids) if page.before is None else ids.index(page.before)
        found = mine[begin:end]
        if page.before is not None and page.after is None:
            return Page(items=found[-page.limit :], has_more=len(found) > page.limit)
        return Page(items=found[: page.limit], has_more=len(found) > page.limit)

    async def begin_cancel(
        self, account_id: AccountId, batch_id: str, *, at_s: float
    ) -> Batch | None:
        batch = await self.get(account_id, batch_id)
        if batch is not None and batch.status in CANCELLABLE:
            reached_at_s = {**batch.reached_at_s, "cancelling": at_s}
            batch = replace(batch, status="cancelling", reached_at_s=reached_at_s)
            self._batches[batch_id] = batch
        return batch

    async def advance(
        self,
        claim: Claim,
        status: Literal["in_progress", "finalizing"],
        *,
        at_s: float,
        num_lines: int | None = None,
        model: str | None = None,
    ) -> Batch:
        await self._jobs.hold(claim, is_progress=True)
        batch = self._batches[claim.subject_id]
        if batch.status not in {"cancelling", status}:
            batch = self._batches[batch.id] = replace(
                batch,
                status=status,
                reached_at_s={**batch.reached_at_s, status: at_s},
                num_lines=batch.num_lines if num_lines is None else num_lines,
                model=batch.model if model is None else model,
            )
        return batch

    async def add_results(self, claim: Claim, results: Sequence[LineResult]) -> None:
        await self._jobs.hold(claim, is_progress=True)
        batch, kept = self._batches[claim.subject_id], self._results[claim.subject_id]
        if any(each.number in kept for each in results):
            raise ConflictError("It exists already.")
        kept.update({each.number: each for each in results})
        self._batches[batch.id] = replace(
            batch,
            num_completed=batch.num_completed + sum(not each.is_error for each in results),
            num_failed=batch.num_failed + sum(each.is_error for each in results),
            usage=sum((each.usage for each in results), batch.usage),
        )

    async def list_results(self, batch_id: str) -> Sequence[KeptLine]:
        await asyncio.sleep(0)
        return [
            KeptLine(number=each.number, is_error=each.is_error, size_bytes=len(each.data))
            for _, each in sorted(self._results[batch_id].items())
        ]

    async def read_results(
        self, batch_id: str, *, is_error: bool, first: int, last: int
    ) -> Sequence[bytes]:
        await asyncio.sleep(0)
        return [
            each.data
            for number, each in sorted(self._results[batch_id].items())
            if each.is_error == is_error and first <= number <= last
        ]

    async def postpone(self, claim: Claim, *, due_at_s: float) -> None:
        await self._jobs.rest(claim, Rest(due_at_s=due_at_s))

    async def finish(self, claim: Claim, batch: Batch, files: Sequence[File]) -> None:
        if self._jobs.held(claim) is None:
            raise LeaseLostError("It was taken over.")
        await self._jobs.rest(claim, Rest())
        self._files.files.update({file.id: file for file in files})
        self._batches[batch.id] = batch
        self._results[batch.id] = {}
