"""Every ControlStore keeps documents, and the log of their changes, alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from openworks.core.errors import ConflictError
from openworks.core.ids import AccountId
from openworks.ports.documents import AuditEntry, Document
from openworks.ports.snapshots import ControlStore
from openworks.storage.sql.documents import SqlDocumentStore
from tests.contract.conftest import OpenDatabase
from tests.document_store import MemoryDocumentStore

ACME, OTHER = AccountId("acme"), AccountId("other")
GATEWAY = Document(
    kind="gateway",
    account_id=ACME,
    parent="",
    id="gw",
    body={"cache_ttl": 60, "dlp": None, "names": ["ä", "\u2028"]},
    created_at_s=1000.5,
    modified_at_s=1000.5,
)
ENTRY = AuditEntry(
    at_s=1000.5, account_id=ACME, actor="key-1", action="create", kind="gateway", target="gw"
)


@pytest.fixture
async def store(adapter: str, open_database: OpenDatabase) -> AsyncIterator[ControlStore]:
    if adapter == "memory":
        yield MemoryDocumentStore()
    else:
        async with open_database(adapter) as database:
            yield SqlDocumentStore(database)


async def ids_of(store: ControlStore, parent: str, account_id: AccountId = ACME) -> list[str]:
    return [item.id for item in await store.list("provider_config", account_id, parent)]


def child(parent: str, document_id: str = "c1", account_id: AccountId = ACME) -> Document:
    return replace(
        GATEWAY, kind="provider_config", parent=parent, id=document_id, account_id=account_id
    )


async def test_document_comes_back_as_it_was_kept(store: ControlStore) -> None:
    await store.insert(GATEWAY, ENTRY)

    assert await store.get("gateway", ACME, "", "gw") == GATEWAY


async def test_what_is_not_there_is_none(store: ControlStore) -> None:
    await store.insert(GATEWAY, ENTRY)

    assert await store.get("gateway", OTHER, "", "gw") is None
    assert await store.get("gateway", ACME, "", "GW") is None
    assert await store.get("route", ACME, "", "gw") is None


async def test_same_id_twice_is_a_conflict_and_leaves_no_entry(store: ControlStore) -> None:
    await store.insert(GATEWAY, ENTRY)

    with pytest.raises(ConflictError, match="gateway with id 'gw'"):
        await store.insert(replace(GATEWAY, body={}), ENTRY)

    assert await store.get("gateway", ACME, "", "gw") == GATEWAY
    assert len(await store.list_audit(ACME, limit=10)) == 1


async def test_same_id_in_another_account_parent_or_kind_is_another(store: ControlStore) -> None:
    await store.insert(GATEWAY, ENTRY)
    await store.insert(replace(GATEWAY, account_id=OTHER), ENTRY)
    await store.insert(replace(GATEWAY, kind="route"), ENTRY)
    await store.insert(replace(GATEWAY, parent="x"), ENTRY)

    assert len(await store.list("gateway", ACME, "")) == 1


async def test_replaced_document_is_the_new_one(store: ControlStore) -> None:
    await store.insert(GATEWAY, ENTRY)
    after = replace(GATEWAY, body={"cache_ttl": 0}, modified_at_s=2000.0)

    assert await store.replace(after, replace(ENTRY, at_s=2000.0, action="update"))

    assert await store.get("gateway", ACME, "", "gw") == after
    newest, _ = await store.list_audit(ACME, limit=10)
    assert newest.action == "update"


async def test_replacing_nothing_says_so_and_leaves_no_entry(store: ControlStore) -> None:
    assert not await store.replace(GATEWAY, ENTRY)

    assert await store.get("gateway", ACME, "", "gw") is None
    assert not await store.list_audit(ACME, limit=10)


async def test_list_is_newest_first_and_of_one_parent(store: ControlStore) -> None:
    for number, created_at_s in ((1, 10.0), (2, 30.0), (3, 20.0), (4, 20.0)):
        await store.insert(replace(child("gw", f"c{number}"), created_at_s=created_at_s), ENTRY)
    await store.insert(child("gw2", "c5"), ENTRY)

    assert await ids_of(store, "gw") == ["c2", "c4", "c3", "c1"]


async def test_delete_takes_what_is_below_along_and_nothing_else(store: ControlStore) -> None:
    await store.insert(GATEWAY, ENTRY)
    for parent in ("gw", "gw/r1", "gw2", "GW", "GW/r1", "gw_r1", "g", "x/gw"):
        await store.insert(child(parent), ENTRY)
    await store.insert(child("gw", account_id=OTHER), ENTRY)

    assert await store.delete("gateway", ACME, "", "gw", replace(ENTRY, action="delete"))

    assert await store.get("gateway", ACME, "", "gw") is None
    assert await ids_of(store, "gw") == []
    assert await ids_of(store, "gw/r1") == []
    for parent in ("gw2", "GW", "GW/r1", "gw_r1", "g", "x/gw"):
        assert await ids_of(store, parent) == ["c1"], parent
    assert await ids_of(store, "gw", OTHER) == ["c1"]


async def test_delete_of_a_child_takes_its_children_along(store: ControlStore) -> None:
    await store.insert(child("gw", "r1"), ENTRY)
    await store.insert(child("gw/r1"), ENTRY)
    await store.insert(child("r1"), ENTRY)

    assert await store.delete("provider_config", ACME, "gw", "r1", ENTRY)

    assert await ids_of(store, "gw/r1") == []
    assert await ids_of(store, "r1") == ["c1"]


async def test_deleting_nothing_says_so_and_leaves_everything(store: ControlStore) -> None:
    await store.insert(child("gw"), ENTRY)

    assert not await store.delete("gateway", ACME, "", "gw", ENTRY)

    assert await ids_of(store, "gw") == ["c1"]
    assert len(await store.list_audit(ACME, limit=10)) == 1


async def test_around_a_gateway_is_what_its_calls_need(store: ControlStore) -> None:
    await store.insert(GATEWAY, ENTRY)
    await store.insert(replace(GATEWAY, id="gw2"), ENTRY)
    await store.insert(child("gw", "mine"), ENTRY)
    await store.insert(child("gw2", "of-another"), ENTRY)
    await store.insert(replace(child("gw", "route"), kind="route"), ENTRY)
    await store.insert(replace(child("gw/route", "version"), kind="route_version"), ENTRY)
    await store.insert(replace(child("/p", "slug"), kind="custom_provider"), ENTRY)
    await store.insert(child("gw", "of-others", OTHER), ENTRY)

    found = await store.list_around(ACME, "gw")

    assert {item.id for item in found} == {"gw", "mine", "route", "slug"}


async def test_rewrite_changes_bodies_of_all_accounts_and_no_times(store: ControlStore) -> None:
    await store.insert(GATEWAY, ENTRY)
    await store.insert(replace(GATEWAY, account_id=OTHER), ENTRY)
    await store.insert(child("gw"), ENTRY)

    count = await store.rewrite(
        ["gateway"],
        lambda item: {"of": item.account_id} if item.account_id == OTHER else None,
        replace(ENTRY, kind="secret_key"),
    )

    assert count == 1
    assert await store.get("gateway", ACME, "", "gw") == GATEWAY
    assert await store.get("gateway", OTHER, "", "gw") == replace(
        GATEWAY, account_id=OTHER, body={"of": "other"}
    )


async def test_rewrite_that_fails_changes_nothing(store: ControlStore) -> None:
    await store.insert(GATEWAY, ENTRY)

    def fail(_: Document) -> None:
        raise ConflictError("No.")

    with pytest.raises(ConflictError):
        await store.rewrite(["gateway"], fail, ENTRY)

    assert await store.get("gateway", ACME, "", "gw") == GATEWAY
    assert len(await store.list_audit(ACME, limit=10)) == 1


async def test_audit_is_newest_first_of_one_account_with_a_limit(store: ControlStore) -> None:
    for number in range(5):
        entry = replace(ENTRY, at_s=1000.0 + number, changed=("cache_ttl", "dlp"))
        await store.insert(replace(GATEWAY, id=f"gw{number}"), entry)
    await store.insert(replace(GATEWAY, id="x"), replace(ENTRY, account_id=OTHER))

    entries = await store.list_audit(ACME, limit=3, before_s=1004.0)

    assert [entry.at_s for entry in entries] == [1003.0, 1002.0, 1001.0]
    assert entries[0].changed == ("cache_ttl", "dlp")


async def test_audit_of_one_moment_is_in_order(store: ControlStore) -> None:
    for number in range(3):
        await store.insert(replace(GATEWAY, id=f"gw{number}"), replace(ENTRY, target=f"gw{number}"))

    entries = await store.list_audit(ACME, limit=3)

    assert [entry.target for entry in entries] == ["gw2", "gw1", "gw0"]
