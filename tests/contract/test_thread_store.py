"""Threads and their messages are kept, ordered and removed alike by every store of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, func, select

from openworks.core.errors import ConflictError, InvalidRequestError
from openworks.core.ids import AccountId
from openworks.core.pages import Order, Page, PageRequest
from openworks.ports.stored_completions import StoredCompletion
from openworks.ports.threads import Message, MessageStore, Thread, ThreadStore
from openworks.storage.sql.database import Database
from openworks.storage.sql.messages import SqlMessageStore
from openworks.storage.sql.stored_completions import SqlStoredCompletionStore
from openworks.storage.sql.tables import messages as message_table
from openworks.storage.sql.threads import SqlThreadStore
from openworks.storage.sql.versions import MIGRATIONS
from tests.contract.conftest import SQL_ADAPTERS, OpenDatabase

MINE, THEIRS = AccountId("acct-mine"), AccountId("acct-theirs")
MOST = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """Both stores over one database."""

    threads: ThreadStore
    messages: MessageStore
    database: Database

    async def ids(self, thread_id: str = "t-1", order: Order = "asc") -> list[str]:
        page = await self.messages.list(MINE, thread_id, PageRequest(order=order, limit=100))
        assert page is not None
        return [message.id for message in page.items]


@pytest.fixture(params=SQL_ADAPTERS)
def adapter(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def stores(adapter: str, open_database: OpenDatabase) -> AsyncIterator[Stores]:
    async with open_database(adapter) as database:
        yield Stores(
            threads=SqlThreadStore(database),
            messages=SqlMessageStore(database),
            database=database,
        )


def a_thread(thread_id: str = "t-1", account_id: AccountId = MINE) -> Thread:
    return Thread(id=thread_id, account_id=account_id, created_at_s=1000.5)


def a_message(message_id: str, *, thread_id: str = "t-1", run_id: str | None = None) -> Message:
    return Message(
        id=message_id,
        thread_id=thread_id,
        created_at_s=1000.5,
        role="user",
        content=({"type": "text", "text": {"value": message_id, "annotations": []}},),
        run_id=run_id,
    )


async def a_thread_of(stores: Stores, *message_ids: str) -> None:
    await stores.threads.insert(a_thread(), [a_message(each) for each in message_ids])


def ids(page: Page[Message] | None) -> list[str]:
    assert page is not None
    return [message.id for message in page.items]


async def test_thread_comes_back_as_it_was_kept(stores: Stores) -> None:
    thread = replace(
        a_thread(),
        metadata={"größe": "🌍", "a\0b": ""},
        tool_resources={"file_search": {"vector_store_ids": []}},
    )

    await stores.threads.insert(thread)

    assert await stores.threads.get(MINE, "t-1") == thread


async def test_message_comes_back_as_it_was_kept(stores: Stores) -> None:
    message = replace(
        a_message("m-1", run_id="run-1"),
        role="assistant",
        content=(
            {"type": "text", "text": {"value": "Grüße\0, 世界 🌍", "annotations": []}},
            {"type": "image_file", "image_file": {"file_id": "file-1", "detail": "auto"}},
        ),
        attachments=({"file_id": "file-2", "tools": [{"type": "file_search"}]},),
        metadata={"a": "b"},
    )
    await a_thread_of(stores)

    assert await stores.messages.append(MINE, message, most=MOST)

    assert await stores.messages.get(MINE, "t-1", "m-1") == message


async def test_second_thread_with_the_same_id_is_refused(stores: Stores) -> None:
    await a_thread_of(stores)

    with pytest.raises(ConflictError, match="'t-1'"):
        await stores.threads.insert(a_thread(account_id=THEIRS))


async def test_thread_whose_message_is_refused_is_not_kept(stores: Stores) -> None:
    await a_thread_of(stores, "m-1")
    other = [a_message(each, thread_id="t-2") for each in ("m-2", "m-1")]

    with pytest.raises(ConflictError, match="'t-2'"):
        await stores.threads.insert(a_thread("t-2"), other)

    assert await stores.threads.get(MINE, "t-2") is None
    assert await stores.messages.get(MINE, "t-2", "m-2") is None


async def test_message_that_is_refused_leaves_the_thread_as_it_was(stores: Stores) -> None:
    await a_thread_of(stores, "m-1")

    with pytest.raises(ConflictError, match="'m-1'"):
        await stores.messages.append(MINE, a_message("m-1"), most=MOST)
    assert await stores.messages.append(MINE, a_message("m-2"), most=2)

    assert await stores.ids() == ["m-1", "m-2"]


async def test_what_belongs_to_another_account_is_not_there(stores: Stores) -> None:
    await a_thread_of(stores, "m-1")
    threads, messages = stores.threads, stores.messages

    assert await threads.get(THEIRS, "t-1") is None
    assert await threads.update(THEIRS, "t-1", metadata={"a": "b"}) is None
    assert not await threads.delete(THEIRS, "t-1")
    assert not await messages.append(THEIRS, a_message("m-2"), most=MOST)
    assert await messages.get(THEIRS, "t-1", "m-1") is None
    assert await messages.list(THEIRS, "t-1", PageRequest()) is None
    assert await messages.set_metadata(THEIRS, "t-1", "m-1", {"a": "b"}) is None
    assert not await messages.delete(THEIRS, "t-1", "m-1")

    assert await threads.get(MINE, "t-1") == a_thread()
    assert await stores.ids() == ["m-1"]
    assert await messages.get(MINE, "t-1", "m-1") == a_message("m-1")


async def test_message_of_another_thread_is_not_there(stores: Stores) -> None:
    await a_thread_of(stores, "m-1")
    await stores.threads.insert(a_thread("t-2"))
    messages = stores.messages

    assert await messages.get(MINE, "t-2", "m-1") is None
    assert await messages.set_metadata(MINE, "t-2", "m-1", {"a": "b"}) is None
    assert not await messages.delete(MINE, "t-2", "m-1")
    assert await stores.ids() == ["m-1"]


async def test_messages_keep_the_order_in_which_they_came(stores: Stores) -> None:
    await a_thread_of(stores, "m-9", "m-1")
    for each in ("m-5", "m-0", "m-7"):
        await stores.messages.append(MINE, a_message(each), most=MOST)

    assert await stores.ids() == ["m-9", "m-1", "m-5", "m-0", "m-7"]
    assert await stores.ids(order="desc") == ["m-7", "m-0", "m-5", "m-1", "m-9"]


async def test_messages_that_come_together_all_get_a_place(stores: Stores) -> None:
    await a_thread_of(stores, "first")
    numbers = range(20)

    async def talk(speaker: int) -> None:
        for number in range(3):
            message = a_message(f"m-{speaker}-{number}")
            assert await stores.messages.append(MINE, message, most=MOST)

    await asyncio.gather(*(talk(speaker) for speaker in numbers))

    found = await stores.ids()
    assert len(found) == len(set(found)) == 61
    assert found[0] == "first"
    for speaker in numbers:
        of_speaker = [each for each in found if each.startswith(f"m-{speaker}-")]
        assert of_speaker == [f"m-{speaker}-{number}" for number in range(3)]


async def test_messages_that_come_while_others_go_keep_their_order(stores: Stores) -> None:
    old = [f"old-{number}" for number in range(10)]
    await a_thread_of(stores, *old)

    async def come() -> None:
        for number in range(10):
            await stores.messages.append(MINE, a_message(f"new-{number}"), most=MOST)

    async def go() -> None:
        for each in old:
            assert await stores.messages.delete(MINE, "t-1", each)

    await asyncio.gather(come(), go())

    assert await stores.ids() == [f"new-{number}" for number in range(10)]


async def test_thread_may_go_while_messages_come_and_go(stores: Stores) -> None:
    for round_ in range(5):
        old = [f"m-{round_}-{number}" for number in range(10)]
        await a_thread_of(stores, *old)

        _, *others = await asyncio.gather(
            stores.threads.delete(MINE, "t-1"),
            *(stores.messages.delete(MINE, "t-1", each) for each in old),
            *(stores.messages.append(MINE, a_message(f"{each}+"), most=MOST) for each in old),
        )

        assert all(isinstance(each, bool) for each in others)
        assert await count_messages(stores) == 0


async def count_messages(stores: Stores) -> int:
    async with stores.database.read() as connection:
        query = select(func.count()).select_from(message_table)
        return int((await connection.execute(query)).scalar_one())


async def test_deleted_thread_takes_its_messages_along(stores: Stores) -> None:
    await a_thread_of(stores, "m-1", "m-2")
    await stores.threads.insert(a_thread("t-2"), [a_message("m-3", thread_id="t-2")])

    assert await stores.threads.delete(MINE, "t-1")

    assert await stores.threads.get(MINE, "t-1") is None
    assert await stores.messages.get(MINE, "t-1", "m-1") is None
    assert await stores.messages.list(MINE, "t-1", PageRequest()) is None
    assert not await stores.messages.append(MINE, a_message("m-4"), most=MOST)
    assert not await stores.threads.delete(MINE, "t-1")
    assert await count_messages(stores) == 1
    assert await stores.ids("t-2") == ["m-3"]


async def test_deleted_message_is_gone_and_its_place_is_not_given_again(stores: Stores) -> None:
    await a_thread_of(stores, "m-1", "m-2", "m-3")

    assert await stores.messages.delete(MINE, "t-1", "m-3")
    assert not await stores.messages.delete(MINE, "t-1", "m-3")
    await stores.messages.append(MINE, a_message("m-4"), most=MOST)

    assert await stores.messages.get(MINE, "t-1", "m-3") is None
    assert await stores.ids() == ["m-1", "m-2", "m-4"]


async def test_full_thread_takes_no_message_until_one_is_deleted(stores: Stores) -> None:
    await a_thread_of(stores, "m-1")
    await stores.messages.append(MINE, a_message("m-2"), most=2)

    with pytest.raises(InvalidRequestError, match="'t-1' holds 2 messages"):
        await stores.messages.append(MINE, a_message("m-3"), most=2)
    assert await stores.ids() == ["m-1", "m-2"]

    await stores.messages.delete(MINE, "t-1", "m-1")
    assert await stores.messages.append(MINE, a_message("m-4"), most=2)
    assert await stores.ids() == ["m-2", "m-4"]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 3, 7, 8])
async def test_pages_by_after_cover_the_list_once(stores: Stores, order: Order, limit: int) -> None:
    names = ["m-4", "m-0", "m-6", "m-2", "m-1", "m-5", "m-3"]
    await a_thread_of(stores, *names)

    seen: list[str] = []
    after = None
    while True:
        request = PageRequest(limit=limit, order=order, after=after)
        page = await stores.messages.list(MINE, "t-1", request)
        assert page is not None
        seen += ids(page)
        if not page.has_more:
            break
        after = seen[-1]

    assert seen == (names if order == "asc" else names[::-1])


async def test_page_before_a_message_ends_at_it(stores: Stores) -> None:
    await a_thread_of(stores, "d", "a", "c", "b")

    page = await stores.messages.list(MINE, "t-1", PageRequest(limit=2, order="asc", before="b"))
    newest_first = await stores.messages.list(MINE, "t-1", PageRequest(limit=3, before="d"))

    assert page is not None
    assert (ids(page), page.has_more) == (["a", "c"], True)
    assert newest_first is not None
    assert (ids(newest_first), newest_first.has_more) == (["b", "c", "a"], False)


@pytest.mark.parametrize("cursor", ["nobody", "elsewhere"])
@pytest.mark.parametrize("param", ["after", "before"])
async def test_cursor_must_be_a_message_of_the_thread(
    stores: Stores, param: str, cursor: str
) -> None:
    await a_thread_of(stores, "m-1")
    await stores.threads.insert(a_thread("t-2"), [a_message("elsewhere", thread_id="t-2")])
    request = PageRequest(after=cursor) if param == "after" else PageRequest(before=cursor)

    with pytest.raises(InvalidRequestError, match=f"{param}.*'{cursor}'") as raised:
        await stores.messages.list(MINE, "t-1", request)

    assert raised.value.param == param


async def test_list_picks_what_a_run_wrote(stores: Stores) -> None:
    written = [("m-1", None), ("m-2", "run-1"), ("m-3", "run-2"), ("m-4", "run-1")]
    await stores.threads.insert(a_thread(), [a_message(id_, run_id=run) for id_, run in written])

    request = PageRequest(limit=1, order="asc", after="m-1")
    page = await stores.messages.list(MINE, "t-1", request, run_id="run-1")

    assert page is not None
    assert (ids(page), page.has_more) == (["m-2"], True)
    assert ids(await stores.messages.list(MINE, "t-1", PageRequest(), run_id="run-9")) == []


async def test_threads_of_an_account_are_listed_by_their_creation(stores: Stores) -> None:
    for number, thread_id in enumerate(("t-c", "t-a", "t-b")):
        await stores.threads.insert(replace(a_thread(thread_id), created_at_s=float(number)))
    await stores.threads.insert(a_thread("t-theirs", THEIRS))

    newest = await stores.threads.list(MINE, PageRequest(limit=2))
    rest = await stores.threads.list(MINE, PageRequest(limit=2, after=newest.items[-1].id))

    assert [thread.id for thread in newest.items] == ["t-b", "t-a"]
    assert newest.has_more
    assert [thread.id for thread in rest.items] == ["t-c"]
    assert not rest.has_more


async def test_update_of_a_thread_replaces_what_is_given(stores: Stores) -> None:
    thread = replace(a_thread(), metadata={"old": "1"}, tool_resources={"file_search": {}})
    await stores.threads.insert(thread)

    assert await stores.threads.update(MINE, "t-1") == thread
    changed = await stores.threads.update(MINE, "t-1", metadata={"new": "2"})
    assert changed == replace(thread, metadata={"new": "2"})
    cleared = await stores.threads.update(MINE, "t-1", tool_resources={})
    assert cleared == replace(thread, metadata={"new": "2"}, tool_resources={})
    assert await stores.threads.get(MINE, "t-1") == cleared


async def test_set_metadata_of_a_message_replaces_all_of_it(stores: Stores) -> None:
    message = replace(a_message("m-1"), metadata={"old": "1"})
    await stores.threads.insert(a_thread(), [message])

    changed = await stores.messages.set_metadata(MINE, "t-1", "m-1", {"new": "2"})

    assert changed == replace(message, metadata={"new": "2"})
    assert await stores.messages.get(MINE, "t-1", "m-1") == changed


def _migrate(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    (command.upgrade if revision == "head" else command.downgrade)(config, revision)


async def test_database_from_before_there_were_threads_is_brought_up_to_date(
    adapter: str, open_database: OpenDatabase
) -> None:
    kept = StoredCompletion(
        id="c-1",
        account_id=MINE,
        created_at_s=1000,
        model="m",
        metadata={},
        messages=(),
        completion={},
    )
    async with open_database(adapter) as database:
        async with database.write() as connection:
            await connection.run_sync(_migrate, "0004")
        await SqlStoredCompletionStore(database).insert(kept)

        await database.migrate()

        assert await SqlStoredCompletionStore(database).get(MINE, "c-1") == kept
        await SqlThreadStore(database).insert(a_thread(), [a_message("m-1")])
        assert await SqlMessageStore(database).get(MINE, "t-1", "m-1") == a_message("m-1")
