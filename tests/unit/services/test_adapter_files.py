from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from openworks.core.errors import StorageError
from openworks.services import adapter_files
from openworks.services.adapter_files import AdapterFiles
from openworks.services.finetune_documents import Finetune
from tests.unit.services.adapters import GOOD, Workshop

SIZE = sum(map(len, GOOD.values()))


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path, local_bytes=2 * SIZE)


def here(shop: Workshop) -> set[str]:
    return {path.name for path in (shop.folder / "adapters").iterdir()}


async def use(shop: Workshop, *finetunes: Finetune) -> None:
    """Use adapters one after the other, each for so long that it may go."""
    for finetune in finetunes:
        await shop.files.bring(finetune)
        shop.clock.advance(61)


async def test_those_who_want_the_same_share_one_fetch(shop: Workshop) -> None:
    made = await shop.bring()

    await asyncio.gather(*(shop.files.bring(made) for _ in range(10)))
    await shop.files.bring(made)

    assert len(shop.blobs.brought) == 2


async def test_folder_is_looked_at_once_by_all_first_fetches(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second look, while files arrive, would delete them as what a crash has left."""
    made = [await shop.bring(name) for name in "abc"]
    looks: list[Path] = []

    def look(folder: Path) -> dict[str, int]:
        looks.append(folder)
        return found(folder)

    found = adapter_files._found
    monkeypatch.setattr(adapter_files, "_found", look)
    await asyncio.gather(*(shop.files.bring(finetune) for finetune in made))

    assert len(looks) == 1
    assert here(shop) == {finetune.id for finetune in made}


async def test_caller_who_leaves_does_not_end_the_fetch_of_others(shop: Workshop) -> None:
    made = await shop.bring()
    leaver = asyncio.create_task(shop.files.bring(made))
    stayer = asyncio.create_task(shop.files.bring(made))
    await asyncio.sleep(0)

    leaver.cancel()

    assert (await stayer).folder.is_dir()
    with pytest.raises(asyncio.CancelledError):
        await leaver
    assert len(shop.blobs.brought) == 2


async def test_least_recently_used_makes_room(shop: Workshop) -> None:
    a, b, c = [await shop.bring(name) for name in "abc"]

    await use(shop, a, b, a, c)

    assert here(shop) == {a.id, c.id}


async def test_what_an_engine_may_be_about_to_read_stays(shop: Workshop) -> None:
    made = [await shop.bring(name) for name in "abcd"]

    for finetune in made:
        await shop.files.bring(finetune)
    assert len(here(shop)) == 4

    await use(shop, await shop.bring("e"))
    await use(shop, await shop.bring("f"))
    assert len(here(shop)) == 2


async def test_files_of_an_earlier_run_are_used_again(shop: Workshop) -> None:
    made = await shop.bring()
    await shop.files.bring(made)
    (shop.folder / "adapters" / ".arriving-half").mkdir()
    later = AdapterFiles(shop.blobs, shop.folder / "adapters", max_bytes=2 * SIZE, clock=shop.clock)

    await later.bring(made)

    assert len(shop.blobs.brought) == 2
    assert here(shop) == {made.id}


async def test_files_that_someone_cleaned_up_are_fetched_again(shop: Workshop) -> None:
    made = await shop.bring()
    adapter = await shop.files.bring(made)
    for path in adapter.folder.iterdir():
        path.unlink()
    adapter.folder.rmdir()

    assert {path.name for path in (await shop.files.bring(made)).folder.iterdir()} == set(GOOD)


async def test_lost_blob_is_said_and_leaves_nothing_half(shop: Workshop) -> None:
    made = await shop.bring()
    await shop.blobs.delete(next(iter(made.assets.values())).blob)

    with pytest.raises(StorageError, match="missing, or not whole"):
        await shop.files.bring(made)

    assert made.id not in here(shop)


async def test_fetch_that_failed_is_tried_again(shop: Workshop) -> None:
    made = await shop.bring()
    asset = next(iter(made.assets.values()))
    data = await shop.blobs.get(asset.blob)
    assert data is not None
    await shop.blobs.delete(asset.blob)
    with pytest.raises(StorageError):
        await shop.files.bring(made)

    await shop.blobs.put(asset.blob, data)

    assert (await shop.files.bring(made)).folder.is_dir()


async def test_closing_ends_what_is_fetched(shop: Workshop) -> None:
    made = await shop.bring()
    waiting = asyncio.create_task(shop.files.bring(made))
    await asyncio.sleep(0)

    await shop.files.close()

    with pytest.raises(asyncio.CancelledError):
        await waiting
