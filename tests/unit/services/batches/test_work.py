from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from openworks.core.errors import (
    AppError,
    EngineCrashedError,
    InternalError,
    ModelUnavailableError,
    RateLimitError,
    StorageError,
)
from openworks.core.ids import KeyId
from openworks.ports.batches import LineAnswer, LineRequest
from openworks.ports.calls import Principal, Usage
from openworks.services.batches.batches import BatchesConfig
from tests.unit.services.batches.world import MINE, Dying, Killed, World, line, said

NAMES = [f"n{number}" for number in range(12)]


def failing(*errors: AppError) -> Callable[[LineRequest], object]:
    """Fail so often, then answer."""
    left = list(errors)

    async def plan(request: LineRequest) -> LineAnswer:
        if left:
            raise left.pop(0)
        return said("at last")

    return plan


async def never(request: LineRequest) -> LineAnswer:
    await asyncio.get_running_loop().create_future()
    raise AssertionError


async def refused(request: LineRequest) -> LineAnswer:
    return said("no", status=400)


async def test_every_line_is_answered_in_the_order_of_the_input() -> None:
    world = World()
    claim = await world.add(*map(line, NAMES))

    await world.work().work(claim)

    batch = await world.batch()
    assert batch.status == "completed"
    assert (batch.num_lines, batch.num_completed, batch.num_failed) == (12, 12, 0)
    assert (batch.model, batch.usage) == ("m", Usage(prompt_tokens=24, completion_tokens=12))
    assert list(batch.reached_at_s) == ["in_progress", "finalizing", "completed"]
    assert batch.error_file_id is None
    output = await world.output()
    assert [each["custom_id"] for each in output] == [f"id-{name}" for name in NAMES]
    assert output[1] == {
        "id": "batch_req_1-2",
        "custom_id": "id-n1",
        "response": {"status_code": 200, "request_id": "req_1-2", "body": {"said": "n1"}},
        "error": None,
    }
    assert not world.jobs.jobs
    assert await world.store.list_results("batch_1") == []


async def test_output_is_a_file_of_the_account_with_the_life_that_was_asked_for() -> None:
    world = World()
    claim = await world.add(line("a"), output_ttl_s=3600)

    await world.work().work(claim)

    file = world.file_store.files[(await world.batch()).output_file_id or ""]
    assert (file.account_id, file.purpose) == (MINE, "batch_output")
    assert file.filename == "batch_1_output.jsonl"
    assert file.expires_at_s == file.created_at_s + 3600


async def test_lines_are_answered_in_the_name_of_the_key_that_made_the_batch() -> None:
    world = World()
    claim = await world.add(line("a"), key_id=KeyId("k"), allowed_models=frozenset({"m"}))

    await world.work().work(claim)

    assert world.answerer.principals == {
        Principal(
            account_id=MINE,
            key_id=KeyId("k"),
            scopes=frozenset({"inference"}),
            allowed_models=frozenset({"m"}),
        )
    }


async def test_refused_lines_are_in_the_file_of_errors() -> None:
    world = World()
    world.answerer.plans["b"] = refused
    claim = await world.add(line("a"), line("b"), line("c"))

    await world.work().work(claim)

    batch = await world.batch()
    assert (batch.status, batch.num_completed, batch.num_failed) == ("completed", 2, 1)
    assert [each["custom_id"] for each in await world.output()] == ["id-a", "id-c"]
    (error,) = await world.errors()
    assert (error["custom_id"], error["error"]) == ("id-b", None)
    assert error["response"]["status_code"] == 400


async def test_batch_of_refused_lines_alone_has_no_output() -> None:
    world = World()
    world.answerer.plans["a"] = refused
    claim = await world.add(line("a"))

    await world.work().work(claim)

    batch = await world.batch()
    assert (batch.status, batch.output_file_id) == ("completed", None)
    assert len(await world.errors()) == 1


async def test_empty_lines_are_passed_over_and_counted_in_line_numbers() -> None:
    world = World()
    claim = await world.add(b"", line("a"), b"  ", b"\r", line("b"), b"")

    await world.work().work(claim)

    assert (await world.batch()).num_lines == 2
    assert [each["id"] for each in await world.output()] == ["batch_req_1-2", "batch_req_1-5"]


async def test_input_that_is_wrong_fails_before_any_line_is_answered() -> None:
    world = World()
    claim = await world.add(line("a"), line("a"), line("b", url="/v1/embeddings"))

    await world.work().work(claim)

    batch = await world.batch()
    assert (batch.status, batch.num_lines) == ("failed", 0)
    assert [(error["line"], error["param"]) for error in batch.errors] == [
        (2, "custom_id"),
        (3, "url"),
    ]
    assert not world.answerer.asked
    assert not world.jobs.jobs


