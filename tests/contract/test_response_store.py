"""Responses are kept, gone on from, ended and removed alike by every store of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from openworks.core.errors import ConflictError, LeaseLostError
from openworks.core.ids import AccountId, KeyId
from openworks.core.json import JsonObject
from openworks.core.pages import PageRequest
from openworks.ports.calls import Usage
from openworks.ports.conversations import Conversation
from openworks.ports.events import NewEvents, StreamEvent
from openworks.ports.jobs import Claim, Lease, NewJob
from openworks.ports.responses import Response
from tests.contract.conftest import OpenDatabase
from tests.contract.response_stores import ResponseStores, opened_stores

MINE, THEIRS = AccountId("acct-mine"), AccountId("acct-theirs")
NOW_S = 1_790_000_000.25
LEASE = Lease(worker="worker-1", until_s=NOW_S + 10)


@pytest.fixture
async def stores(adapter: str, open_database: OpenDatabase) -> AsyncIterator[ResponseStores]:
    async with opened_stores(adapter, open_database) as opened:
        yield opened


def a_response(id_: str = "resp-1", **fields: object) -> Response:
    response = Response(
        id=id_,
        account_id=MINE,
        key_id=None,
        route="/v1/responses",
        created_at_s=NOW_S,
        model="talker",
        settings={"instructions": "Be brief."},
        seed=7,
        status="in_progress",
    )
    return replace(response, **fields)  # type: ignore[arg-type] # names and values of its fields


def an_item(id_: str, text: str = "Hello") -> JsonObject:
    part: JsonObject = {"type": "input_text", "text": text}
    return {"id": id_, "type": "message", "role": "user", "content": [part]}


def job_of(response: Response, lease: Lease | None = LEASE) -> NewJob:
    return NewJob(
        kind="response",
        subject_id=response.id,
        account_id=response.account_id,
        due_at_s=NOW_S,
        lease=lease,
    )


def events_of(claim: Claim, *numbers: int) -> NewEvents:
    events = [StreamEvent(number=each, name="e", data=b"{}") for each in numbers]
    return NewEvents(claim=claim, events=events)


async def kept(stores: ResponseStores, response: Response, *input_ids: str) -> Claim:
    job = job_of(response)
    await stores.responses.insert(response, [an_item(each) for each in input_ids], job)
    return job.claim


async def ended(stores: ResponseStores, response: Response, *ids: str) -> None:
    """Keep a response that was asked with the first item and said the others."""
    claim = await kept(stores, response, ids[0])
    output = tuple(an_item(each) for each in ids[1:])
    done = replace(response, status="completed", output=output)
    await stores.responses.end(claim, done, events=None)


async def history(stores: ResponseStores, id_: str) -> list[object]:
    found = await stores.responses.history(MINE, id_)
    assert found is not None
    assert found.missing is None
    return [item["id"] for item in found.items]


async def is_worked_on(stores: ResponseStores, id_: str) -> bool:
    late = Lease(worker="worker-2", until_s=NOW_S + 1000)
    found = await stores.jobs.claim_one("response", id_, late, now_s=LEASE.until_s + 1)
    return found is not None


async def test_response_comes_back_as_it_was_kept(stores: ResponseStores) -> None:
    response = a_response(
        key_id=KeyId("key-1"),
        settings={"tools": [{"name": "größe\0"}], "top_p": None},
        is_background=True,
        previous_id="resp-0",
        status="queued",
        seed=2**40,
    )

    await kept(stores, response, "i-1")

    assert await stores.responses.get(MINE, "resp-1") == response


async def test_end_of_a_response_is_kept_with_its_output(stores: ResponseStores) -> None:
    response = a_response()
    claim = await kept(stores, response, "i-1")
    done = replace(
        response,
        status="incomplete",
        incomplete_reason="max_output_tokens",
        completed_at_s=NOW_S + 1,
        error={"code": "server_error", "message": "Grüße"},
        usage=Usage(prompt_tokens=3, completion_tokens=2, cached_tokens=1, reasoning_tokens=1),
        output=(an_item("o-1"), an_item("o-2", "世界")),
    )

    await stores.responses.end(claim, done, events=None)

    assert await stores.responses.get(MINE, "resp-1") == done
    assert not await is_worked_on(stores, "resp-1")


async def test_second_response_with_the_same_id_is_refused(stores: ResponseStores) -> None:
    await kept(stores, a_response(), "i-1")

    with pytest.raises(ConflictError, match="'resp-1'"):
        await stores.responses.insert(a_response(account_id=THEIRS), [], job_of(a_response()))


async def test_what_belongs_to_another_account_is_not_there(stores: ResponseStores) -> None:
    await ended(stores, a_response(), "i-1", "o-1")
    responses = stores.responses

    assert await responses.get(THEIRS, "resp-1") is None
    assert await responses.history(THEIRS, "resp-1") is None
    assert await responses.list_input(THEIRS, "resp-1", PageRequest()) is None
    assert await responses.find_items(THEIRS, ["i-1", "o-1"]) == {}
    assert not await responses.delete(THEIRS, "resp-1")

    assert await history(stores, "resp-1") == ["i-1", "o-1"]


async def test_history_goes_back_to_the_first_response(stores: ResponseStores) -> None:
    await ended(stores, a_response("resp-a"), "i-9", "o-9")
    await ended(stores, a_response("resp-c", previous_id="resp-a"), "i-5", "o-5", "o-4")
    await ended(stores, a_response("resp-b", previous_id="resp-c"), "i-7", "o-7")

    assert await history(stores, "resp-b") == ["i-9", "o-9", "i-5", "o-5", "o-4", "i-7", "o-7"]
    assert await history(stores, "resp-c") == ["i-9", "o-9", "i-5", "o-5", "o-4"]


async def test_history_is_not_another_account_s(stores: ResponseStores) -> None:
    await ended(stores, a_response("resp-a", account_id=THEIRS), "i-1", "o-1")
    await ended(stores, a_response("resp-b", previous_id="resp-a"), "i-2", "o-2")

    found = await stores.responses.history(MINE, "resp-b")

    assert found is not None
    assert (found.items, found.missing) == ((), "resp-a")


async def test_history_says_what_is_missing(stores: ResponseStores) -> None:
    await ended(stores, a_response("resp-a"), "i-1", "o-1")
    await ended(stores, a_response("resp-b", previous_id="resp-a"), "i-2", "o-2")
    await ended(stores, a_response("resp-c", previous_id="resp-b"), "i-3", "o-3")

    assert await stores.responses.delete(MINE, "resp-a")

    found = await stores.responses.history(MINE, "resp-c")
    assert found is not None
    assert (found.items, found.missing) == ((), "resp-a")


async def a_conversation(stores: ResponseStores, *ids: str) -> int:
    """Keep a conversation of items; return the place behind the last."""
    conversation = Conversation(id="conv-1", account_id=MINE, created_at_s=NOW_S)
    await stores.conversations.insert(conversation, [an_item(each) for each in ids])
    snapshot = await stores.conversations.snapshot(MINE, "conv-1")
    assert snapshot is not None
    return snapshot.position


async def conversation_ids(stores: ResponseStores) -> list[object]:
    snapshot = await stores.conversations.snapshot(MINE, "conv-1")
    assert snapshot is not None
    return [item["id"] for item in snapshot.items]


async def test_conversation_gets_input_and_output_together(stores: ResponseStores) -> None:
    position = await a_conversation(stores, "c-1")
    response = a_response(conversation_id="conv-1", conversation_position=position)
    claim = await kept(stores, response, "i-1", "i-2")
    assert await conversation_ids(stores) == ["c-1"]

    done = replace(response, status="completed", output=(an_item("o-1"),))
    await stores.responses.end(claim, done, events=None)

    assert await conversation_ids(stores) == ["c-1", "i-1", "i-2", "o-1"]


async def test_response_knows_the_conversation_as_it_was_when_it_began(
    stores: ResponseStores,
) -> None:
    position = await a_conversation(stores, "c-1", "c-2")
    response = a_response(conversation_id="conv-1", conversation_position=position)
    await kept(stores, response, "i-1")

    await stores.conversations.append(MINE, "conv-1", [an_item("c-3")])
    await stores.conversations.delete_item(MINE, "conv-1", "c-1")

    assert await history(stores, "resp-1") == ["c-2", "i-1"]


@pytest.mark.parametrize("status", ["cancelled", "failed"])
async def test_response_without_an_answer_leaves_its_conversation_alone(
    stores: ResponseStores, status: str
) -> None:
    position = await a_conversation(stores, "c-1")
    response = a_response(conversation_id="conv-1", conversation_position=position)
    claim = await kept(stores, response, "i-1")

    await stores.responses.end(claim, a_response(status=status), events=None)

    assert await conversation_ids(stores) == ["c-1"]


async def test_response_outlives_its_conversation(stores: ResponseStores) -> None:
    position = await a_conversation(stores, "c-1")
    response = a_response(conversation_id="conv-1", conversation_position=position)
    claim = await kept(stores, response, "i-1")
    await stores.conversations.delete(MINE, "conv-1")

    await stores.responses.end(claim, replace(response, status="completed"), events=None)

    found = await stores.responses.get(MINE, "resp-1")
    assert found is not None
    assert found.status == "completed"
    gone = await stores.responses.history(MINE, "resp-1")
    assert gone is not None
    assert gone.missing == "conv-1"


async def test_input_is_listed_without_the_output(stores: ResponseStores) -> None:
    response = a_response()
    claim = await kept(stores, response, "i-2", "i-1", "i-3")
    done = replace(response, status="completed", output=(an_item("o-1"),))
    await stores.responses.end(claim, done, events=None)

    page = await stores.responses.list_input(
        MINE, "resp-1", PageRequest(order="asc", limit=1, after="i-2")
    )

    assert page is not None
    assert ([item["id"] for item in page.items], page.has_more) == (["i-1"], True)


async def test_items_are_found_wherever_they_are(stores: ResponseStores) -> None:
    await a_conversation(stores, "c-1")
    await ended(stores, a_response(), "i-1", "o-1")

    found = await stores.responses.find_items(MINE, ["c-1", "i-1", "o-1", "nowhere"])

    assert found == {each: an_item(each) for each in ("c-1", "i-1", "o-1")}


async def test_events_are_kept_with_what_they_tell(stores: ResponseStores) -> None:
    response = a_response(status="queued", is_background=True)
    job = job_of(response)
    claim = job.claim
    await stores.responses.insert(response, [], job, events=events_of(claim, 0, 1))
    await stores.responses.begin(claim, events=events_of(claim, 2))
    found = await stores.responses.get(MINE, "resp-1")
    assert found is not None
    assert found.status == "in_progress"

    done = replace(response, status="completed")
    await stores.responses.end(claim, done, events=events_of(claim, 3))

    told = await stores.events.read("resp-1", after=-1, limit=100)
    assert [event.number for event in told] == [0, 1, 2, 3]


async def test_who_lost_the_job_writes_nothing(stores: ResponseStores) -> None:
    response = a_response(status="queued")
    claim = await kept(stores, response, "i-1")
    assert await is_worked_on(stores, "resp-1")  # by somebody else, from now on
    done = replace(response, status="completed", output=(an_item("o-1"),))

    with pytest.raises(LeaseLostError):
        await stores.responses.begin(claim, events=events_of(claim, 0))
    with pytest.raises(LeaseLostError):
        await stores.responses.end(claim, done, events=events_of(claim, 0))
    with pytest.raises(LeaseLostError):
        await stores.responses.drop(claim)

    assert await stores.responses.get(MINE, "resp-1") == response
    assert await history(stores, "resp-1") == ["i-1"]
    assert await stores.events.last_number("resp-1") == -1


async def test_dropped_response_was_never_there(stores: ResponseStores) -> None:
    claim = await kept(stores, a_response(), "i-1")

    await stores.responses.drop(claim)

    assert await stores.responses.get(MINE, "resp-1") is None
    assert await stores.responses.find_items(MINE, ["i-1"]) == {}
    assert not await is_worked_on(stores, "resp-1")


async def test_deleted_response_takes_everything_along(stores: ResponseStores) -> None:
    response = a_response()
    job = job_of(response)
    await stores.responses.insert(
        response, [an_item("i-1")], job, events=events_of(job.claim, 0, 1)
    )

    assert await stores.responses.delete(MINE, "resp-1")

    assert await stores.responses.get(MINE, "resp-1") is None
    assert await stores.responses.find_items(MINE, ["i-1"]) == {}
    assert await stores.events.last_number("resp-1") == -1
    assert not await is_worked_on(stores, "resp-1")
    assert not await stores.responses.delete(MINE, "resp-1")
