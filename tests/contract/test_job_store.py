"""Jobs are claimed, kept, given back and ended alike by every store of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from openworks.core.errors import LeaseLostError
from openworks.ports.jobs import Claim, Rest
from tests.contract.work_stores import LEASE_S, MINE, NOW_S, WorkStores, lease


async def test_job_that_is_due_is_claimed_once(work_stores: WorkStores) -> None:
    await work_stores.add("run-1")

    assert await work_stores.claim("w-1") == {
        "run-1": Claim(kind="run", subject_id="run-1", account_id=MINE, token=1, attempt=1)
    }
    assert await work_stores.claim("w-2") == {}


async def test_job_is_left_alone_until_it_is_due(work_stores: WorkStores) -> None:
    await work_stores.add("run-1", due_at_s=NOW_S + 60)

    assert await work_stores.claim(now_s=NOW_S + 59) == {}
    assert set(await work_stores.claim(now_s=NOW_S + 60)) == {"run-1"}


async def test_longest_due_jobs_are_taken_first(work_stores: WorkStores) -> None:
    for number in (3, 1, 4, 0, 2):
        await work_stores.add(f"run-{number}", due_at_s=NOW_S - 100 + number)

    assert set(await work_stores.claim(limit=2)) == {"run-0", "run-1"}
    assert set(await work_stores.claim(limit=2)) == {"run-2", "run-3"}


async def test_jobs_of_other_kinds_are_left_alone(work_stores: WorkStores) -> None:
    await work_stores.add("x-1", kind="batch")
    await work_stores.add("x-1", kind="response")

    assert [claim.kind for claim in (await work_stores.claim()).values()] == ["response"]


async def test_workers_that_claim_together_get_different_jobs(work_stores: WorkStores) -> None:
    names = {f"run-{number}" for number in range(40)}
    for name in names:
        await work_stores.add(name)

    async def take(worker: str) -> list[str]:
        taken: list[str] = []
        while claims := await work_stores.claim(worker, limit=3):
            taken += claims
        return taken

    # Who finds the rest locked by others stops early, so somebody looks again at the end.
    shares = await asyncio.gather(*(take(f"w-{number}") for number in range(5)))
    taken = [name for share in [*shares, await take("w-last")] for name in share]

    assert sorted(taken) == sorted(names)


async def test_job_is_taken_over_once_its_lease_is_over(work_stores: WorkStores) -> None:
    await work_stores.add("run-1")
    first = (await work_stores.claim("w-1"))["run-1"]

    assert await work_stores.claim("w-2", now_s=NOW_S + LEASE_S - 1) == {}
    second = (await work_stores.claim("w-2", now_s=NOW_S + LEASE_S))["run-1"]

    assert second == replace(first, token=2, attempt=2)
    with pytest.raises(LeaseLostError, match="'run-1'"):
        await work_stores.transactions.hold(first)
    await work_stores.transactions.hold(second)


async def test_job_made_with_a_lease_belongs_to_its_maker(work_stores: WorkStores) -> None:
    claim = await work_stores.add("run-1", worker="w-1")

    assert await work_stores.claim("w-2") == {}
    await work_stores.transactions.hold(claim)
    taken = (await work_stores.claim("w-2", now_s=NOW_S + LEASE_S))["run-1"]
    assert (taken.token, taken.attempt) == (2, 2)


async def test_renewed_claims_outlive_their_lease_and_lost_ones_are_missing(
    work_stores: WorkStores,
) -> None:
    for name in ("run-1", "run-2", "run-3"):
        await work_stores.add(name)
    claims = await work_stores.claim("w-1")
    await work_stores.transactions.rest(claims["run-2"], Rest())
    later_s = NOW_S + LEASE_S
    await work_stores.jobs.renew([claims["run-1"]], lease("w-1", later_s))
    stolen = await work_stores.claim("w-2", now_s=later_s)

    held = await work_stores.jobs.renew(list(claims.values()), lease("w-1", later_s))

    assert set(stolen) == {"run-3"}
    assert held == [claims["run-1"]]
    assert await work_stores.jobs.renew([], lease("w-1")) == []


async def test_renewal_tells_of_wishes_and_progress(work_stores: WorkStores) -> None:
    await work_stores.add("run-1")
    await work_stores.claim("w-1")
    claim = (await work_stores.claim("w-2", now_s=NOW_S + LEASE_S))["run-1"]
    await work_stores.transactions.hold(claim, is_progress=True)
    await work_stores.jobs.request_cancel("run", "run-1")

    held = await work_stores.jobs.renew([claim], lease("w-2"))

    assert held == [replace(claim, attempt=1, is_cancelled=True)]


@pytest.mark.parametrize(("counts", "attempt"), [(True, 2), (False, 1)])
async def test_released_job_is_anybodys_when_it_is_due(
    work_stores: WorkStores, counts: bool, attempt: int
) -> None:
    await work_stores.add("run-1")
    claim = (await work_stores.claim("w-1"))["run-1"]

    await work_stores.jobs.release(claim, due_at_s=NOW_S + 5, counts=counts)

    assert await work_stores.claim("w-2", now_s=NOW_S + 4) == {}
    again = (await work_stores.claim("w-2", now_s=NOW_S + 5))["run-1"]
    assert (again.token, again.attempt) == (2, attempt)


async def test_release_of_a_lost_claim_changes_nothing(work_stores: WorkStores) -> None:
    await work_stores.add("run-1")
    lost = (await work_stores.claim("w-1"))["run-1"]
    await work_stores.claim("w-2", now_s=NOW_S + LEASE_S)

    await work_stores.jobs.release(lost, due_at_s=NOW_S)

    assert await work_stores.claim("w-3", now_s=NOW_S + LEASE_S + 1) == {}


async def test_one_job_is_claimed_before_it_is_due_unless_somebody_has_it(
    work_stores: WorkStores,
) -> None:
    await work_stores.add("run-1", due_at_s=NOW_S + 600)
    jobs = work_stores.jobs

    assert await jobs.claim_one("response", "run-1", lease("w-1"), now_s=NOW_S) is None
    found = await asyncio.gather(
        *(jobs.claim_one("run", "run-1", lease(f"w-{n}"), now_s=NOW_S) for n in range(5))
    )

    assert [claim.token for claim in found if claim is not None] == [1]


async def test_cancelled_job_that_waits_is_due_at_once(work_stores: WorkStores) -> None:
    await work_stores.add("run-1", due_at_s=NOW_S + 600)

    assert await work_stores.jobs.request_cancel("run", "run-1")
    assert not await work_stores.jobs.request_cancel("run", "run-2")

    assert (await work_stores.claim())["run-1"].is_cancelled


async def test_job_that_is_cancelled_while_its_worker_parks_it_is_due_at_once(
    work_stores: WorkStores,
) -> None:
    await work_stores.add("run-1")
    claim = (await work_stores.claim("w-1"))["run-1"]
    await work_stores.jobs.request_cancel("run", "run-1")

    await work_stores.transactions.rest(claim, Rest(due_at_s=NOW_S + 600))

    assert (await work_stores.claim("w-2"))["run-1"].is_cancelled


async def test_parked_job_waits_and_counts_its_attempts_anew(work_stores: WorkStores) -> None:
    await work_stores.add("run-1")
    await work_stores.claim("w-1")
    claim = (await work_stores.claim("w-2", now_s=NOW_S + LEASE_S))["run-1"]
    await work_stores.transactions.rest(claim, Rest(due_at_s=NOW_S + 600))

    assert await work_stores.claim(now_s=NOW_S + 599) == {}
    again = (await work_stores.claim(now_s=NOW_S + 600))["run-1"]

    assert (again.token, again.attempt) == (3, 1)


async def test_parked_job_that_got_what_it_needs_is_due(work_stores: WorkStores) -> None:
    await work_stores.add("run-1", due_at_s=NOW_S + 600)

    await work_stores.transactions.make_due("run", "run-1", now_s=NOW_S + 1)

    assert await work_stores.claim() == {}
    assert set(await work_stores.claim(now_s=NOW_S + 1)) == {"run-1"}


async def test_job_at_rest_is_gone(work_stores: WorkStores) -> None:
    await work_stores.add("run-1")
    claim = (await work_stores.claim())["run-1"]

    await work_stores.transactions.rest(claim, Rest())

    assert not await work_stores.jobs.request_cancel("run", "run-1")
    with pytest.raises(LeaseLostError):
        await work_stores.transactions.hold(claim)


async def test_job_of_a_deleted_object_is_lost_to_its_worker(work_stores: WorkStores) -> None:
    await work_stores.add("run-1")
    claim = (await work_stores.claim())["run-1"]

    await work_stores.transactions.delete("run", "run-1")
    await work_stores.transactions.delete("run", "run-1")

    with pytest.raises(LeaseLostError):
        await work_stores.transactions.rest(claim, Rest())


async def test_claims_of_many_jobs_are_renewed_while_each_is_held(work_stores: WorkStores) -> None:
    names = [f"run-{number}" for number in range(30)]
    for name in names:
        await work_stores.add(name)
    claims = list((await work_stores.claim()).values())

    async def renew(step: int) -> int:
        return len(await work_stores.jobs.renew(claims[::step], lease("w-1")))

    held, *_ = await asyncio.gather(
        renew(1), renew(-1), *(work_stores.transactions.hold(claim) for claim in claims)
    )

    assert held == len(names)
