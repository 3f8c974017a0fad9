from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openworks.core.errors import (
    AppError,
    EngineOverloadedError,
    LeaseLostError,
    ModelUnavailableError,
    StorageError,
)
from openworks.core.ids import AccountId
from openworks.ports.jobs import Claim, Lease, Rest
from openworks.services.workers import Workers, WorkersConfig
from tests.fake_work import MemoryJobStore
from tests.fakes import CountingIds, FakeClock

MINE = AccountId("acct-mine")
LEASE_S = 0.05
"""Of the fake clock; claims are renewed every hundredth of a real second."""
SOON_S = 0.002
LATER_S = 1e6
Act = Callable[[Claim], Awaitable[None]]


class Handler:
    """Does what each job's script says, one act an attempt, and then puts it to rest."""

    def __init__(self, store: MemoryJobStore, **scripts: Sequence[Act]) -> None:
        self._store = store
        self._scripts = {name: list(script) for name, script in scripts.items()}
        self.attempts: list[Claim] = []
        self.log: list[str] = []
        self.errors: list[AppError] = []
        self.stalls_at_cancel = False

    async def work(self, claim: Claim) -> None:
        self.attempts.append(claim)
        self.log.append(f"{claim.subject_id} begins")
        try:
            script = self._scripts.get(claim.subject_id.replace("-", "_"))
            if script:
                await script.pop(0)(claim)
            await self._rest(claim, "done")
        finally:
            self.log.append(f"{claim.subject_id} stops")

    async def cancel(self, claim: Claim) -> None:
        self.log.append(f"{claim.subject_id} is to be cancelled")
        if self.stalls_at_cancel:
            await forever(claim)
        await self._rest(claim, "cancelled")

    async def give_up(self, claim: Claim, error: AppError) -> None:
        self.errors.append(error)
        await self._rest(claim, "given up")

    async def _rest(self, claim: Claim, how: str) -> None:
        await self._store.rest(claim, Rest())
        self.log.append(f"{claim.subject_id} {how}")


class World:
    """A store and a handler, and any number of workers that share them."""

    def __init__(self, **scripts: Sequence[Act]) -> None:
        self.clock = FakeClock()
        self.store = MemoryJobStore()
        self.handler = Handler(self.store, **scripts)
        self._new_id = CountingIds()

    def workers(
        self, *, max_jobs: int = 10, look_every_s: float = SOON_S, max_attempts: int = 3
    ) -> Workers:
        config = WorkersConfig(
            max_jobs=max_jobs,
            lease_s=LEASE_S,
            look_every_s=look_every_s,
            max_attempts=max_attempts,
            retry_after_s=1.0,
        )
        return Workers(
            self.store, {"run": self.handler}, config, clock=self.clock, new_id=self._new_id
        )

    @asynccontextmanager
    async def working(self, workers: Workers | None = None) -> AsyncIterator[Workers]:
        workers = workers or self.workers()
        workers.open()
        try:
            yield workers
        finally:
            await workers.close()

    async def begin(self, workers: Workers, name: str = "run-1") -> None:
        job = workers.new_job("run", name, MINE)
        await self.store.insert(job)
        workers.begin(job)

    async def until(self, *lines: str) -> None:
        await until(lambda: set(lines) <= set(self.handler.log))

    async def until_in_time(self, line: str) -> None:
        """Let time pass whenever nobody works."""

        def is_so() -> bool:
            if all(job.worker is None for job in self.store.jobs.values()):
                self.clock.advance(0.5)
            return line in self.handler.log

        await until(is_so)

    async def until_due_in(self, seconds: float) -> None:
        """Wait until the only job is due after a pause."""
        due_at_s = self.clock.now_s() + seconds
        await until(lambda: [job.due_at_s for job in self.store.jobs.values()] == [due_at_s])

    async def until_renewed(self) -> None:
        """Wait until the only job's lease has its whole length again."""
        (job,) = self.store.jobs.values()
        await until(lambda: job.leased_until_s == self.clock.now_s() + LEASE_S)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0.001)


async def forever(_: Claim) -> None:
    await asyncio.Event().wait()


async def fails(_: Claim) -> None:
    raise ModelUnavailableError("The model is away.")


async def breaks(_: Claim) -> None:
    raise ValueError("a fault of ours")