async def test_model_that_is_not_there_fails_the_batch_at_the_first_line() -> None:
    world = World()
    world.answerer.missing_models.add("m")
    claim = await world.add(b"", line("a"), line("b"))

    await world.work().work(claim)

    (error,) = (await world.batch()).errors
    assert error["code"] == "model_not_found"
    assert (error["line"], error["param"]) == (2, "body.model")


async def test_input_that_was_deleted_fails_the_batch_with_what_was_answered() -> None:
    world = World()
    claim = await world.add(line("a"), line("b"))
    world.answerer.plans["b"] = never
    work = asyncio.create_task(world.work().work(claim))
    await until_answered(world, 1)
    await stop(work)
    await world.file_store.delete(MINE, "file-in-1")

    await world.work().work(await world.claim_again())

    batch = await world.batch()
    assert (batch.status, batch.errors[0]["code"]) == ("failed", "file_not_found")
    assert [each["custom_id"] for each in await world.output()] == ["id-a"]


async def test_no_more_lines_than_allowed_are_under_way() -> None:
    world = World(config=BatchesConfig(max_lines=3))
    claim = await world.add(*(line(f"n{number}") for number in range(200)))

    await world.work().work(claim)

    assert world.answerer.most_running == 3
    assert (await world.batch()).num_completed == 200


async def test_answers_of_any_size_come_back() -> None:
    world = World()
    large = "x" * 3_000_000

    async def much(request: LineRequest) -> LineAnswer:
        return said(large)

    world.answerer.plans |= {"b": much, "c": much, "e": much}
    claim = await world.add(*map(line, "abcdef"))

    await world.work().work(claim)

    found = [each["response"]["body"]["said"] for each in await world.output()]
    assert found == ["a", large, large, "d", large, "f"]


@pytest.mark.parametrize(
    "errors",
    [
        [RateLimitError("Later.", retry_after_s=7.0)] * 50,
        [ModelUnavailableError("Not yet.")] * 9,
        [EngineCrashedError("It died.")] * 2,
    ],
    ids=["limits as long as they last", "a model that loads", "crashes of others"],
)
async def test_line_that_may_go_better_later_is_tried_again(errors: list[AppError]) -> None:
    world = World()
    world.answerer.plans["a"] = failing(*errors)  # type: ignore[assignment] # one of its shape
    claim = await world.add(line("a"), line("b"))

    await world.work().work(claim)

    assert (await world.batch()).num_completed == 2
    assert world.answerer.asked["a"] == len(errors) + 1
    assert all(pause_s <= 60 for pause_s in world.clock.slept_s)


@pytest.mark.parametrize(
    ("error", "tries"), [(EngineCrashedError("It died."), 3), (StorageError("Full."), 10)]
)
async def test_line_that_never_goes_better_is_refused(error: AppError, tries: int) -> None:
    world = World()
    world.answerer.plans["a"] = failing(*[error] * 100)  # type: ignore[assignment] # as above
    claim = await world.add(line("a"), line("b"))

    await world.work().work(claim)

    batch = await world.batch()
    assert (batch.status, batch.num_completed, batch.num_failed) == ("completed", 1, 1)
    assert world.answerer.asked["a"] == tries
    assert (await world.errors())[0]["response"]["body"] == {"error": {"message": error.message}}


@pytest.mark.parametrize("is_after", [False, True])
async def test_batch_survives_a_death_at_any_call_of_the_store(is_after: bool) -> None:
    num_deaths = 0
    for at in range(1, 100):
        world = World()
        world.answerer.plans["n3"] = refused
        claim = await world.add(*map(line, NAMES))
        dying = Dying(world.store, at=at, is_after=is_after)
        try:
            await world.work(dying).work(claim)
        except Killed:
            num_deaths += 1
        else:
            break
        kept = {each.number for each in await world.store.list_results("batch_1")}
        world.answerer.asked.clear()

        if world.jobs.jobs:
            await world.work().work(await world.claim_again())

        again = {int(name[1:]) + 1 for name in world.answerer.asked}
        assert not again & kept, f"call {at}"
        batch = await world.batch()
        assert (batch.status, batch.num_completed, batch.num_failed) == ("completed", 11, 1)
        told = [each["custom_id"] for each in [*await world.output(), *await world.errors()]]
        assert sorted(told) == sorted(f"id-{name}" for name in NAMES), f"call {at}"
    assert num_deaths > 8


