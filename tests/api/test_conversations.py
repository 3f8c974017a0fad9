"""Conversations and their items on the embedded model, through the SDK and without it."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.conversations import Conversation
from openai.types.responses import Response

from tests.api.accounts import Accounts
from tests.api.raw import ask, bearer
from tests.api.test_meaning import CHAT_MODEL
from tests.api.test_meaning import pytestmark as needs_models
from tests.conftest import open_async_client

pytestmark = needs_models

USER: Any = {"role": "user", "content": "My name is Anna."}
ASSISTANT: Any = {"role": "assistant", "content": "Nice to meet you, Anna."}
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
    "strict": False,
}


@pytest.fixture
def conversation(mine: OpenAI) -> Conversation:
    return mine.conversations.create()


def respond(client: OpenAI, conversation: Conversation, given: Any, **options: Any) -> Response:
    response = client.responses.create(
        model=CHAT_MODEL, input=given, conversation=conversation.id, temperature=0, **options
    )
    assert isinstance(response, Response)
    return response


def items_of(client: OpenAI, conversation: Conversation) -> list[dict[str, Any]]:
    """Return all items, the oldest first."""
    listed = client.conversations.items.list(conversation.id, order="asc", limit=2)
    return [item.to_dict() for item in listed]


def test_conversation_can_be_fetched_and_changed(mine: OpenAI) -> None:
    made = mine.conversations.create(metadata={"a": "b"})
    assert made.id.startswith("conv_")
    assert mine.conversations.retrieve(made.id) == made

    changed = mine.conversations.update(made.id, metadata={"c": "d"})

    assert changed.to_dict() == {**made.to_dict(), "metadata": {"c": "d"}}
    assert mine.conversations.retrieve(made.id) == changed
    assert mine.conversations.update(made.id, metadata=None).metadata == {}


def test_conversation_begins_with_its_items(mine: OpenAI) -> None:
    made = mine.conversations.create(items=[USER, ASSISTANT])

    found = items_of(mine, made)

    assert [item["role"] for item in found] == ["user", "assistant"]
    assert [item["content"][0]["text"] for item in found] == [USER["content"], ASSISTANT["content"]]
    assert [item["content"][0]["type"] for item in found] == ["input_text", "output_text"]


def test_items_are_added_found_and_removed(mine: OpenAI, conversation: Conversation) -> None:
    added = mine.conversations.items.create(conversation.id, items=[USER, ASSISTANT])
    first, second = (item.to_dict() for item in added.data)
    assert items_of(mine, conversation) == [first, second]
    item_id = str(first["id"])
    assert (
        mine.conversations.items.retrieve(item_id, conversation_id=conversation.id)
        == (added.data[0])
    )

    left = mine.conversations.items.delete(item_id, conversation_id=conversation.id)

    assert left == conversation
    assert items_of(mine, conversation) == [second]
    with pytest.raises(openai.NotFoundError):
        mine.conversations.items.retrieve(item_id, conversation_id=conversation.id)
    with pytest.raises(openai.NotFoundError):
        mine.conversations.items.delete(item_id, conversation_id=conversation.id)


def test_items_of_every_kind_come_back_as_they_were(
    mine: OpenAI, conversation: Conversation
) -> None:
    given: list[Any] = [
        {"id": "msg_a", "type": "message", "role": "developer", "content": "Be brief."},
        {"id": "rs_a", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "1"},
        {"role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
    ]

    mine.conversations.items.create(conversation.id, items=given)

    found = items_of(mine, conversation)
    assert [item["type"] for item in found] == [
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
        "message",
    ]
    assert [item["id"] for item in found[:2]] == ["msg_a", "rs_a"]
    mine.conversations.create(items=found)  # type: ignore[arg-type] # just as they came back


def test_item_that_is_there_already_is_refused(mine: OpenAI, conversation: Conversation) -> None:
    item: Any = {**USER, "id": "msg_a"}
    mine.conversations.items.create(conversation.id, items=[item])

    with pytest.raises(openai.BadRequestError, match="msg_a"):
        mine.conversations.items.create(conversation.id, items=[USER, item])

    assert len(items_of(mine, conversation)) == 1


def test_responses_know_and_extend_their_conversation(
    mine: OpenAI, conversation: Conversation
) -> None:
    respond(mine, conversation, "My name is Anna.")
    last = respond(mine, conversation, "What is my name?")

    assert "Anna" in last.output_text
    assert last.conversation is not None
    assert last.conversation.id == conversation.id
    found = items_of(mine, conversation)
    assert [item["role"] for item in found] == ["user", "assistant", "user", "assistant"]
    assert found[-1] == last.output[0].to_dict()


def test_result_of_a_call_is_used_in_a_conversation(
    mine: OpenAI, conversation: Conversation
) -> None:
    asked = "What is the weather in Paris?"
    (call,) = respond(mine, conversation, asked, tools=[WEATHER]).output
    assert call.type == "function_call"

    with pytest.raises(openai.BadRequestError, match=call.call_id):
        respond(mine, conversation, "And?", tools=[WEATHER])
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "snow"}
    last = respond(mine, conversation, [result], tools=[WEATHER])

    assert "snow" in last.output_text
    assert [item["type"] for item in items_of(mine, conversation)] == [
        "message",
        "function_call",
        "function_call_output",
        "message",
    ]


def test_streamed_and_background_responses_extend_their_conversation(
    mine: OpenAI, conversation: Conversation
) -> None:
    options: Any = {"model": CHAT_MODEL, "conversation": {"id": conversation.id}}
    list(mine.responses.create(**options, input="One.", stream=True))
    list(mine.responses.create(**options, input="Two.", stream=True, background=True))

    found = items_of(mine, conversation)

    assert [item["role"] for item in found] == ["user", "assistant", "user", "assistant"]
    assert [item["content"][0]["text"] for item in found[::2]] == ["One.", "Two."]


async def test_responses_that_come_together_keep_their_items_together(
    accounts: Accounts, secret: str, mine: OpenAI, conversation: Conversation
) -> None:
    async with open_async_client(accounts.server.url, key=secret) as client:
        await asyncio.gather(
            *(
                client.responses.create(
                    model=CHAT_MODEL, input=f"Number {number}.", conversation=conversation.id
                )
                for number in range(6)
            )
        )

    roles = [item["role"] for item in items_of(mine, conversation)]
    assert roles == ["user", "assistant"] * 6


def test_response_that_is_not_stored_leaves_its_conversation_alone(
    mine: OpenAI, conversation: Conversation
) -> None:
    mine.conversations.items.create(conversation.id, items=[USER, ASSISTANT])

    answer = respond(mine, conversation, "What is my name?", store=False)

    assert "Anna" in answer.output_text
    assert len(items_of(mine, conversation)) == 2


def test_deleted_conversation_is_gone(mine: OpenAI, conversation: Conversation) -> None:
    response = respond(mine, conversation, "Hello")

    assert mine.conversations.delete(conversation.id).deleted

    for attempt in (
        lambda: mine.conversations.retrieve(conversation.id),
        lambda: mine.conversations.items.list(conversation.id),
        lambda: respond(mine, conversation, "Hello"),
    ):
        with pytest.raises(openai.NotFoundError, match=conversation.id):
            attempt()
    assert mine.responses.retrieve(response.id) == response


def test_other_account_finds_nothing(
    mine: OpenAI, theirs: OpenAI, conversation: Conversation
) -> None:
    (item,) = mine.conversations.items.create(conversation.id, items=[USER]).data
    id_, item_id = conversation.id, str(item.id)

    for attempt in (
        lambda: theirs.conversations.retrieve(id_),
        lambda: theirs.conversations.update(id_, metadata={"a": "b"}),
        lambda: theirs.conversations.delete(id_),
        lambda: theirs.conversations.items.create(id_, items=[USER]),
        lambda: theirs.conversations.items.list(id_),
        lambda: theirs.conversations.items.retrieve(item_id, conversation_id=id_),
        lambda: theirs.conversations.items.delete(item_id, conversation_id=id_),
        lambda: respond(theirs, conversation, "Hello"),
    ):
        with pytest.raises(openai.NotFoundError):
            attempt()
    with pytest.raises(openai.BadRequestError):
        theirs.conversations.create(items=[{"type": "item_reference", "id": item_id}])
    assert len(items_of(mine, conversation)) == 1


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("", {"items": [{"role": "user"}]}, "items[0]"),
        ("", {"items": [{"type": "web_search_call", "id": "x", "status": "completed"}]}, "items"),
        ("", {"metadata": {"a": 1}}, "metadata.a"),
        ("", {"name": "x"}, "name"),
        ("/{id}/items", {}, "items"),
        ("/{id}/items", {"items": [{"type": "item_reference", "id": "x"}]}, "items[0].id"),
        ("/{id}/items?include[]=file_search_call.results", {"items": []}, "include[0]"),
        ("/{id}", {"metadata": "x"}, "metadata"),
    ],
)
def test_bad_field_is_named(
    accounts: Accounts,
    secret: str,
    conversation: Conversation,
    path: str,
    body: object,
    param: str,
) -> None:
    url = f"/v1/conversations{path.replace('{id}', conversation.id)}"
    reply = ask(accounts.server, "POST", url, body, headers=bearer(secret))

    assert reply.status == 400, reply.body
    assert reply.error()["param"].startswith(param)


def test_cursor_of_nothing_is_refused(mine: OpenAI, conversation: Conversation) -> None:
    with pytest.raises(openai.BadRequestError, match="msg_x"):
        mine.conversations.items.list(conversation.id, after="msg_x")