async def test_job_that_is_begun_is_brought_to_rest() -> None:
    world = World()
    async with world.working() as workers:
        await world.begin(workers)
        await world.until("run-1 done")

    assert world.handler.log == ["run-1 begins", "run-1 done", "run-1 stops"]
    assert world.store.jobs == {}


async def test_job_for_which_there_is_no_room_waits_for_it() -> None:
    is_over = asyncio.Event()

    async def waits(_: Claim) -> None:
        await is_over.wait()

    world = World(run_1=[waits])
    async with world.working(world.workers(max_jobs=1, look_every_s=LATER_S)) as workers:
        await world.begin(workers, "run-1")
        await world.begin(workers, "run-2")
        await workers.resume("run", "run-2")
        await world.until("run-1 begins")
        assert "run-2 begins" not in world.handler.log

        is_over.set()
        await world.until("run-1 done", "run-2 done")

    assert world.handler.log.index("run-1 stops") < world.handler.log.index("run-2 begins")


async def test_job_of_a_dead_server_is_taken_over() -> None:
    world = World()
    job = world.workers().new_job("run", "run-1", MINE)
    await world.store.insert(job)

    async with world.working():
        await asyncio.sleep(SOON_S * 3)
        assert world.handler.log == []
        world.clock.advance(LEASE_S)
        await world.until("run-1 done")

    assert [claim.token for claim in world.handler.attempts] == [2]


async def test_parked_job_is_worked_on_when_it_is_resumed() -> None:
    world = World()
    async with world.working(world.workers(look_every_s=LATER_S)) as workers:
        await world.store.insert(workers.new_job("run", "run-1", MINE, due_at_s=2e9))
        await workers.resume("run", "run-1")
        await workers.resume("run", "run-2")

        await world.until("run-1 done")


async def test_cancelled_job_ends_once_its_work_has_stopped() -> None:
    world = World(run_1=[forever])
    async with world.working() as workers:
        await world.begin(workers)
        await world.until("run-1 begins")

        assert await workers.cancel("run", "run-1")
        await world.until("run-1 cancelled")

    order = [line for line in world.handler.log if line != "run-1 is to be cancelled"]
    assert order == ["run-1 begins", "run-1 stops", "run-1 cancelled"]


async def test_job_is_cancelled_from_another_server() -> None:
    world = World(run_1=[forever])
    async with world.working() as here:
        await world.begin(here)
        await world.until("run-1 begins")

        assert await world.workers().cancel("run", "run-1")
        await world.until("run-1 cancelled")


async def test_parked_job_is_cancelled_without_work() -> None:
    world = World()
    async with world.working(world.workers(look_every_s=LATER_S)) as workers:
        await world.store.insert(workers.new_job("run", "run-1", MINE, due_at_s=2e9))

        assert await workers.cancel("run", "run-1")
        await world.until("run-1 cancelled")

    assert world.handler.attempts == []


async def test_cancelling_what_has_no_job_says_so() -> None:
    world = World()
    async with world.working() as workers:
        assert not await workers.cancel("run", "run-1")


async def test_wish_that_comes_too_late_changes_nothing() -> None:
    is_reached = asyncio.Event()

    async def ends_by_itself(claim: Claim) -> None:
        await world.store.rest(claim, Rest())
        is_reached.set()
        await forever(claim)

    world = World(run_1=[ends_by_itself])
    async with world.working() as workers:
        await world.begin(workers)
        await is_reached.wait()

        assert not await workers.cancel("run", "run-1")
        await world.until("run-1 stops")

    assert world.handler.log == ["run-1 begins", "run-1 stops"]


async def test_job_that_fails_is_tried_again_after_longer_and_longer() -> None:
    world = World(run_1=[fails, fails])
    async with world.working() as workers:
        await world.begin(workers)
        for pause_s in (1.0, 2.0):
            await world.until_due_in(pause_s)
            world.clock.advance(pause_s)
        await world.until("run-1 done")

    assert [claim.attempt for claim in world.handler.attempts] == [1, 2, 3]


async def test_job_that_fails_too_often_is_given_up_with_its_last_error() -> None:
    world = World(run_1=[fails, fails, fails])
    async with world.working() as workers:
        await world.begin(workers)
        await world.until_in_time("run-1 given up")

    assert [error.message for error in world.handler.errors] == ["The model is away."]
    assert len(world.handler.attempts) == 3


