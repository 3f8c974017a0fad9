from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from openworks.core.errors import ConflictError, InvalidRequestError, NotFoundError, StorageError
from openworks.services.finetunes import FinetunesConfig
from tests.adapters import adapter_config, adapter_tensors, safetensors
from tests.unit.services.adapters import (
    ACME,
    CONFIG,
    OTHER,
    WEIGHTS,
    Workshop,
    actor,
)


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


async def blobs_of(shop: Workshop) -> list[str]:
    return [name async for name in shop.blobs.list("adapters")]


async def test_refused_file_leaves_nothing(shop: Workshop) -> None:
    made = await shop.create()

    with pytest.raises(InvalidRequestError):
        await shop.put(made, WEIGHTS, safetensors(adapter_tensors(layers=7)))

    assert await blobs_of(shop) == []
    assert [item.kind for item in shop.store.documents] == ["finetune"]


async def test_bytes_that_cannot_be_kept_leave_no_row(shop: Workshop, tmp_path: Path) -> None:
    made = await shop.create()
    (tmp_path / "blobs" / "adapters").write_bytes(b"in the way")

    with pytest.raises(StorageError):
        await shop.put(made, CONFIG)

    assert [item.kind for item in shop.store.documents] == ["finetune"]


async def test_files_that_come_at_once_are_checked_against_each_other(shop: Workshop) -> None:
    made = await shop.create()

    results = await asyncio.gather(
        shop.put(made, CONFIG, adapter_config(r=8)), shop.put(made, WEIGHTS), return_exceptions=True
    )

    assert [type(result) for result in results].count(InvalidRequestError) == 1
    (left,) = await shop.finetunes.list(ACME)
    assert not left.is_ready
    assert len(await blobs_of(shop)) == 1


async def test_same_file_that_comes_twice_at_once_is_kept_once(shop: Workshop) -> None:
    made = await shop.create()

    results = await asyncio.gather(
        shop.put(made, CONFIG, adapter_config(lora_alpha=1)),
        shop.put(made, CONFIG, adapter_config(lora_alpha=2)),
        return_exceptions=True,
    )

    assert [type(result) for result in results].count(ConflictError) == 1
    assert len(await blobs_of(shop)) == 1


async def test_file_that_comes_after_the_deletion_finds_nothing(shop: Workshop) -> None:
    made = await shop.create()

    deleted, uploaded = await asyncio.gather(
        shop.finetunes.delete(actor(ACME), made.id), shop.put(made, CONFIG), return_exceptions=True
    )

    assert not isinstance(deleted, BaseException)
    assert isinstance(uploaded, NotFoundError)
    assert shop.store.documents == []
    assert await blobs_of(shop) == []


async def test_uploading_again_completes_what_was_cut_off(shop: Workshop) -> None:
    made = await shop.bring()
    (row,) = (item for item in shop.store.documents if item.kind == "finetune")
    row.body["assets"] = {}  # as before the last step
    await shop.store.replace(row, shop.store.audit[0])

    with pytest.raises(ConflictError):
        await shop.put(made, CONFIG)

    (again,) = await shop.finetunes.list(ACME)
    assert again.is_ready
    assert again.generation == made.generation


async def test_generation_follows_either_file(shop: Workshop) -> None:
    first = await shop.bring("first")
    same = await shop.bring("same")
    other = await shop.create("other")
    await shop.put(other, CONFIG, adapter_config(lora_alpha=32))
    other = await shop.put(other, WEIGHTS)

    assert first.generation == same.generation != other.generation


async def test_deletion_tells_those_who_hold_it(shop: Workshop) -> None:
    made = await shop.bring(public=True)

    await shop.finetunes.delete(actor(ACME), "pirate")

    assert [item.id for item in shop.deleted] == [made.id]
    assert shop.store.documents == []
    assert await shop.finetunes.list_public() == []


async def test_another_account_finds_nothing_to_change(shop: Workshop) -> None:
    made = await shop.bring(public=True)

    for reference in (made.id, made.name):
        with pytest.raises(NotFoundError, match="not found"):
            await shop.finetunes.delete(actor(OTHER), reference)


async def test_account_has_no_more_than_it_may(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, FinetunesConfig(per_account=2))
    await shop.create("a")
    await shop.create("b")

    with pytest.raises(ConflictError, match="limit"):
        await shop.create("c")
    await shop.create("c", OTHER)


async def test_account_may_be_called_as_it_likes(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    made = await shop.create("pirate", type(ACME)("../My Team/é"))

    await shop.put(made, CONFIG)

    (name,) = await blobs_of(shop)
    assert name.startswith(f"adapters/%2E%2E%2FMy%20Team%2F%C3%A9/{made.id}/")
