from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from openworks.core.errors import StorageError
from openworks.core.ids import AccountId
from openworks.core.json import JsonObject
from openworks.ports.documents import Document
from openworks.services.audit import Actor, Audit
from openworks.services.credentials import Credentials
from openworks.services.custom_providers import CustomProviders
from openworks.services.dynamic_routes import DynamicRoutes
from openworks.services.gateways import Gateways
from openworks.services.sealing import Sealer
from openworks.services.snapshots import MAX_ENTRIES, STALE_S, GatewaySnapshots
from openworks.services.vault import GivenKeys, Vault
from openworks.wire.cloudflare.nouns import NewProviderConfig, ProviderConfigUpdate
from tests.document_store import MemoryDocumentStore
from tests.fakes import CountingIds, FakeClock

ACME = AccountId("acme")
ALICE = Actor(account_id=ACME, name="key-1")
BODY: JsonObject = {
    "cache_ttl": 60,
    "cache_invalidate_on_update": False,
    "collect_logs": True,
    "rate_limiting_interval": 0,
    "rate_limiting_limit": 0,
}
ELEMENTS: list[JsonObject] = [{"id": "start", "type": "start"}]


class SlowStore(MemoryDocumentStore):
    """Answers when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def list_around(self, account_id: AccountId, gateway_id: str) -> Sequence[Document]:
        found = await super().list_around(account_id, gateway_id)
        await self.may_answer.wait()
        return found


@dataclass(frozen=True, kw_only=True)
class World:
    store: SlowStore
    clock: FakeClock
    snapshots: GatewaySnapshots
    gateways: Gateways
    credentials: Credentials
    custom_providers: CustomProviders
    routes: DynamicRoutes

    async def ttl_s(self) -> int:
        snapshot = await self.snapshots.snapshot(ACME, "gw")
        assert snapshot is not None
        return snapshot.gateway.cache_ttl_s


def make_world(store: SlowStore | None = None, *, key: bytes = bytes(32)) -> World:
    """One server process; several may share a store."""
    store = store or SlowStore()
    clock, new_id = FakeClock(), CountingIds()
    vault = Vault(GivenKeys(key.hex()))
    sealer, audit = Sealer(vault), Audit(store, clock)
    snapshots = GatewaySnapshots(store, sealer, audit, clock=clock, patience_s=0.05)
    gateways = Gateways(store, sealer, audit, snapshots, clock=clock)
    return World(
        store=store,
        clock=clock,
        snapshots=snapshots,
        gateways=gateways,
        credentials=Credentials(
            store, vault, audit, gateways, snapshots, clock=clock, new_id=new_id
        ),
        custom_providers=CustomProviders(store, sealer, audit, snapshots, clock=clock),
        routes=DynamicRoutes(
            store,
            audit,
            gateways,
            snapshots,
            clock=clock,
            new_id=new_id,
            check=lambda _: None,
        ),
    )


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = make_world()
    await made.gateways.create(ALICE, {"id": "gw", **BODY})
    yield made
    await made.snapshots.close()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_snapshot_is_in_memory_once_it_was_read(world: World) -> None:
    assert world.snapshots.snapshot_nowait(ACME, "gw") is None

    snapshot = await world.snapshots.snapshot(ACME, "gw")

    assert snapshot is not None
    assert world.snapshots.snapshot_nowait(ACME, "gw") is snapshot
    assert world.snapshots.peek(ACME, "gw") is snapshot.gateway
    assert await world.snapshots.snapshot(ACME, "gw") is snapshot
    assert world.store.reads == 1


async def test_unknown_gateway_is_none_and_not_asked_for_again_at_once(world: World) -> None:
    assert await world.snapshots.snapshot(ACME, "none") is None
    assert await world.snapshots.snapshot(ACME, "none") is None
    assert await world.snapshots.snapshot(AccountId("other"), "gw") is None

    assert world.store.reads == 2


async def test_change_of_another_process_shows_within_two_seconds(world: World) -> None:
    other = make_world(world.store)
    assert await world.ttl_s() == 60
    await other.gateways.update(ALICE, "gw", {**BODY, "cache_ttl": 5})

    assert await world.ttl_s() == 60
    world.clock.advance(2.0)

    assert world.snapshots.snapshot_nowait(ACME, "gw") is None
    assert await world.ttl_s() == 5


async def test_change_of_this_process_shows_at_once(world: World) -> None:
    assert await world.ttl_s() == 60

    await world.gateways.update(ALICE, "gw", {**BODY, "cache_ttl": 5})

    assert await world.ttl_s() == 5


async def test_entry_in_use_is_read_again_before_anybody_must_wait(world: World) -> None:
    other = make_world(world.store)
    await world.snapshots.snapshot(ACME, "gw")
    await other.gateways.update(ALICE, "gw", {**BODY, "cache_ttl": 5})
    world.clock.advance(1.5)

    old = world.snapshots.peek(ACME, "gw")
    await settle()
    new = world.snapshots.peek(ACME, "gw")

    assert old is not None
    assert new is not None
    assert (old.cache_ttl_s, new.cache_ttl_s) == (60, 5)
    assert world.store.reads == 2


async def test_snapshot_stays_the_same_object_until_something_changes(world: World) -> None:
    first = await world.snapshots.snapshot(ACME, "gw")
    for _ in range(3):
        world.clock.advance(2.0)
        assert await world.snapshots.snapshot(ACME, "gw") is first


async def test_many_that_wait_read_once(world: World) -> None:
    found = await asyncio.gather(*(world.snapshots.snapshot(ACME, "gw") for _ in range(50)))

    assert world.store.reads == 1
    assert len({id(snapshot) for snapshot in found}) == 1


async def test_caller_that_leaves_takes_nobodys_answer_away(world: World) -> None:
    world.store.may_answer.clear()
    waiting = [asyncio.create_task(world.snapshots.snapshot(ACME, "gw")) for _ in range(2)]
    await settle()
    waiting[0].cancel()
    await settle()
    world.store.may_answer.set()

    assert await waiting[1] is not None


async def test_read_that_began_before_a_change_is_not_kept(world: World) -> None:
    world.store.may_answer.clear()
    waiting = asyncio.create_task(world.snapshots.snapshot(ACME, "gw"))
    await settle()
    await world.gateways.update(ALICE, "gw", {**BODY, "cache_ttl": 5})
    world.store.may_answer.set()
    await waiting

    assert await world.ttl_s() == 5


async def test_database_that_is_away_is_stood_in_for(world: World) -> None:
    await world.ttl_s()
    world.store.is_away = True

    for _ in range(int(STALE_S / 10) - 1):
        world.clock.advance(10.0)
        assert await world.ttl_s() == 60
    reads = world.store.reads
    assert world.snapshots.peek(ACME, "gw") is not None  # others need not wait
    assert world.store.reads == reads

    world.clock.advance(20.0)
    with pytest.raises(StorageError):
        await world.ttl_s()
    world.store.is_away = False
    assert await world.ttl_s() == 60


async def test_slow_database_is_not_waited_for_long(world: World) -> None:
    await world.ttl_s()
    world.store.may_answer.clear()
    world.clock.advance(3.0)

    assert await asyncio.wait_for(world.ttl_s(), 5.0) == 60
    world.store.may_answer.set()


async def test_database_that_was_never_there_is_an_error(world: World) -> None:
    world.store.is_away = True

    with pytest.raises(StorageError):
        await world.snapshots.snapshot(ACME, "gw")


@pytest.mark.parametrize("gateway_id", ["", "a/b", "x" * 65, "a\0", "/custom-providers"])
async def test_what_is_no_name_is_not_looked_for(world: World, gateway_id: str) -> None:
    assert await world.snapshots.snapshot(ACME, gateway_id) is None
    assert await world.snapshots.snapshot(AccountId("x" * 10_000), "default") is None

    assert world.store.reads == 0
    assert not world.snapshots._entries


async def test_memory_is_bounded(world: World) -> None:
    await world.snapshots.snapshot(ACME, "gw")

    for number in range(MAX_ENTRIES):
        await world.snapshots.snapshot(ACME, f"none-{number}")

    assert world.snapshots.snapshot_nowait(ACME, "gw") is None
    assert len(world.snapshots._entries) == MAX_ENTRIES


async def test_default_gateway_is_made_by_the_first_call(world: World) -> None:
    first = await world.snapshots.snapshot(ACME, "default")

    assert first is not None
    assert first.gateway.authentication
    assert first.gateway.logs.collect
    assert not first.gateway.rate_limits
    assert await world.store.get("gateway", ACME, "", "default") is not None
    assert world.store.audit[-1].actor == "system"


async def test_default_gateway_is_made_once_however_many_ask_first(world: World) -> None:
    worlds = [world, make_world(world.store), make_world(world.store)]

    found = await asyncio.gather(
        *(each.snapshots.snapshot(ACME, "default") for each in worlds),
        *(each.gateways.get(ALICE, "default") for each in worlds),
    )

    assert all(found)
    made = [entry for entry in world.store.audit if entry.target == "default"]
    assert len(made) == 1


async def test_default_gateway_works_when_it_cannot_be_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise StorageError("The database failed: it is locked.")

    monkeypatch.setattr(world.store, "insert", fail)

    assert await world.snapshots.snapshot(ACME, "default") is not None


async def test_snapshot_has_all_that_belongs_to_the_gateway(world: World) -> None:
    await world.credentials.create(ALICE, "gw", config("main", "sk-1", default=True))
    await world.credentials.create(ALICE, "gw", config("spare", "sk-2"))
    await world.custom_providers.create(
        ALICE,
        {
            "name": "Mine",
            "slug": "mine",
            "base_url": "https://x.example",
            "headers": '{"x-key":"v"}',
        },
    )
    await world.routes.create(ALICE, "gw", "route", ELEMENTS)

    snapshot = await world.snapshots.snapshot(ACME, "gw")

    assert snapshot is not None
    main = snapshot.credential("openai")
    assert main is not None
    assert (main.alias, main.secret) == ("main", "sk-1")
    spare = snapshot.credential("openai", "spare")
    assert spare is not None
    assert spare.secret == "sk-2"
    assert snapshot.credential("openai", "none") is None
    assert snapshot.credential("groq") is None
    assert snapshot.custom_providers["mine"].headers == {"x-key": "v"}
    assert snapshot.routes["route"].elements == tuple(ELEMENTS)
    assert "sk-1" not in repr(snapshot)


async def test_every_change_around_a_gateway_shows_at_once(world: World) -> None:
    async def seen() -> Any:
        snapshot = await world.snapshots.snapshot(ACME, "gw")
        assert snapshot is not None
        return (
            {key: item.secret for key, item in snapshot.credentials.items()},
            {slug: item.enabled for slug, item in snapshot.custom_providers.items()},
            {name: item.version_id for name, item in snapshot.routes.items()},
        )

    assert await seen() == ({}, {}, {})
    made = await world.credentials.create(ALICE, "gw", config("main", "sk-1"))
    assert (await seen())[0] == {("openai", "main"): "sk-1"}
    await world.credentials.update(ALICE, "gw", made.id, ProviderConfigUpdate(secret="sk-2"))
    assert (await seen())[0] == {("openai", "main"): "sk-2"}
    await world.credentials.delete(ALICE, "gw", made.id)
    assert (await seen())[0] == {}
    provider: JsonObject = {"name": "M", "slug": "mine", "base_url": "https://x.example"}
    await world.custom_providers.create(ALICE, provider)
    assert (await seen())[1] == {"mine": True}
    await world.custom_providers.update(ALICE, "mine", {"enable": False})
    assert (await seen())[1] == {"mine": False}
    await world.custom_providers.delete(ALICE, "mine")
    assert (await seen())[1] == {}
    route = await world.routes.create(ALICE, "gw", "route", ELEMENTS)
    first = (await seen())[2]["route"]
    _, version = await world.routes.create_version(ALICE, "gw", route.id, ELEMENTS)
    assert (await seen())[2] == {"route": first}
    await world.routes.deploy(ALICE, "gw", route.id, version.id)
    assert (await seen())[2] == {"route": version.id}
    await world.routes.rename(ALICE, "gw", route.id, "other")
    assert (await seen())[2] == {"other": version.id}
    await world.routes.delete(ALICE, "gw", route.id)
    assert (await seen())[2] == {}
    await world.gateways.delete(ALICE, "gw")
    assert await world.snapshots.snapshot(ACME, "gw") is None


async def test_unreadable_credential_is_left_out_and_the_rest_works(world: World) -> None:
    await world.credentials.create(ALICE, "gw", config("main", "sk-1", default=True))
    stranger = make_world(world.store, key=bytes([1]) * 32)

    snapshot = await stranger.snapshots.snapshot(ACME, "gw")

    assert snapshot is not None
    assert not snapshot.credentials
    assert not snapshot.defaults


async def test_alias_default_stands_in_when_none_is_marked(world: World) -> None:
    await world.credentials.create(ALICE, "gw", config("other", "sk-1"))
    await world.credentials.create(ALICE, "gw", config("default", "sk-2"))

    snapshot = await world.snapshots.snapshot(ACME, "gw")

    assert snapshot is not None
    found = snapshot.credential("openai")
    assert found is not None
    assert found.secret == "sk-2"


def config(alias: str, secret: str, *, default: bool = False) -> NewProviderConfig:
    return NewProviderConfig(
        alias=alias, provider_slug="openai", default_config=default, secret=secret
    )


async def test_stranger_who_names_an_account_makes_nothing_there() -> None:
    world = make_world()
    assert await world.snapshots.existing(ACME, "default") is None
    assert await world.snapshots.existing(AccountId("a" * 1000), "default") is None
    assert await world.store.get("gateway", ACME, "", "default") is None
    assert await world.snapshots.snapshot(ACME, "default") is not None
    found = await world.snapshots.existing(ACME, "default")
    assert found is not None
    assert found.gateway.authentication
