from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from openworks.core.errors import InvalidRequestError, ModelNotFoundError, StorageError
from openworks.core.ids import AccountId
from openworks.ports.adapters import Adapter
from openworks.ports.catalog import Deployment
from openworks.services.deployments import split_name
from tests.adapters import TINY_CHAT
from tests.unit.services.adapters import ACME, CONFIG, GOOD, OTHER, WEIGHTS, Workshop, actor


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


async def adapter_of(shop: Workshop, name: str, account: AccountId = ACME) -> Adapter:
    deployment: Deployment = await shop.deployments.deploy(name, account)
    assert deployment.adapter is not None
    return deployment.adapter


@pytest.mark.parametrize("name", [TINY_CHAT, "tiny-chat", "gpt-4o-mini"])
async def test_plain_name_asks_no_database(shop: Workshop, name: str) -> None:
    shop.store.is_away = True

    deployment = await shop.deployments.deploy(name, ACME)

    assert (deployment.id, deployment.adapter) == (TINY_CHAT, None)


async def test_adapter_is_found_by_all_of_its_names(shop: Workshop) -> None:
    made = await shop.bring()
    names = [
        f"{base}+{reference}"
        for base in (TINY_CHAT, "tiny-chat", "gpt-4o-mini")
        for reference in (made.id, made.name)
    ]

    for name in [*names, made.openai_name]:
        deployment = await shop.deployments.deploy(name, ACME)
        assert deployment.id == f"{TINY_CHAT}+pirate"
        assert deployment.entry.id == TINY_CHAT


async def test_adapter_comes_with_its_files(shop: Workshop) -> None:
    made = await shop.bring()

    adapter = await adapter_of(shop, f"{TINY_CHAT}+pirate")

    assert (adapter.id, adapter.name, adapter.rank) == (made.id, "pirate", 4)
    assert adapter.generation == made.generation
    assert adapter.size_bytes == len(GOOD[WEIGHTS])
    assert {path.name: path.read_bytes() for path in adapter.folder.iterdir()} == GOOD


async def test_openai_name_is_like_openais(shop: Workshop) -> None:
    made = await shop.create()

    assert made.openai_name == f"ft:tiny-chat:acme:pirate:{made.id[-8:]}"


@pytest.mark.parametrize("name", [
    "{base}+nobody", "{base}+", "+pirate", "+", "nobody+pirate", "@openworks/tiny-embed+pirate",
    "{base}+pirate+pirate", "ft:tiny-chat:acme:pirate:00000000", "ft:", "ft:::::",
])  # fmt: skip
async def test_unknown_adapter_is_an_unknown_model(shop: Workshop, name: str) -> None:
    await shop.bring()

    with pytest.raises(ModelNotFoundError):
        await shop.deployments.deploy(name.format(base=TINY_CHAT), ACME)


async def test_adapter_of_another_account_is_an_unknown_model(shop: Workshop) -> None:
    made = await shop.bring()

    for name in (f"{TINY_CHAT}+pirate", f"{TINY_CHAT}+{made.id}", made.openai_name):
        with pytest.raises(ModelNotFoundError) as others:
            await shop.deployments.deploy(name, OTHER)
        assert others.value.message == (
            f"The model {name!r} does not exist or you do not have access to it."
        )


async def test_public_adapter_is_there_for_all(shop: Workshop) -> None:
    made = await shop.bring(public=True)

    for name in (f"{TINY_CHAT}+pirate", f"{TINY_CHAT}+{made.id}", made.openai_name):
        assert (await adapter_of(shop, name, OTHER)).id == made.id


async def test_own_adapter_comes_before_a_public_one(shop: Workshop) -> None:
    shared = await shop.bring(public=True)
    own = await shop.bring(account=OTHER)

    assert (await adapter_of(shop, f"{TINY_CHAT}+pirate", OTHER)).id == own.id
    assert (await adapter_of(shop, f"{TINY_CHAT}+{shared.id}", OTHER)).id == shared.id


async def test_public_adapter_takes_no_older_ones_name(shop: Workshop) -> None:
    first = await shop.bring(public=True)
    shop.clock.advance(5)
    await shop.bring(account=AccountId("impostor"), public=True)

    assert (await adapter_of(shop, f"{TINY_CHAT}+pirate", OTHER)).id == first.id


