"""Every StoredCompletionStore keeps, pages and filters completions alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from openworks.core.errors import ConflictError, InvalidRequestError
from openworks.core.ids import AccountId
from openworks.core.pages import Order, Page, PageRequest
from openworks.ports.stored_completions import StoredCompletion, StoredCompletionStore

MINE, THEIRS = AccountId("acct-mine"), AccountId("acct-theirs")


def a_completion(
    completion_id: str,
    *,
    created_at_s: int = 1000,
    account_id: AccountId = MINE,
    model: str = "gpt-4o-mini",
    **metadata: str,
) -> StoredCompletion:
    return StoredCompletion(
        id=completion_id,
        account_id=account_id,
        created_at_s=created_at_s,
        model=model,
        metadata=metadata,
        messages=({"id": f"{completion_id}-0", "role": "user", "content": "Grüße, 世界 🌍"},),
        completion={"id": completion_id, "choices": [{"index": 0, "logprobs": None}], "n": 1.5},
    )


async def keep(store: StoredCompletionStore, items: Sequence[StoredCompletion]) -> None:
    for item in items:
        await store.insert(item)


def ids(page: Page[StoredCompletion]) -> list[str]:
    return [item.id for item in page.items]


async def test_completion_comes_back_as_it_was_kept(
    stored_completion_store: StoredCompletionStore,
) -> None:
    item = a_completion("c-1", topic="weather")

    await stored_completion_store.insert(item)

    assert await stored_completion_store.get(MINE, "c-1") == item


async def test_second_completion_with_the_same_id_is_refused(
    stored_completion_store: StoredCompletionStore,
) -> None:
    await stored_completion_store.insert(a_completion("c-1"))

    with pytest.raises(ConflictError, match="'c-1'"):
        await stored_completion_store.insert(a_completion("c-1", account_id=THEIRS))


async def test_completion_of_another_account_is_not_there(
    stored_completion_store: StoredCompletionStore,
) -> None:
    item = a_completion("c-1")
    await stored_completion_store.insert(item)

    assert await stored_completion_store.get(THEIRS, "c-1") is None
    assert await stored_completion_store.set_metadata(THEIRS, "c-1", {"a": "b"}) is None
    assert not await stored_completion_store.delete(THEIRS, "c-1")
    assert ids(await stored_completion_store.list(THEIRS, PageRequest())) == []
    assert await stored_completion_store.get(MINE, "c-1") == item


@pytest.mark.parametrize(
    ("order", "expected"), [("asc", ["c-9", "c-1", "c-2"]), ("desc", ["c-2", "c-1", "c-9"])]
)
async def test_list_is_ordered_by_creation_and_then_id(
    stored_completion_store: StoredCompletionStore, order: Order, expected: list[str]
) -> None:
    items = [a_completion("c-2"), a_completion("c-9", created_at_s=999), a_completion("c-1")]
    await keep(stored_completion_store, items)

    page = await stored_completion_store.list(MINE, PageRequest(order=order))

    assert ids(page) == expected
    assert not page.has_more


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
async def test_pages_by_after_cover_the_list_once(
    stored_completion_store: StoredCompletionStore, order: Order, limit: int
) -> None:
    items = [a_completion(f"c-{n}", created_at_s=1000 + n // 3) for n in range(7)]
    await keep(stored_completion_store, items)

    seen: list[str] = []
    after = None
    while True:
        request = PageRequest(limit=limit, order=order, after=after)
        page = await stored_completion_store.list(MINE, request)
        seen += ids(page)
        if not page.has_more:
            break
        after = seen[-1]

    expected = [f"c-{n}" for n in range(7)]
    assert seen == (expected if order == "asc" else expected[::-1])


async def test_page_before_an_item_ends_at_it(
    stored_completion_store: StoredCompletionStore,
) -> None:
    await keep(stored_completion_store, [a_completion(f"c-{n}") for n in range(5)])

    page = await stored_completion_store.list(MINE, PageRequest(limit=2, order="asc", before="c-4"))
    first = await stored_completion_store.list(
        MINE, PageRequest(limit=2, order="asc", before="c-2")
    )
    newest_first = await stored_completion_store.list(
        MINE, PageRequest(limit=2, order="desc", before="c-0")
    )

    assert (ids(page), page.has_more) == (["c-2", "c-3"], True)
    assert (ids(first), first.has_more) == (["c-0", "c-1"], False)
    assert (ids(newest_first), newest_first.has_more) == (["c-2", "c-1"], True)


async def test_after_and_before_bound_the_page_on_both_sides(
    stored_completion_store: StoredCompletionStore,
) -> None:
    await keep(stored_completion_store, [a_completion(f"c-{n}") for n in range(6)])

    between = PageRequest(limit=2, order="asc", after="c-0", before="c-4")
    page = await stored_completion_store.list(MINE, between)

    assert (ids(page), page.has_more) == (["c-1", "c-2"], True)


@pytest.mark.parametrize("cursor", ["c-9", "theirs-1"])
@pytest.mark.parametrize("param", ["after", "before"])
async def test_unknown_cursor_is_an_error_that_names_it(
    stored_completion_store: StoredCompletionStore, param: str, cursor: str
) -> None:
    items = [a_completion("c-1"), a_completion("theirs-1", account_id=THEIRS)]
    await keep(stored_completion_store, items)
    request = PageRequest(after=cursor) if param == "after" else PageRequest(before=cursor)

    with pytest.raises(InvalidRequestError, match=f"{param}.*'{cursor}'") as raised:
        await stored_completion_store.list(MINE, request)

    assert raised.value.param == param


async def test_cursor_may_be_an_item_that_the_filter_leaves_out(
    stored_completion_store: StoredCompletionStore,
) -> None:
    items = [a_completion("c-1", model="other"), a_completion("c-2")]
    await keep(stored_completion_store, items)

    request = PageRequest(order="asc", after="c-1")
    page = await stored_completion_store.list(MINE, request, model="gpt-4o-mini")

    assert ids(page) == ["c-2"]


async def test_list_filters_by_model(stored_completion_store: StoredCompletionStore) -> None:
    await keep(stored_completion_store, [a_completion("c-1"), a_completion("c-2", model="other")])

    assert ids(await stored_completion_store.list(MINE, PageRequest(), model="other")) == ["c-2"]


async def test_every_metadata_pair_must_match(
    stored_completion_store: StoredCompletionStore,
) -> None:
    items = [
        a_completion("c-1", topic="weather", lang="de"),
        a_completion("c-2", topic="weather", lang="en"),
        a_completion("c-3", lang="de"),
    ]
    await keep(stored_completion_store, items)

    both = {"topic": "weather", "lang": "de"}
    page = await stored_completion_store.list(MINE, PageRequest(), metadata=both)

    assert ids(page) == ["c-1"]


@pytest.mark.parametrize(
    "key", ['a"b', "a.b", "a\\b", "$", "", "'", "%", "_", "größe", "🌍", "new\nline", "[0]"]
)
async def test_metadata_key_may_be_any_text(
    stored_completion_store: StoredCompletionStore, key: str
) -> None:
    items = [
        replace(a_completion("c-1"), metadata={key: key}),
        replace(a_completion("c-2"), metadata={key: f"{key}!"}),
        replace(a_completion("c-3"), metadata={f"{key}!": key}),
    ]
    await keep(stored_completion_store, items)

    page = await stored_completion_store.list(MINE, PageRequest(), metadata={key: key})

    assert ids(page) == ["c-1"]


async def test_has_more_counts_only_what_the_filter_lets_through(
    stored_completion_store: StoredCompletionStore,
) -> None:
    items = [a_completion("c-1", lang="de"), a_completion("c-2"), a_completion("c-3")]
    await keep(stored_completion_store, items)

    request = PageRequest(limit=1, order="asc")
    page = await stored_completion_store.list(MINE, request, metadata={"lang": "de"})

    assert (ids(page), page.has_more) == (["c-1"], False)


async def test_set_metadata_replaces_all_of_it(
    stored_completion_store: StoredCompletionStore,
) -> None:
    item = a_completion("c-1", topic="weather")
    await stored_completion_store.insert(item)

    changed = await stored_completion_store.set_metadata(MINE, "c-1", {"lang": "de"})

    assert changed == replace(item, metadata={"lang": "de"})
    assert await stored_completion_store.get(MINE, "c-1") == changed


async def test_deleted_completion_is_gone(stored_completion_store: StoredCompletionStore) -> None:
    await keep(stored_completion_store, [a_completion("c-1"), a_completion("c-2")])

    assert await stored_completion_store.delete(MINE, "c-1")

    assert await stored_completion_store.get(MINE, "c-1") is None
    assert not await stored_completion_store.delete(MINE, "c-1")
    assert ids(await stored_completion_store.list(MINE, PageRequest())) == ["c-2"]