async def test_job_waits_for_as_long_as_the_engine_is_full() -> None:
    async def is_refused(claim: Claim) -> None:
        raise EngineOverloadedError("The queue is full.")

    world = World(run_1=[is_refused] * 10)
    async with world.working() as workers:
        await world.begin(workers)
        await world.until_in_time("run-1 done")

    assert world.handler.errors == []
    assert {claim.attempt for claim in world.handler.attempts} == {1}


async def test_job_that_kills_its_server_is_given_up_without_another_attempt() -> None:
    world = World()
    await world.store.insert(world.workers().new_job("run", "run-1", MINE))
    for worker in ("w-2", "w-3"):
        world.clock.advance(LEASE_S)
        lease = Lease(worker=worker, until_s=world.clock.now_s() + LEASE_S)
        await world.store.claim_due(["run"], lease, now_s=world.clock.now_s(), limit=1)
    world.clock.advance(LEASE_S)

    async with world.working():
        await world.until("run-1 given up")

    assert [error.message for error in world.handler.errors] == [
        "The work was begun 3 times in vain."
    ]
    assert world.handler.attempts == []


async def test_fault_of_ours_ends_one_attempt_and_no_other_job(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(run_1=[breaks])
    async with world.working() as workers:
        await world.begin(workers, "run-1")
        await world.begin(workers, "run-2")
        await world.until("run-1 stops", "run-2 done")
        await world.until_due_in(1.0)
        world.clock.advance(1)
        await world.until("run-1 done")

    (record,) = caplog.records
    assert record.getMessage() == "job.failed"
    assert record.exc_info is not None


async def test_progress_lets_attempts_count_anew() -> None:
    async def gets_on_and_fails(claim: Claim) -> None:
        await world.store.hold(claim, is_progress=True)
        await fails(claim)

    world = World(run_1=[fails, fails, gets_on_and_fails, fails])
    async with world.working() as workers:
        await world.begin(workers)
        await world.until_in_time("run-1 done")

    assert [claim.attempt for claim in world.handler.attempts] == [1, 2, 3, 2, 3]


async def test_work_stops_when_another_server_has_its_lease() -> None:
    world = World(run_1=[forever])
    async with world.working() as workers:
        await world.begin(workers)
        await world.until("run-1 begins")
        job = world.store.jobs["run", "run-1"]
        job.take(Lease(worker="another", until_s=2e9))

        await world.until("run-1 stops")

    assert world.handler.log == ["run-1 begins", "run-1 stops"]
    assert (job.worker, job.leased_until_s) == ("another", 2e9)


async def test_job_that_is_deleted_stops() -> None:
    world = World(run_1=[forever])
    async with world.working() as workers:
        await world.begin(workers)
        await world.until("run-1 begins")
        await world.store.delete("run", "run-1")

        await world.until("run-1 stops")


async def test_leases_are_kept_while_work_goes_on() -> None:
    world = World(run_1=[forever])
    async with world.working() as workers:
        await world.begin(workers)
        for _ in range(5):
            world.clock.advance(LEASE_S * 0.9)
            await world.until_renewed()

    assert [claim.attempt for claim in world.handler.attempts] == [1]


async def test_closing_gives_jobs_back_at_once_and_counts_no_attempt() -> None:
    world = World(run_1=[forever])
    async with world.working() as workers:
        await world.begin(workers)
        await world.until("run-1 begins")

    assert world.handler.log == ["run-1 begins", "run-1 stops"]
    async with world.working():
        await world.until("run-1 done")
    assert [claim.attempt for claim in world.handler.attempts] == [1, 1]


async def test_job_that_is_being_cancelled_when_the_server_closes_is_given_back() -> None:
    world = World(run_1=[forever])
    async with world.working() as workers:
        await world.begin(workers)
        await world.until("run-1 begins")
        world.handler.stalls_at_cancel = True
        await workers.cancel("run", "run-1")
        await world.until("run-1 is to be cancelled")
    assert "run-1 cancelled" not in world.handler.log

    world.handler.stalls_at_cancel = False
    async with world.working():
        await world.until("run-1 cancelled")


async def test_wish_is_heard_once_however_long_it_takes() -> None:
    world = World(run_1=[forever])
    world.handler.stalls_at_cancel = True
    async with world.working(world.workers(look_every_s=LATER_S)) as workers:
        await world.store.insert(workers.new_job("run", "run-1", MINE, due_at_s=2e9))
        await workers.cancel("run", "run-1")
        await world.until("run-1 is to be cancelled")
        for _ in range(3):  # its claim is renewed meanwhile, and tells of the wish again
            world.clock.advance(LEASE_S / 2)
            await world.until_renewed()

    assert world.handler.log == ["run-1 is to be cancelled"]


async def test_lent_job_is_kept_while_its_caller_works() -> None:
    world = World()
    async with world.working() as workers:
        job = workers.new_job("run", "run-1", MINE, is_lent=True)
        await world.store.insert(job)

        async with workers.lend(job):
            world.clock.advance(LEASE_S / 2)
            await world.until_renewed()
            await world.store.rest(job.claim, Rest())

    assert world.handler.log == []


async def test_lent_job_needs_no_place_of_its_own() -> None:
    workers = World().workers(max_jobs=1)
    first = workers.new_job("run", "run-1", MINE, is_lent=True)

    async with workers.lend(first):
        assert workers.new_job("run", "run-2", MINE, is_lent=True).lease is not None
        assert workers.new_job("run", "run-3", MINE).lease is None


async def test_caller_hears_that_a_lent_job_is_somebody_else_s() -> None:
    world = World()
    async with world.working() as workers:
        job = workers.new_job("run", "run-1", MINE, is_lent=True)
        await world.store.insert(job)

        async def work() -> None:
            async with workers.lend(job):
                await world.store.delete("run", "run-1")
                await asyncio.Event().wait()

        with pytest.raises(LeaseLostError, match="run-1"):
            await work()


async def test_nothing_begins_once_the_server_closes() -> None:
    world = World()
    async with world.working() as workers:
        begun_late = workers.new_job("run", "run-1", MINE)
    await world.store.insert(begun_late)
    workers.begin(begun_late)
    await world.begin(workers, "run-2")
    await workers.resume("run", "run-2")
    await asyncio.sleep(SOON_S)
    assert world.handler.log == []

    world.clock.advance(LEASE_S)
    async with world.working():
        await world.until("run-1 done", "run-2 done")


async def test_database_that_is_away_for_a_while_costs_an_attempt_and_no_job() -> None:
    async def loses_the_database(claim: Claim) -> None:
        world.store.error = StorageError("The database is away.")
        await world.store.hold(claim)

    world = World(run_1=[loses_the_database])
    async with world.working() as workers:
        await world.begin(workers)
        await world.until("run-1 stops")
        world.clock.advance(60)
        await asyncio.sleep(SOON_S * 5)
        world.store.error = None
        await world.until("run-1 done")

    assert [claim.attempt for claim in world.handler.attempts] == [1, 2]


SCRIPTS = st.lists(
    st.lists(st.sampled_from(["fails", "breaks", "stalls", "gets on"]), max_size=6),
    min_size=1,
    max_size=5,
)


@given(SCRIPTS)
@settings(max_examples=25, deadline=None)
def test_every_job_comes_to_rest_exactly_once(scripts: list[list[str]]) -> None:
    async def stalls(claim: Claim) -> None:
        world.clock.advance(LEASE_S)
        await asyncio.sleep(SOON_S * 3)
        await world.store.hold(claim)

    async def gets_on(claim: Claim) -> None:
        await world.store.hold(claim, is_progress=True)
        await fails(claim)

    acts: dict[str, Act] = {
        "fails": fails,
        "breaks": breaks,
        "stalls": stalls,
        "gets on": gets_on,
    }
    names = [f"run-{number}" for number in range(len(scripts))]
    world = World(
        **{
            name.replace("-", "_"): [acts[act] for act in script]
            for name, script in zip(names, scripts, strict=True)
        }
    )

    def pass_time_until_all_rest() -> bool:
        world.clock.advance(0.2)
        return not world.store.jobs

    async def run() -> None:
        async with world.working() as one, world.working():
            for name in names:
                await world.begin(one, name)
            await until(pass_time_until_all_rest)

    asyncio.run(run())

    ends = Counter(line for line in world.handler.log if line.endswith((" done", " given up")))
    assert sorted(line.split()[0] for line in ends.elements()) == names