@pytest.mark.parametrize("there", [None, CONFIG, WEIGHTS])
async def test_adapter_without_its_files_says_what_is_missing(
    shop: Workshop, there: str | None
) -> None:
    made = await shop.create()
    if there is not None:
        await shop.put(made, there)

    with pytest.raises(InvalidRequestError, match="missing required files") as caught:
        await shop.deployments.deploy(f"{TINY_CHAT}+pirate", ACME)

    assert caught.value.code == "finetune_incomplete"


async def test_deleted_adapter_is_gone_at_once_here(shop: Workshop) -> None:
    await shop.bring()
    adapter = await adapter_of(shop, f"{TINY_CHAT}+pirate")

    await shop.finetunes.delete(actor(ACME), "pirate")
    shop.files.forget(shop.deleted[0])

    with pytest.raises(ModelNotFoundError):
        await shop.deployments.deploy(f"{TINY_CHAT}+pirate", ACME)
    assert not adapter.folder.exists()


async def test_calls_with_adapters_ask_the_database_every_two_seconds(shop: Workshop) -> None:
    await shop.bring()
    await adapter_of(shop, f"{TINY_CHAT}+pirate")
    asked = shop.store.lists

    for _ in range(5):
        await adapter_of(shop, f"{TINY_CHAT}+pirate")
    assert shop.store.lists == asked

    shop.clock.advance(2.1)
    await adapter_of(shop, f"{TINY_CHAT}+pirate")
    assert shop.store.lists == asked + 1


async def test_calls_at_once_ask_the_database_once(shop: Workshop) -> None:
    await shop.bring()
    shop.clock.advance(10)
    asked = shop.store.lists

    await asyncio.gather(*(adapter_of(shop, f"{TINY_CHAT}+pirate") for _ in range(8)))

    assert shop.store.lists == asked + 1


async def test_adapter_answers_while_the_database_is_away_for_a_minute(shop: Workshop) -> None:
    await shop.bring()
    await adapter_of(shop, f"{TINY_CHAT}+pirate")
    shop.store.is_away = True

    shop.clock.advance(50)
    await adapter_of(shop, f"{TINY_CHAT}+pirate")

    shop.clock.advance(20)
    with pytest.raises(StorageError):
        await adapter_of(shop, f"{TINY_CHAT}+pirate")


def test_canonical_name_keeps_the_adapter(shop: Workshop) -> None:
    assert shop.deployments.canonical("gpt-4o-mini+pirate") == f"{TINY_CHAT}+pirate"
    assert shop.deployments.canonical("gpt-4o-mini") == TINY_CHAT
    assert shop.deployments.canonical("nobody+pirate") == "nobody+pirate"
    assert shop.deployments.canonical("+") == "+"


async def test_price_of_an_adapter_is_its_base_models(shop: Workshop) -> None:
    assert shop.deployments.resolve(f"{TINY_CHAT}+pirate").id == TINY_CHAT


def test_plus_sign_of_a_models_own_name_is_no_adapter(shop: Workshop) -> None:
    tiny = shop.catalog.find(TINY_CHAT)
    assert tiny is not None
    shop.catalog.serve(tiny.weights["llamacpp"], "c++")

    assert split_name("c++", shop.catalog) == ("c++", "")
    assert split_name("c+++pirate", shop.catalog) == ("c++", "pirate")


async def test_adapters_that_are_not_complete_are_not_offered(shop: Workshop) -> None:
    await shop.create("unfinished")
    await shop.bring("done")
    await shop.bring("theirs", OTHER, public=True)

    assert [item.name for item in await shop.deployments.adapters(ACME)] == ["done"]


async def test_listing_survives_a_deletion_through_another_server(shop: Workshop) -> None:
    made = await shop.bring()
    await shop.deployments.adapters(ACME)
    await shop.store.delete("finetune", ACME, "", "pirate", replace(shop.store.audit[0]))

    assert [item.id for item in await shop.deployments.adapters(ACME)] == [made.id]
    shop.clock.advance(2.1)
    assert await shop.deployments.adapters(ACME) == []
