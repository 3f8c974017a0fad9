"""Every AssistantStore keeps, pages and changes assistants alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from openworks.core.errors import ConflictError, InvalidRequestError
from openworks.core.ids import AccountId
from openworks.core.json import JsonObject
from openworks.core.pages import Page, PageRequest
from openworks.ports.assistants import Assistant, AssistantSettings, AssistantStore
from openworks.storage.sql.assistants import SqlAssistantStore
from tests.contract.conftest import SQL_ADAPTERS, OpenDatabase

MINE, THEIRS = AccountId("acct-mine"), AccountId("acct-theirs")


@pytest.fixture(params=SQL_ADAPTERS)
async def store(
    request: pytest.FixtureRequest, open_database: OpenDatabase
) -> AsyncIterator[AssistantStore]:
    async with open_database(str(request.param)) as database:
        yield SqlAssistantStore(database)


def an_assistant(
    assistant_id: str, *, created_at_s: float = 1000.0, account_id: AccountId = MINE
) -> Assistant:
    return Assistant(
        id=assistant_id,
        account_id=account_id,
        created_at_s=created_at_s,
        settings=AssistantSettings(model="talker"),
    )


def ids(page: Page[Assistant]) -> list[str]:
    return [item.id for item in page.items]


async def test_assistant_comes_back_as_it_was_kept(store: AssistantStore) -> None:
    settings = AssistantSettings(
        model="talker",
        name="Grüße, 世界 🌍",
        description="with a zero byte: \0",
        instructions="x" * 256_000,
        tools=(
            {"type": "file_search"},
            {"type": "function", "function": {"name": "f", "parameters": {"a": [1, 2.5, None]}}},
        ),
        tool_resources={"file_search": {"vector_store_ids": []}},
        metadata={"": "empty", "a\0b": "c"},
        temperature=1,
        top_p=0.25,
        reasoning_effort="low",
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
    )
    assistant = replace(an_assistant("asst-1", created_at_s=1000.123456), settings=settings)

    await store.insert(assistant)

    assert await store.get(MINE, "asst-1") == assistant


async def test_second_assistant_with_the_same_id_is_refused(store: AssistantStore) -> None:
    await store.insert(an_assistant("asst-1"))

    with pytest.raises(ConflictError, match="'asst-1'"):
        await store.insert(an_assistant("asst-1", account_id=THEIRS))


async def test_assistant_of_another_account_is_not_there(store: AssistantStore) -> None:
    assistant = an_assistant("asst-1")
    await store.insert(assistant)

    assert await store.get(THEIRS, "asst-1") is None
    assert await store.update(THEIRS, "asst-1", {"name": "stolen"}) is None
    assert not await store.delete(THEIRS, "asst-1")
    assert ids(await store.list(THEIRS, PageRequest())) == []
    assert await store.get(MINE, "asst-1") == assistant


async def test_list_is_ordered_by_the_moment_of_creation(store: AssistantStore) -> None:
    for assistant_id, created_at_s in (("c", 1000.1), ("b", 1000.3), ("a", 1000.2), ("d", 999)):
        await store.insert(an_assistant(assistant_id, created_at_s=created_at_s))

    assert ids(await store.list(MINE, PageRequest(order="asc"))) == ["d", "c", "a", "b"]
    assert ids(await store.list(MINE, PageRequest())) == ["b", "a", "c", "d"]


@pytest.mark.parametrize("limit", [1, 2, 7])
async def test_pages_by_after_cover_the_list_once(store: AssistantStore, limit: int) -> None:
    for number in range(7):
        await store.insert(an_assistant(f"a-{number}", created_at_s=1000 + number // 3))

    seen: list[str] = []
    after = None
    while True:
        page = await store.list(MINE, PageRequest(limit=limit, after=after))
        seen += ids(page)
        if not page.has_more:
            break
        after = seen[-1]

    assert seen == [f"a-{number}" for number in reversed(range(7))]


@pytest.mark.parametrize("cursor", ["nobody", "theirs"])
async def test_unknown_cursor_is_an_error_that_names_it(store: AssistantStore, cursor: str) -> None:
    await store.insert(an_assistant("theirs", account_id=THEIRS))

    with pytest.raises(InvalidRequestError, match=f"'{cursor}'") as raised:
        await store.list(MINE, PageRequest(before=cursor))

    assert raised.value.param == "before"


async def test_update_replaces_what_it_names_and_nothing_else(store: AssistantStore) -> None:
    settings = AssistantSettings(model="talker", name="old", tools=({"type": "file_search"},))
    await store.insert(replace(an_assistant("asst-1"), settings=settings))

    changed = await store.update(MINE, "asst-1", {"name": None, "tools": [], "top_p": 0.5})

    expected = replace(settings, name=None, tools=(), top_p=0.5)
    assert changed == replace(an_assistant("asst-1"), settings=expected)
    assert await store.get(MINE, "asst-1") == changed


async def test_update_of_nothing_returns_the_assistant(store: AssistantStore) -> None:
    await store.insert(an_assistant("asst-1"))

    assert await store.update(MINE, "asst-1", {}) == an_assistant("asst-1")


async def test_updates_that_come_together_all_take_effect(store: AssistantStore) -> None:
    await store.insert(an_assistant("asst-1"))
    changes: JsonObject = {"name": "n", "description": "d", "instructions": "i", "top_p": 0.5}

    await asyncio.gather(
        *(store.update(MINE, "asst-1", {name: value}) for name, value in changes.items())
    )

    assistant = await store.get(MINE, "asst-1")
    assert assistant is not None
    settings = assistant.settings
    assert (settings.name, settings.description, settings.instructions) == ("n", "d", "i")
    assert settings.top_p == 0.5


async def test_deleted_assistant_is_gone(store: AssistantStore) -> None:
    for assistant_id in ("asst-1", "asst-2"):
        await store.insert(an_assistant(assistant_id))

    assert await store.delete(MINE, "asst-1")

    assert await store.get(MINE, "asst-1") is None
    assert await store.update(MINE, "asst-1", {"name": "ghost"}) is None
    assert not await store.delete(MINE, "asst-1")
    assert ids(await store.list(MINE, PageRequest())) == ["asst-2"]
