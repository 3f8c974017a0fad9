"""Batches and the results of their lines are kept alike by every store of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from openworks.core.errors import ConflictError, InvalidRequestError, LeaseLostError
from openworks.core.ids import AccountId, KeyId
from openworks.core.pages import PageRequest
from openworks.ports.batches import Batch, BatchStatus, BatchStore, KeptLine, LineResult
from openworks.ports.calls import Usage
from openworks.ports.files import File, FileStore
from openworks.ports.jobs import Claim, JobStore, NewJob
from openworks.storage.sql.batches import SqlBatchStore
from openworks.storage.sql.files import SqlFileStore
from openworks.storage.sql.jobs import SqlJobStore
from tests.contract.conftest import OpenDatabase
from tests.contract.work_stores import LEASE_S, MINE, NOW_S, lease
from tests.fake_batches import MemoryBatchStore, MemoryFileStore
from tests.fake_work import MemoryJobStore

THEIRS = AccountId("acct-theirs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """Batches, and what is kept in one transaction with them."""

    batches: BatchStore
    files: FileStore
    jobs: JobStore

    async def add(self, batch_id: str = "b-1", **fields: Any) -> Claim:
        """Keep a batch; return the claim of who made it."""
        batch = a_batch(batch_id, **fields)
        job = NewJob(
            kind="batch",
            subject_id=batch_id,
            account_id=batch.account_id,
            due_at_s=NOW_S,
            lease=lease("w-1"),
        )
        await self.batches.insert(batch, job)
        return job.claim

    async def get(self, batch_id: str = "b-1") -> Batch:
        batch = await self.batches.get(MINE, batch_id)
        assert batch is not None
        return batch

    async def take_over(self) -> Claim:
        (claim,) = await self.jobs.claim_due(
            ["batch"], lease("w-2"), now_s=NOW_S + LEASE_S, limit=1
        )
        return claim

    async def num_jobs(self) -> int:
        later_s = NOW_S + 1e6
        return len(await self.jobs.claim_due(["batch"], lease("w-9"), now_s=later_s, limit=9))


@pytest.fixture
async def stores(adapter: str, open_database: OpenDatabase) -> AsyncIterator[Stores]:
    if adapter == "memory":
        jobs, files = MemoryJobStore(), MemoryFileStore()
        yield Stores(batches=MemoryBatchStore(jobs, files), files=files, jobs=jobs)
        return
    async with open_database(adapter) as database:
        yield Stores(
            batches=SqlBatchStore(database),
            files=SqlFileStore(database),
            jobs=SqlJobStore(database),
        )


def a_batch(batch_id: str = "b-1", **fields: Any) -> Batch:
    return replace(
        Batch(
            id=batch_id,
            account_id=MINE,
            key_id=None,
            allowed_models=None,
            created_at_s=NOW_S,
            expires_at_s=NOW_S + 86_400,
            endpoint="/v1/embeddings",
            input_file_id="file-1",
        ),
        **fields,
    )


def a_result(number: int, *, is_error: bool = False) -> LineResult:
    return LineResult(
        number=number,
        is_error=is_error,
        data=f'{{"n":{number}}}'.encode(),
        usage=Usage(prompt_tokens=10, completion_tokens=3, cached_tokens=2, reasoning_tokens=1),
    )


def a_file(file_id: str) -> File:
    return File(
        id=file_id,
        account_id=MINE,
        created_at_s=int(NOW_S),
        filename="out.jsonl",
        media_type="application/jsonl",
        purpose="batch_output",
        size_bytes=7,
        expires_at_s=None,
    )


async def test_batch_comes_back_as_it_was_kept(stores: Stores) -> None:
    made: dict[str, Any] = {
        "key_id": KeyId("key-1"),
        "allowed_models": frozenset({"a", "b"}),
        "output_ttl_s": 3600,
        "metadata": {"größe": "🌍"},
    }
    await stores.add(**made)

    assert await stores.get() == a_batch(**made)
    assert await stores.batches.get(THEIRS, "b-1") is None
    assert await stores.batches.get(MINE, "b-2") is None


async def test_second_batch_with_the_same_id_is_refused(stores: Stores) -> None:
    await stores.add()

    with pytest.raises(ConflictError, match="'b-1'"):
        await stores.add(account_id=THEIRS)


async def test_batches_are_listed_by_age_and_account(stores: Stores) -> None:
    for number in range(4):
        await stores.add(f"b-{number}", created_at_s=NOW_S + number % 3)
    await stores.add("b-9", account_id=THEIRS)

    first = await stores.batches.list(MINE, PageRequest(limit=3))
    second = await stores.batches.list(MINE, PageRequest(limit=3, after="b-3"))

    assert ([each.id for each in first.items], first.has_more) == (["b-2", "b-1", "b-3"], True)
    assert ([each.id for each in second.items], second.has_more) == (["b-0"], False)
    with pytest.raises(InvalidRequestError):
        await stores.batches.list(MINE, PageRequest(after="b-9"))


async def test_batch_advances_and_remembers_when(stores: Stores) -> None:
    claim = await stores.add()

    begun = await stores.batches.advance(
        claim, "in_progress", at_s=NOW_S + 1, num_lines=3, model="m"
    )
    again = await stores.batches.advance(claim, "in_progress", at_s=NOW_S + 2)
    ending = await stores.batches.advance(claim, "finalizing", at_s=NOW_S + 3)

    assert (begun.status, begun.num_lines, begun.model) == ("in_progress", 3, "m")
    assert again == begun
    assert ending == await stores.get()
    assert (ending.status, ending.num_lines, ending.model) == ("finalizing", 3, "m")
    assert ending.reached_at_s == {"in_progress": NOW_S + 1, "finalizing": NOW_S + 3}


@pytest.mark.parametrize("status", ["validating", "in_progress"])
async def test_cancelled_batch_advances_no_more(stores: Stores, status: BatchStatus) -> None:
    claim = await stores.add(status=status)

    cancelling = await stores.batches.begin_cancel(MINE, "b-1", at_s=NOW_S + 1)

    assert cancelling is not None
    assert (cancelling.status, cancelling.reached_at_s) == ("cancelling", {"cancelling": NOW_S + 1})
    assert await stores.batches.advance(claim, "finalizing", at_s=NOW_S + 2) == cancelling
    assert await stores.batches.begin_cancel(MINE, "b-1", at_s=NOW_S + 3) == cancelling


async def test_batch_that_ends_is_not_cancelled(stores: Stores) -> None:
    await stores.add(status="finalizing")

    batch = await stores.batches.begin_cancel(MINE, "b-1", at_s=NOW_S)

    assert batch is not None
    assert batch.status == "finalizing"
    assert await stores.batches.begin_cancel(THEIRS, "b-1", at_s=NOW_S) is None


async def test_results_are_kept_and_counted_together(stores: Stores) -> None:
    claim = await stores.add()

    await stores.batches.add_results(claim, [a_result(3), a_result(1, is_error=True)])
    await stores.batches.add_results(claim, [a_result(2)])

    batch = await stores.get()
    assert (batch.num_completed, batch.num_failed) == (2, 1)
    assert batch.usage == Usage(
        prompt_tokens=30, completion_tokens=9, cached_tokens=6, reasoning_tokens=3
    )
    assert await stores.batches.list_results("b-1") == [
        KeptLine(number=1, is_error=True, size_bytes=7),
        KeptLine(number=2, is_error=False, size_bytes=7),
        KeptLine(number=3, is_error=False, size_bytes=7),
    ]
    read = stores.batches.read_results
    assert await read("b-1", is_error=False, first=1, last=9) == [b'{"n":2}', b'{"n":3}']
    assert await read("b-1", is_error=False, first=1, last=2) == [b'{"n":2}']
    assert await read("b-1", is_error=True, first=1, last=9) == [b'{"n":1}']


async def test_second_result_of_a_line_is_refused_with_all_that_come_along(stores: Stores) -> None:
    claim = await stores.add()
    await stores.batches.add_results(claim, [a_result(1)])

    with pytest.raises(ConflictError):
        await stores.batches.add_results(claim, [a_result(2), a_result(1)])

    assert [each.number for each in await stores.batches.list_results("b-1")] == [1]
    assert (await stores.get()).num_completed == 1


async def test_postponed_batch_is_claimed_when_it_is_due(stores: Stores) -> None:
    claim = await stores.add()
    await stores.batches.postpone(claim, due_at_s=NOW_S + 5)

    claim_due = stores.jobs.claim_due
    assert not await claim_due(["batch"], lease("w-2"), now_s=NOW_S + 4, limit=9)
    assert await claim_due(["batch"], lease("w-2"), now_s=NOW_S + 5, limit=9)


async def test_finished_batch_has_its_files_and_no_job_and_no_results(stores: Stores) -> None:
    claim = await stores.add()
    await stores.batches.add_results(claim, [a_result(1)])
    ended = replace(
        await stores.get(),
        status="failed",
        reached_at_s={"failed": NOW_S + 1},
        output_file_id="file-8",
        error_file_id="file-9",
        errors=({"code": "x", "message": "X.", "param": None, "line": 3},),
    )

    await stores.batches.finish(claim, ended, [a_file("file-8"), a_file("file-9")])

    assert await stores.get() == ended
    assert await stores.files.get(MINE, "file-8") == a_file("file-8")
    assert await stores.files.get(MINE, "file-9") == a_file("file-9")
    assert await stores.batches.list_results("b-1") == []
    assert await stores.num_jobs() == 0


async def test_who_has_lost_the_claim_changes_nothing(stores: Stores) -> None:
    old = await stores.add()
    await stores.take_over()
    batches = stores.batches

    with pytest.raises(LeaseLostError):
        await batches.advance(old, "in_progress", at_s=NOW_S)
    with pytest.raises(LeaseLostError):
        await batches.add_results(old, [a_result(1)])
    with pytest.raises(LeaseLostError):
        await batches.postpone(old, due_at_s=NOW_S)
    with pytest.raises(LeaseLostError):
        await batches.finish(old, await stores.get(), [a_file("file-8")])

    assert await stores.get() == a_batch()
    assert await batches.list_results("b-1") == []
    assert await stores.files.get(MINE, "file-8") is None


async def test_every_answer_lets_attempts_count_anew(stores: Stores) -> None:
    await stores.add()
    second = await stores.take_over()
    assert second.attempt == 2

    await stores.batches.add_results(second, [a_result(1)])

    (held,) = await stores.jobs.renew([second], lease("w-2"))
    assert held.attempt == 1
