"""Events are kept, read and forgotten alike by every store of them."""

from __future__ import annotations

import asyncio

import pytest

from openworks.core.errors import ConflictError
from openworks.ports.events import NewEvents, StreamEvent
from openworks.ports.jobs import Claim, Rest
from tests.contract.work_stores import LEASE_S, NOW_S, WorkStores, lease


def some_events(claim: Claim, first: int, last: int) -> NewEvents:
    events = [
        StreamEvent(number=number, name="delta", data=f'{{"n":{number}}}'.encode())
        for number in range(first, last + 1)
    ]
    return NewEvents(claim=claim, events=events)


async def numbers(stores: WorkStores, stream_id: str, *, after: int = -1) -> list[int]:
    found = await stores.events.read(stream_id, after=after, limit=1000)
    return [event.number for event in found]


async def test_events_come_back_as_they_were_kept(work_stores: WorkStores) -> None:
    claim = await work_stores.add("run-1", worker="w-1")
    events = [
        StreamEvent(number=0, name="thread.run.created", data='{"größe":"🌍\\u0000"}'.encode()),
        StreamEvent(number=1, name="done", data=b"[DONE]", is_last=True),
    ]

    lost = await work_stores.events.append([NewEvents(claim=claim, events=events)], now_s=NOW_S)

    assert not lost
    assert await work_stores.events.read("run-1", after=-1, limit=10) == events
    assert await work_stores.events.last_number("run-1") == 1


async def test_events_are_read_in_order_from_any_place(work_stores: WorkStores) -> None:
    claim = await work_stores.add("run-1", worker="w-1")
    for first in range(0, 300, 50):
        await work_stores.events.append([some_events(claim, first, first + 49)], now_s=NOW_S)

    assert await numbers(work_stores, "run-1") == list(range(300))
    assert await numbers(work_stores, "run-1", after=250) == list(range(251, 300))
    page = await work_stores.events.read("run-1", after=9, limit=3)
    assert [event.number for event in page] == [10, 11, 12]
    assert await numbers(work_stores, "run-1", after=299) == []


async def test_stream_that_nobody_wrote_is_empty(work_stores: WorkStores) -> None:
    assert await numbers(work_stores, "run-1") == []
    assert await work_stores.events.last_number("run-1") == -1


async def test_of_a_lost_claim_nothing_is_kept_and_of_the_others_all(
    work_stores: WorkStores,
) -> None:
    for name in ("run-1", "run-2", "run-3"):
        await work_stores.add(name)
    old = await work_stores.claim("w-1")
    await work_stores.transactions.rest(old["run-3"], Rest())
    new = await work_stores.claim("w-2", now_s=NOW_S + LEASE_S)
    batch = [some_events(claim, 0, 1) for claim in (old["run-1"], new["run-2"], old["run-3"])]

    lost = await work_stores.events.append(batch, now_s=NOW_S)

    assert set(lost) == {old["run-1"], old["run-3"]}
    assert await numbers(work_stores, "run-1") == await numbers(work_stores, "run-3") == []
    assert await numbers(work_stores, "run-2") == [0, 1]


async def test_number_is_given_once(work_stores: WorkStores) -> None:
    claim = await work_stores.add("run-1", worker="w-1")
    await work_stores.events.append([some_events(claim, 0, 3)], now_s=NOW_S)

    with pytest.raises(ConflictError):
        await work_stores.events.append([some_events(claim, 3, 4)], now_s=NOW_S)


async def test_events_of_the_same_streams_are_kept_while_their_claims_are_renewed(
    work_stores: WorkStores,
) -> None:
    claims = [await work_stores.add(f"run-{number}", worker="w-1") for number in range(20)]

    async def write(backwards: int) -> None:
        for number in range(5):
            place = number * 2 + backwards
            batch = [some_events(claim, place, place) for claim in claims]
            assert not await work_stores.events.append(
                batch[::-1] if backwards else batch, now_s=NOW_S
            )

    async def renew() -> None:
        for _ in range(5):
            assert len(await work_stores.jobs.renew(claims[::-1], lease("w-1"))) == len(claims)

    await asyncio.gather(write(0), write(1), renew())

    for claim in claims:
        assert await numbers(work_stores, claim.subject_id) == list(range(10))


async def test_places_that_hold_an_event_are_told_from_those_that_do_not(
    work_stores: WorkStores,
) -> None:
    claim = await work_stores.add("run-1", worker="w-1")
    await work_stores.events.append([some_events(claim, 0, 1)], now_s=NOW_S)

    found = await work_stores.events.which_exist({("run-1", 1), ("run-1", 2), ("run-2", 1)})

    assert set(found) == {("run-1", 1)}
    assert not await work_stores.events.which_exist([])


async def test_streams_that_are_old_and_at_rest_are_deleted(work_stores: WorkStores) -> None:
    claims = [
        await work_stores.add(name, worker="w-1") for name in ("old", "new", "worked-on", "long")
    ]
    ages = {"old": [0, 0], "new": [100, 100], "worked-on": [0, 0], "long": [0, 100]}
    for claim in claims:
        for number, age in enumerate(ages[claim.subject_id]):
            await work_stores.events.append([some_events(claim, number, number)], now_s=NOW_S + age)
        if claim.subject_id != "worked-on":
            await work_stores.transactions.rest(claim, Rest())

    assert await work_stores.events.delete_old(before_s=NOW_S + 50, limit=100) == 2

    left = {claim.subject_id: await numbers(work_stores, claim.subject_id) for claim in claims}
    assert left == {"old": [], "new": [0, 1], "worked-on": [0, 1], "long": [0, 1]}


async def test_no_more_than_a_limit_is_deleted_at_once(work_stores: WorkStores) -> None:
    claim = await work_stores.add("run-1", worker="w-1")
    await work_stores.events.append([some_events(claim, 0, 4)], now_s=NOW_S)
    await work_stores.transactions.rest(claim, Rest())

    rounds = [await work_stores.events.delete_old(before_s=NOW_S + 1, limit=2) for _ in range(4)]

    assert rounds == [2, 2, 1, 0]
