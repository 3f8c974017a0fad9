"""Conversations and their items are kept, ordered and removed alike by every store of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from openworks.core.errors import ConflictError, InvalidRequestError
from openworks.core.ids import AccountId
from openworks.core.json import JsonObject
from openworks.core.pages import Order, Page, PageRequest
from openworks.ports.conversations import Conversation, ConversationStore
from tests.contract.conftest import OpenDatabase
from tests.contract.response_stores import opened_stores

MINE, THEIRS = AccountId("acct-mine"), AccountId("acct-theirs")


@pytest.fixture
async def store(adapter: str, open_database: OpenDatabase) -> AsyncIterator[ConversationStore]:
    async with opened_stores(adapter, open_database) as stores:
        yield stores.conversations


def a_conversation(id_: str = "conv-1", **fields: dict[str, str]) -> Conversation:
    return Conversation(id=id_, account_id=MINE, created_at_s=1000.5, **fields)


def an_item(id_: str, text: str = "Hello") -> JsonObject:
    part: JsonObject = {"type": "input_text", "text": text}
    return {"id": id_, "type": "message", "role": "user", "content": [part]}


async def a_conversation_of(store: ConversationStore, *ids: str) -> None:
    await store.insert(a_conversation(), [an_item(each) for each in ids])


async def ids(store: ConversationStore, order: Order = "asc") -> list[object]:
    page = await store.list_items(MINE, "conv-1", PageRequest(order=order, limit=100))
    assert page is not None
    return ids_of(page)


def ids_of(page: Page[JsonObject] | None) -> list[object]:
    assert page is not None
    return [item["id"] for item in page.items]


async def test_conversation_comes_back_as_it_was_kept(store: ConversationStore) -> None:
    conversation = a_conversation(metadata={"größe": "🌍", "a\0b": ""})

    await store.insert(conversation, [an_item("i-1", "Grüße\0, 世界")])

    assert await store.get(MINE, "conv-1") == conversation
    assert await store.get_item(MINE, "conv-1", "i-1") == an_item("i-1", "Grüße\0, 世界")


async def test_second_conversation_with_the_same_id_is_refused(store: ConversationStore) -> None:
    await a_conversation_of(store, "i-1")

    with pytest.raises(ConflictError, match="'conv-1'"):
        await store.insert(a_conversation(), [an_item("i-2")])

    assert await ids(store) == ["i-1"]


async def test_what_belongs_to_another_account_is_not_there(store: ConversationStore) -> None:
    await a_conversation_of(store, "i-1")

    assert await store.get(THEIRS, "conv-1") is None
    assert await store.set_metadata(THEIRS, "conv-1", {"a": "b"}) is None
    assert not await store.delete(THEIRS, "conv-1")
    assert await store.snapshot(THEIRS, "conv-1") is None
    assert not await store.append(THEIRS, "conv-1", [an_item("i-2")])
    assert await store.list_items(THEIRS, "conv-1", PageRequest()) is None
    assert await store.get_item(THEIRS, "conv-1", "i-1") is None
    assert not await store.delete_item(THEIRS, "conv-1", "i-1")

    assert await store.get(MINE, "conv-1") == a_conversation()
    assert await ids(store) == ["i-1"]


async def test_conversations_of_an_account_are_listed_in_order(store: ConversationStore) -> None:
    for id_ in ("conv-2", "conv-1", "conv-3"):
        await store.insert(a_conversation(id_))

    first = await store.list(MINE, PageRequest(order="asc", limit=2))
    rest = await store.list(MINE, PageRequest(order="asc", after="conv-2"))

    assert ([each.id for each in first.items], first.has_more) == (["conv-1", "conv-2"], True)
    assert ([each.id for each in rest.items], rest.has_more) == (["conv-3"], False)
    assert (await store.list(THEIRS, PageRequest())).items == []


async def test_metadata_is_replaced(store: ConversationStore) -> None:
    await store.insert(a_conversation(metadata={"old": "1"}))

    changed = await store.set_metadata(MINE, "conv-1", {"new": "2"})

    assert changed == a_conversation(metadata={"new": "2"})
    assert await store.get(MINE, "conv-1") == changed


async def test_deleted_conversation_takes_its_items_along(store: ConversationStore) -> None:
    await a_conversation_of(store, "i-1")

    assert await store.delete(MINE, "conv-1")

    assert await store.get(MINE, "conv-1") is None
    assert await store.get_item(MINE, "conv-1", "i-1") is None
    assert not await store.delete(MINE, "conv-1")


async def test_items_keep_the_order_in_which_they_came(store: ConversationStore) -> None:
    await a_conversation_of(store, "i-9", "i-1")

    assert await store.append(MINE, "conv-1", [an_item("i-5"), an_item("i-0")])
    assert await store.append(MINE, "conv-1", [an_item("i-7")])

    assert await ids(store) == ["i-9", "i-1", "i-5", "i-0", "i-7"]
    assert await ids(store, "desc") == ["i-7", "i-0", "i-5", "i-1", "i-9"]


async def test_pages_follow_each_other(store: ConversationStore) -> None:
    await a_conversation_of(store, "i-3", "i-1", "i-2")

    first = await store.list_items(MINE, "conv-1", PageRequest(order="asc", limit=2))
    rest = await store.list_items(MINE, "conv-1", PageRequest(order="asc", limit=2, after="i-1"))

    assert first is not None
    assert rest is not None
    assert (ids_of(first), first.has_more) == (["i-3", "i-1"], True)
    assert (ids_of(rest), rest.has_more) == (["i-2"], False)


async def test_cursor_of_nothing_is_refused(store: ConversationStore) -> None:
    await a_conversation_of(store, "i-1")

    with pytest.raises(InvalidRequestError, match=r"after .*'i-2'"):
        await store.list_items(MINE, "conv-1", PageRequest(after="i-2"))


async def test_item_that_is_there_already_leaves_all_as_it_was(store: ConversationStore) -> None:
    await a_conversation_of(store, "i-1")

    with pytest.raises(ConflictError, match="'i-1'"):
        await store.append(MINE, "conv-1", [an_item("i-2"), an_item("i-1")])

    assert await ids(store) == ["i-1"]


async def test_same_item_may_be_in_two_conversations(store: ConversationStore) -> None:
    await a_conversation_of(store, "i-1")
    await store.insert(a_conversation("conv-2"), [an_item("i-1", "other")])

    assert await store.get_item(MINE, "conv-1", "i-1") == an_item("i-1")
    assert await store.get_item(MINE, "conv-2", "i-1") == an_item("i-1", "other")


async def test_items_that_come_together_all_get_a_place(store: ConversationStore) -> None:
    await a_conversation_of(store)

    async def talk(speaker: int) -> None:
        for number in range(3):
            items = [an_item(f"i-{speaker}-{number}-{part}") for part in range(2)]
            assert await store.append(MINE, "conv-1", items)

    await asyncio.gather(*(talk(speaker) for speaker in range(10)))

    found = await ids(store)
    assert len(found) == len(set(found)) == 60
    for first, second in zip(found[::2], found[1::2], strict=True):
        assert str(first).removesuffix("0") == str(second).removesuffix("1")


async def test_deleted_item_leaves_the_others_in_order(store: ConversationStore) -> None:
    await a_conversation_of(store, "i-1", "i-2", "i-3")

    assert await store.delete_item(MINE, "conv-1", "i-2")
    assert not await store.delete_item(MINE, "conv-1", "i-2")
    await store.append(MINE, "conv-1", [an_item("i-4")])

    assert await ids(store) == ["i-1", "i-3", "i-4"]


async def test_snapshot_holds_what_came_before_its_place(store: ConversationStore) -> None:
    await a_conversation_of(store, "i-1", "i-2")

    before = await store.snapshot(MINE, "conv-1")
    await store.append(MINE, "conv-1", [an_item("i-3")])
    after = await store.snapshot(MINE, "conv-1")

    assert before is not None
    assert after is not None
    assert [item["id"] for item in before.items] == ["i-1", "i-2"]
    assert [item["id"] for item in after.items] == ["i-1", "i-2", "i-3"]
    assert after.position == before.position + 1
