from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import aclosing, asynccontextmanager
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openworks.core.errors import AppError, InternalError, LeaseLostError, StorageError
from openworks.core.ids import AccountId
from openworks.ports.events import NewEvents, StreamEvent
from openworks.ports.jobs import Claim, Lease, NewJob, Rest
from openworks.services.journal import Journal, JournalConfig, StreamWriter
from tests.fake_work import MemoryEventStore, MemoryJobStore
from tests.fakes import FakeClock

POLL_S = 0.002


class GatedEventStore(MemoryEventStore):
    """Keeps events only while its gate is open."""

    def __init__(self, jobs: MemoryJobStore) -> None:
        super().__init__(jobs)
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_asked = asyncio.Event()
        self.batch_sizes: list[int] = []

    async def append(self, batch: Sequence[NewEvents], *, now_s: float) -> Collection[Claim]:
        self.batch_sizes.append(len(batch))
        self.is_asked.set()
        await self.gate.wait()
        return await super().append(batch, now_s=now_s)


class World:
    """Journals of several processes over one database."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.jobs = MemoryJobStore()
        self.store = GatedEventStore(self.jobs)

    @asynccontextmanager
    async def journal(self, config: JournalConfig | None = None) -> AsyncIterator[Journal]:
        config = config or JournalConfig(poll_s=POLL_S)
        journal = Journal(self.store, config, clock=self.clock)
        journal.open()
        try:
            yield journal
        finally:
            await journal.close()

    async def claim(self, stream_id: str = "run-1") -> Claim:
        """Claim the work on a stream, whoever has it."""
        lease = Lease(worker="w-1", until_s=0)
        if ("run", stream_id) not in self.jobs.jobs:
            job = NewJob(
                kind="run", subject_id=stream_id, account_id=AccountId("acct-1"), due_at_s=0
            )
            await self.jobs.insert(job)
        claim = await self.jobs.claim_one("run", stream_id, lease, now_s=1)
        assert claim is not None
        return claim

    async def stored(self, stream_id: str = "run-1") -> list[int]:
        return [each.number for each in await self.store.read(stream_id, after=-1, limit=10**6)]


async def heard(journal: Journal, *, after: int = -1, stream_id: str = "run-1") -> list[int]:
    """Listen until a last event."""
    async with asyncio.timeout(20), aclosing(journal.follow(stream_id, after=after)) as events:
        return [event.number async for event in events]


async def hear(journal: Journal, count: int, *, after: int = -1) -> list[StreamEvent]:
    """Listen to so many events, and leave."""
    found: list[StreamEvent] = []
    async with asyncio.timeout(20), aclosing(journal.follow("run-1", after=after)) as events:
        async for event in events:
            found.append(event)
            if len(found) == count:
                break
    return found


async def end(world: World, writer: StreamWriter) -> None:
    """Write a last event, as the stores of runs do, and leave."""
    new = await writer.number([("done", b"[DONE]")], ends=True)
    await world.store.insert(new, now_s=0)
    writer.show(new)
    writer.close()


async def test_event_is_shown_only_once_it_is_stored() -> None:
    world = World()
    async with world.journal() as journal:
        writer = await journal.write(await world.claim())
        world.store.gate.clear()
        listening = asyncio.create_task(hear(journal, 1))
        await writer.put("delta", {"n": 1})
        await world.store.is_asked.wait()
        await asyncio.sleep(POLL_S * 3)
        assert not listening.done()

        world.store.gate.set()
        assert await listening == [StreamEvent(number=0, name="delta", data=b'{"n":1}')]
        assert await world.stored() == [0]


async def test_body_may_hold_its_number() -> None:
    world = World()
    async with world.journal() as journal:
        writer = await journal.write(await world.claim(), number_field="sequence_number")
        await writer.put("delta", {"n": 1})
        await writer.put("delta", {"n": 2})
        found = await hear(journal, 2)

    assert [event.data for event in found] == [
        b'{"n":1,"sequence_number":0}',
        b'{"n":2,"sequence_number":1}',
    ]


async def test_events_of_many_streams_are_stored_together() -> None:
    world = World()
    async with world.journal() as journal:
        writers = [await journal.write(await world.claim(f"run-{n}")) for n in range(50)]
        world.store.gate.clear()
        await writers[0].put("delta", {})
        await world.store.is_asked.wait()
        for writer in writers:
            await writer.put("delta", {})
        world.store.gate.set()
        for writer in writers:
            await writer.flush()

    assert world.store.batch_sizes == [1, 50]


async def test_five_hundred_listeners_hear_every_event_once_wherever_they_begin() -> None:
    world = World()
    num_events = 1500
    async with world.journal() as here, world.journal() as there:
        writer = await here.write(await world.claim())
        listeners: list[asyncio.Task[list[int]]] = []
        starts: list[int] = []
        chance = Random(0)
        for number in range(num_events):
            await writer.put("delta", {"n": number})
            if number % 3 == 0:
                starts.append(chance.randint(-1, number))
                journal = there if number % 50 == 0 else here
                listeners.append(asyncio.create_task(heard(journal, after=starts[-1])))
            if number % 20 == 0:
                await writer.flush()
        await end(world, writer)
        everything = await asyncio.gather(*listeners)

    assert len(everything) == 500
    for after, numbers in zip(starts, everything, strict=True):
        assert numbers == list(range(after + 1, num_events + 1))


async def test_listener_that_comes_back_misses_and_doubles_nothing() -> None:
    world = World()
    async with world.journal() as journal:
        writer = await journal.write(await world.claim())
        for number in range(6):
            await writer.put("delta", {"n": number})
        first = await hear(journal, 4)
        second = await hear(journal, 2, after=first[-1].number)

    assert [event.number for event in first + second] == [0, 1, 2, 3, 4, 5]


async def test_listener_waits_for_a_stream_that_begins_later() -> None:
    world = World()
    async with world.journal(JournalConfig(poll_s=1000)) as journal:
        listening = asyncio.create_task(hear(journal, 1))
        await asyncio.sleep(POLL_S)
        writer = await journal.write(await world.claim())
        await writer.put("delta", {})

        assert [event.number for event in await listening] == [0]


async def test_listener_on_another_server_hears_what_is_stored() -> None:
    world = World()
    async with world.journal() as here, world.journal() as there:
        listening = asyncio.create_task(heard(there))
        writer = await here.write(await world.claim())
        for number in range(3):
            await writer.put("delta", {"n": number})
            await writer.flush()
            await asyncio.sleep(POLL_S * 2)
        await end(world, writer)

        assert await listening == [0, 1, 2, 3]


async def test_listeners_of_other_servers_streams_share_each_look() -> None:
    world = World()
    async with world.journal() as here, world.journal() as there:
        writer = await here.write(await world.claim())
        await writer.put("delta", {})
        await writer.flush()
        listening = [asyncio.create_task(heard(there, after=0)) for _ in range(100)]
        await asyncio.sleep(POLL_S * 10)
        assert world.store.num_reads == 100
        await end(world, writer)

        assert await asyncio.gather(*listening) == [[1]] * 100
    assert world.store.num_reads == 200


async def test_listener_follows_work_from_server_to_server() -> None:
    world = World()
    async with world.journal() as one, world.journal() as two:
        listening = asyncio.create_task(heard(one))
        for journal in (one, two, one):
            writer = await journal.write(await world.claim())
            await writer.put("delta", {})
            await writer.flush()
            await asyncio.sleep(POLL_S * 2)
            writer.close()
        await end(world, await two.write(await world.claim()))

        assert await listening == [0, 1, 2, 3]


async def test_stream_may_go_on_behind_a_last_event() -> None:
    world = World()
    async with world.journal() as journal:
        for _ in range(2):
            await end(world, await journal.write(await world.claim()))

        assert await heard(journal) == [0]
        assert await heard(journal, after=0) == [1]


async def test_slow_listener_reads_what_memory_has_let_go() -> None:
    world = World()
    async with world.journal() as journal:
        writer = await journal.write(await world.claim())
        async with asyncio.timeout(20), aclosing(journal.follow("run-1")) as events:
            found: list[int] = []
            await writer.put("delta", {})
            found.append((await anext(events)).number)
            for number in range(3000):
                await writer.put("delta", {"n": number})
            await writer.flush()
            found += [(await anext(events)).number for _ in range(1000)]
            await end(world, writer)
            found += [event.number async for event in events]

    assert found == list(range(3002))


async def test_writer_whose_claim_is_lost_is_told_and_leaves_nothing() -> None:
    world = World()
    async with world.journal() as journal:
        writer = await journal.write(await world.claim())
        await writer.put("delta", {})
        await writer.flush()
        await world.claim()  # by another server

        await writer.put("delta", {})
        with pytest.raises(LeaseLostError, match="'run-1'"):
            await writer.flush()
        with pytest.raises(LeaseLostError):
            await writer.put("delta", {})
        with pytest.raises(LeaseLostError):
            await writer.number([("done", b"[DONE]")])

    assert await world.stored() == [0]


@pytest.mark.parametrize(
    ("cause", "error"),
    [(StorageError("It is away."), StorageError), (ValueError("a fault of ours"), InternalError)],
)
async def test_failure_to_store_ends_the_writer_and_leaves_no_gap(
    cause: Exception, error: type[AppError]
) -> None:
    world = World()
    async with world.journal() as journal:
        claim = await world.claim()
        writer = await journal.write(claim)
        world.store.gate.clear()
        await writer.put("delta", {"n": 0})
        await world.store.is_asked.wait()
        await writer.put("delta", {"n": 1})  # while the first is under way
        world.store.error = cause
        world.store.gate.set()
        with pytest.raises(error, match="'run-1'"):
            await writer.flush()
        world.store.error = None
        with pytest.raises(error):
            await writer.put("delta", {"n": 2})
        await asyncio.sleep(POLL_S)  # what was refused is not stored later either
        writer.close()
        assert await world.stored() == []

        again = await journal.write(claim)
        await again.put("delta", {"n": 0})
        await again.flush()
    assert await world.stored() == [0]


async def test_writer_waits_when_too_much_is_pending() -> None:
    world = World()
    async with world.journal() as journal:
        writer = await journal.write(await world.claim())
        world.store.gate.clear()

        async def write() -> None:
            for number in range(5000):
                await writer.put("delta", {"n": number})

        writing = asyncio.create_task(write())
        await asyncio.sleep(0.05)
        assert not writing.done()
        world.store.gate.set()
        await writing
        await writer.flush()

    assert await world.stored() == list(range(5000))


async def test_new_writer_begins_behind_what_the_former_had_under_way() -> None:
    world = World()
    async with world.journal() as journal:
        claim = await world.claim()
        former = await journal.write(claim)
        world.store.gate.clear()
        await former.put("delta", {"n": 0})
        await world.store.is_asked.wait()
        former.close()
        opening = asyncio.create_task(journal.write(claim))
        await asyncio.sleep(POLL_S)
        world.store.gate.set()
        writer = await opening
        await writer.put("delta", {"n": 1})
        await writer.flush()

    assert await world.stored() == [0, 1]


async def test_new_writer_takes_the_place_of_one_that_has_not_left() -> None:
    world = World()
    async with world.journal() as journal:
        claim = await world.claim()
        former = await journal.write(claim)
        await former.put("delta", {"of": "former"})
        writer = await journal.write(claim)
        former.close()
        await writer.put("delta", {"of": "new"})

        assert [event.data for event in await hear(journal, 1)] == [b'{"of":"new"}']
    assert await world.stored() == [0]


async def test_newer_claim_of_the_same_process_ends_the_older_writer() -> None:
    world = World()
    async with world.journal() as journal:
        old_claim = await world.claim()
        old = await journal.write(old_claim)
        new = await journal.write(await world.claim())
        listening = asyncio.create_task(hear(journal, 1))

        with pytest.raises(LeaseLostError):
            await old.put("delta", {"of": "old"})
        old.close()
        with pytest.raises(LeaseLostError):
            await journal.write(old_claim)
        await new.put("delta", {"of": "new"})

        assert [event.data for event in await listening] == [b'{"of":"new"}']


async def test_numbers_of_a_transaction_that_failed_are_given_anew() -> None:
    world = World()
    async with world.journal() as journal:
        writer = await journal.write(await world.claim())
        await writer.put("delta", {})
        await writer.number([("completed", {}), ("done", b"[DONE]")], ends=True)
        new = await writer.number([("failed", {}), ("done", b"[DONE]")], ends=True)
        await world.store.insert(new, now_s=0)
        writer.show(new)

        assert await heard(journal) == [0, 1, 2]


async def test_what_was_stored_and_not_shown_is_heard_once_its_writer_has_left() -> None:
    world = World()
    async with world.journal() as journal:
        writer = await journal.write(await world.claim())
        listening = asyncio.create_task(heard(journal))
        new = await writer.number([("done", b"[DONE]")], ends=True)
        await world.store.insert(new, now_s=0)
        await asyncio.sleep(POLL_S)
        assert not listening.done()
        writer.close()

        assert await listening == [0]


async def test_body_that_is_no_json_leaves_no_gap() -> None:
    world = World()
    async with world.journal() as journal:
        writer = await journal.write(await world.claim())
        with pytest.raises(TypeError):
            await writer.put("delta", {"bad": object()})  # type: ignore[dict-item]  # the fault
        await writer.put("delta", {})
        await writer.flush()

    assert await world.stored() == [0]


async def test_listener_outlasts_a_database_that_is_away() -> None:
    world = World()
    async with world.journal() as here, world.journal() as there:
        claim = await world.claim()
        world.store.error = StorageError("It is away.")
        listening = [asyncio.create_task(heard(journal)) for journal in (here, there)]
        await asyncio.sleep(POLL_S * 5)
        world.store.error = None
        await end(world, await here.write(claim))

        assert await asyncio.gather(*listening) == [[0], [0]]


async def test_streams_that_are_old_are_swept_away() -> None:
    world = World()
    claim = await world.claim()
    async with world.journal() as journal:
        await end(world, await journal.write(claim))
    await world.jobs.rest(claim, Rest())
    world.clock.advance(100)

    async with world.journal(JournalConfig(keep_s=99, sweep_every_s=POLL_S)):
        async with asyncio.timeout(10):
            while await world.stored():  # noqa: ASYNC110  # what is waited for has no event
                await asyncio.sleep(POLL_S)


class Play:
    """One stream that two processes write in turn, and its listeners in both."""

    def __init__(self, world: World, journals: tuple[Journal, Journal]) -> None:
        self._world = world
        self._journals = journals
        self._writer: StreamWriter | None = None
        self._listeners: list[tuple[int, asyncio.Task[list[int]]]] = []

    async def put(self, count: int) -> None:
        writer = await self._current()
        for number in range(count):
            await writer.put("delta", {"n": number})

    async def number(self, count: int) -> None:
        writer = await self._current()
        new = await writer.number([("event", {})] * count)
        await self._world.store.insert(new, now_s=0)
        writer.show(new)

    async def move(self, where: int) -> None:
        """Let another worker take the job over, while what was put may be under way."""
        claim = await self._world.claim()
        if self._writer is not None:
            self._writer.close()
        self._writer = await self._journals[where % 2].write(claim)

    async def listen(self, after: int) -> None:
        listener = heard(self._journals[after % 2], after=after - 1)
        self._listeners.append((after - 1, asyncio.create_task(listener)))

    async def wait(self, pause: int) -> None:
        await asyncio.sleep(POLL_S if pause > 10 else 0)

    async def check(self) -> None:
        await end(self._world, await self._current())
        stored = await self._world.stored()
        assert stored == list(range(len(stored)))
        for after, listener in self._listeners:
            if after < stored[-1]:
                assert await listener == stored[after + 1 :]
            else:
                listener.cancel()

    async def _current(self) -> StreamWriter:
        if self._writer is None:
            await self.move(0)
        assert self._writer is not None
        return self._writer


STEPS = st.tuples(
    st.sampled_from([Play.put, Play.number, Play.move, Play.listen, Play.wait]), st.integers(0, 20)
)


@given(st.lists(STEPS, max_size=30))
@settings(max_examples=100, deadline=None)
def test_listeners_hear_what_is_stored_in_order_whatever_becomes_of_writers(
    steps: list[tuple[Callable[[Play, int], Awaitable[None]], int]],
) -> None:
    async def run() -> None:
        world = World()
        async with world.journal() as one, world.journal() as two:
            play = Play(world, (one, two))
            for act, size in steps:
                await act(play, size)
            await play.check()

    asyncio.run(run())
