from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openworks.gateway.caching.flights import Lead, SingleFlight
from tests.unit.gateway.caching.answers import answer

KEY = b"k" * 32


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_followers_get_the_leaders_answer() -> None:
    flights = SingleFlight()
    lead = flights.lead(KEY)
    assert lead is not None
    assert flights.lead(KEY) is None
    waits = [asyncio.create_task(flights.wait(KEY)) for _ in range(3)]
    await settle()
    assert lead.followers == 3
    made = answer()
    lead.finish(made)
    assert await asyncio.gather(*waits) == [made] * 3
    assert len(flights) == 0


async def test_another_key_is_another_flight() -> None:
    flights = SingleFlight()
    assert flights.lead(KEY)
    assert flights.lead(b"other")


async def test_a_follower_takes_over_when_the_leaders_client_leaves() -> None:
    flights = SingleFlight()
    lead = flights.lead(KEY)
    assert lead is not None
    first, second = (asyncio.create_task(flights.wait(KEY)) for _ in range(2))
    await settle()
    with pytest.raises(asyncio.CancelledError), lead:
        raise asyncio.CancelledError
    await settle()
    next_lead = await first
    assert isinstance(next_lead, Lead)
    assert not second.done()
    made = answer()
    next_lead.finish(made)
    assert await second is made


async def test_a_second_failure_lets_everybody_ask_alone() -> None:
    flights = SingleFlight()
    lead = flights.lead(KEY)
    assert lead is not None
    waits = [asyncio.create_task(flights.wait(KEY)) for _ in range(4)]
    await settle()
    lead.fail()
    second = await waits[0]
    assert isinstance(second, Lead)
    await settle()
    assert not any(wait.done() for wait in waits[1:])
    second.fail()
    assert await asyncio.gather(*waits[1:]) == [None] * 3
    assert len(flights) == 0


async def test_a_follower_that_leaves_takes_nothing_from_the_others() -> None:
    flights = SingleFlight()
    lead = flights.lead(KEY)
    assert lead is not None
    first, second = (asyncio.create_task(flights.wait(KEY)) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    assert lead.followers == 1
    lead.leave()
    assert isinstance(await second, Lead)


async def test_a_follower_that_leaves_as_the_lead_falls_to_it_hands_it_on() -> None:
    flights = SingleFlight()
    lead = flights.lead(KEY)
    assert lead is not None
    first, second = (asyncio.create_task(flights.wait(KEY)) for _ in range(2))
    await settle()
    lead.leave()  # `first` has the lead now and does not know it yet
    first.cancel()
    assert isinstance(await second, Lead)
    assert first.cancelled()


async def test_a_lead_without_followers_frees_the_key() -> None:
    flights = SingleFlight()
    lead = flights.lead(KEY)
    assert lead is not None
    lead.leave()
    lead.leave()
    assert flights.lead(KEY)


async def test_followers_are_bounded() -> None:
    flights = SingleFlight(max_followers=1)
    lead = flights.lead(KEY)
    assert lead is not None
    waiting = asyncio.create_task(flights.wait(KEY))
    await settle()
    assert await flights.wait(KEY) is None
    made = answer()
    lead.finish(made)
    assert await waiting is made


async def test_flights_are_bounded() -> None:
    flights = SingleFlight(max_flights=1)
    assert flights.lead(b"a")
    assert flights.lead(b"b")
    assert flights.lead(b"b")  # nobody follows
    assert len(flights) == 1


async def test_a_leader_that_takes_too_long_is_not_waited_for() -> None:
    flights = SingleFlight(max_wait_s=0.001)
    lead = flights.lead(KEY)
    assert lead is not None
    assert await flights.wait(KEY) is None
    newer = flights.lead(KEY)
    assert newer is not None
    lead.finish(answer())
    assert flights.lead(KEY) is None  # the newer flight is still under way


@settings(max_examples=60)
@given(st.lists(st.sampled_from(["finish", "fail", "leave", "cancel"]), max_size=8), st.data())
def test_everybody_who_waits_ends_and_nothing_is_left(
    fates: list[str], data: st.DataObject
) -> None:
    async def scenario() -> None:
        flights = SingleFlight()

        async def client(fate: str) -> str:
            turn = flights.lead(KEY) or await flights.wait(KEY)
            if not isinstance(turn, Lead):
                return "served"
            with turn:
                await asyncio.sleep(0)
                if fate == "finish":
                    turn.finish(answer())
                elif fate == "leave":
                    turn.leave()
            return "led"

        tasks = [asyncio.create_task(client(fate)) for fate in fates]
        for task, fate in zip(tasks, fates, strict=True):
            for _ in range(data.draw(st.integers(0, 2))):
                await asyncio.sleep(0)
            if fate == "cancel":
                task.cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert len(flights) == 0

    asyncio.run(scenario())