async def test_batch_that_is_killed_again_and_again_is_not_given_up() -> None:
    world = World()
    world.answerer.plans["a"] = never
    claim = await world.add(line("a"))
    for _ in range(10):
        work = asyncio.create_task(world.work().work(claim))
        await until(lambda: bool(world.answerer.asked["a"]))
        await stop(work)
        world.answerer.asked.clear()
        claim = await world.claim_again()

    assert claim.attempt == 2


async def test_cancelled_batch_keeps_what_was_answered() -> None:
    world = World()
    claim = await world.add(*map(line, "abc"))
    world.answerer.plans |= {"b": never}
    work = world.work()
    task = asyncio.create_task(work.work(claim))
    await until_answered(world, 2)
    await world.store.begin_cancel(MINE, "batch_1", at_s=world.clock.now_s())
    await stop(task)

    await work.cancel(claim)

    batch = await world.batch()
    assert (batch.status, batch.num_completed, batch.num_failed) == ("cancelled", 2, 0)
    assert [each["custom_id"] for each in await world.output()] == ["id-a", "id-c"]
    (error,) = await world.errors()
    assert (error["custom_id"], error["response"]) == ("id-b", None)
    assert error["error"]["code"] == "batch_cancelled"


async def test_batch_that_was_to_be_cancelled_before_a_restart_is_cancelled() -> None:
    world = World()
    claim = await world.add(line("a"))
    await world.store.begin_cancel(MINE, "batch_1", at_s=world.clock.now_s())

    await world.work().work(claim)

    batch = await world.batch()
    assert batch.status == "cancelled"
    assert (batch.output_file_id, batch.error_file_id) == (None, None)


async def test_expired_batch_keeps_what_was_answered() -> None:
    world = World()
    claim = await world.add(*map(line, "abc"), expires_at_s=world.clock.now_s() + 0.05)
    world.answerer.plans |= {"b": never}

    await world.work().work(claim)

    batch = await world.batch()
    assert (batch.status, batch.num_completed) == ("expired", 2)
    assert [each["custom_id"] for each in await world.output()] == ["id-a", "id-c"]
    (error,) = await world.errors()
    assert (error["custom_id"], error["error"]["code"]) == ("id-b", "batch_expired")


async def test_batch_whose_time_ran_out_while_no_server_ran_expires_at_once() -> None:
    world = World()
    await world.add(line("a"))
    world.clock.advance(90_000)

    await world.work().work(await world.claim_again())

    assert (await world.batch()).status == "expired"
    assert not world.answerer.asked


async def test_batch_that_is_given_up_says_why_and_keeps_what_was_answered() -> None:
    world = World()
    world.answerer.plans["b"] = never
    claim = await world.add(line("a"), line("b"))
    task = asyncio.create_task(world.work().work(claim))
    await until_answered(world, 1)
    await stop(task)

    await world.work().give_up(claim, InternalError("It was begun in vain."))

    batch = await world.batch()
    assert (batch.status, batch.errors[0]["message"]) == ("failed", "It was begun in vain.")
    assert [each["custom_id"] for each in await world.output()] == ["id-a"]


async def test_batches_beyond_the_limit_wait_and_take_turns() -> None:
    world = World(config=BatchesConfig(max_lines=1, max_batches=1))
    gate = asyncio.Event()

    async def held(request: LineRequest) -> LineAnswer:
        await gate.wait()
        return said("held")

    world.answerer.plans["a"] = held
    first = await world.add(line("a"), *(line(f"n{number}") for number in range(200)))
    second = await world.add(line("z"))
    work = world.work()
    task = asyncio.create_task(work.work(first))
    await until(lambda: bool(world.answerer.asked["a"]))

    await work.work(second)
    assert not world.answerer.asked["z"]
    world.clock.advance(61)
    gate.set()
    await task

    assert (await world.batch()).status == "in_progress"  # it has made room
    while world.jobs.jobs:
        await work.work(await world.claim_again())
    assert (await world.batch("batch_1")).num_completed == 201
    assert (await world.batch("batch_2")).num_completed == 1
    assert set(world.answerer.asked.values()) == {1}


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0)


async def until_answered(world: World, number: int) -> None:
    async with asyncio.timeout(10):
        while len(await world.store.list_results("batch_1")) < number:  # noqa: ASYNC110  # as above
            await asyncio.sleep(0)


async def stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
