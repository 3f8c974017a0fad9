"""Weights are found, fetched whatever the network does, listed and removed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TypeAlias

import pytest
from huggingface_hub import hf_hub_download

from openworks.core.errors import (
    InvalidRequestError,
    ModelNotFoundError,
    PermissionDeniedError,
    ProviderError,
    ProviderTimeoutError,
    StorageError,
)
from openworks.ports.catalog import WeightsSource
from openworks.ports.weights import LocalWeights, Weights
from openworks.storage.weights.hub import HubConfig, HubWeights
from tests.hub_server import HubRepo, HubServer, sha256

MEGABYTE = 1024 * 1024
GGUF = "Qwen/Qwen3-0.6B-GGUF"
CHAT = "acme/chat"
GATED = "acme/gated-GGUF"
SPLIT = "acme/large-GGUF"
VISION = "acme/vision-GGUF"
Q8 = "Qwen3-0.6B-Q8_0.gguf"
SPLIT_PARTS = tuple(f"Q4_K_M/large-Q4_K_M-0000{part}-of-00003.gguf" for part in (1, 2, 3))
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = b'{"weight_map": {"a": "%s", "b": "%s"}}' % (SHARDS[0].encode(), SHARDS[1].encode())
MODEL = WeightsSource(repo=GGUF, file=Q8)


def some_bytes(size_bytes: int, seed: int = 0) -> bytes:
    return Random(seed).randbytes(size_bytes)


def the_repos() -> dict[str, HubRepo]:
    return {
        GGUF: HubRepo(
            {
                "README.md": b"# Qwen",
                Q8: some_bytes(3 * MEGABYTE),
                "Qwen3-0.6B-Q4_0.gguf": some_bytes(MEGABYTE, 1),
            }
        ),
        CHAT: HubRepo(
            {
                "README.md": b"# Chat",
                "config.json": b'{"model_type": "llama"}',
                "tokenizer.json": b"{}",
                "tokenizer.model": b"pieces",
                "model.safetensors.index.json": INDEX,
                SHARDS[0]: some_bytes(1000, 2),
                SHARDS[1]: some_bytes(1000, 3),
                "pytorch_model.bin": some_bytes(2000, 4),
                "original/consolidated.00.pth": some_bytes(2000, 5),
                "logo.png": b"png",
            }
        ),
        GATED: HubRepo({"gated-Q8_0.gguf": some_bytes(1000, 6)}, is_gated=True),
        SPLIT: HubRepo({name: some_bytes(1000 + n, n) for n, name in enumerate(SPLIT_PARTS)}),
        VISION: HubRepo(
            {
                "vision-Q4_K_M.gguf": some_bytes(1000, 7),
                "mmproj-vision-F16.gguf": some_bytes(500, 8),
            }
        ),
    }


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with HubServer(the_repos()) as server:
        yield server


@pytest.fixture
def config(hub: HubServer, tmp_path: Path) -> HubConfig:
    return HubConfig(
        cache_dir=tmp_path / "hub", endpoint=hub.url, timeout_s=5.0, retries=2, backoff_s=0.0
    )


OpenWeights: TypeAlias = Callable[[HubConfig], HubWeights]


@pytest.fixture
async def open_weights(tmp_path: Path) -> AsyncIterator[OpenWeights]:
    opened: list[HubWeights] = []

    def open_(config: HubConfig) -> HubWeights:
        opened.append(HubWeights(config, package_dir=tmp_path / "models"))
        return opened[-1]

    yield open_
    for weights in opened:
        await weights.close()


@pytest.fixture
def weights(config: HubConfig, open_weights: OpenWeights) -> Weights:
    return open_weights(config)


class Progress:
    """Remembers every report."""

    def __init__(self) -> None:
        self.reports: list[tuple[str, int, int]] = []
        self.any = asyncio.Event()

    def __call__(self, file: str, size_bytes: int, total_bytes: int) -> None:
        self.reports.append((file, size_bytes, total_bytes))
        if size_bytes > 0:
            self.any.set()

    def sizes(self, file: str) -> list[int]:
        return [size_bytes for name, size_bytes, _ in self.reports if name == file]


def ignore(_file: str, _size_bytes: int, _total_bytes: int) -> None:
    pass


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# Found and fetched


async def test_fetched_file_is_where_locate_finds_it(weights: Weights, hub: HubServer) -> None:
    assert weights.locate(MODEL) is None

    fetched = await weights.fetch(MODEL, on_progress=ignore)

    assert fetched.path.name == Q8
    assert fetched.path.read_bytes() == hub.repos[GGUF].files[Q8]
    assert fetched.size_bytes == 3 * MEGABYTE
    assert weights.locate(MODEL) == fetched


async def test_locate_asks_nothing_of_the_network(weights: Weights, hub: HubServer) -> None:
    await weights.fetch(MODEL, on_progress=ignore)
    asked = len(hub.seen)

    assert weights.locate(MODEL) is not None
    assert weights.locate(replace(MODEL, file="other.gguf")) is None

    assert len(hub.seen) == asked


async def test_file_that_is_here_is_not_downloaded_again(weights: Weights, hub: HubServer) -> None:
    await weights.fetch(MODEL, on_progress=ignore)
    progress = Progress()

    await weights.fetch(MODEL, on_progress=progress)

    assert len(hub.downloads()) == 1
    assert progress.reports == [(Q8, 3 * MEGABYTE, 3 * MEGABYTE)]


async def test_progress_grows_to_the_whole_file(weights: Weights) -> None:
    progress = Progress()

    await weights.fetch(MODEL, on_progress=progress)

    sizes = progress.sizes(Q8)
    assert sizes[0] == 0
    assert sizes == sorted(sizes)
    assert len(sizes) > 3
    assert progress.reports[-1] == (Q8, 3 * MEGABYTE, 3 * MEGABYTE)


async def test_every_part_of_a_split_model_is_fetched(weights: Weights) -> None:
    source = WeightsSource(repo=SPLIT, file=SPLIT_PARTS[0])

    fetched = await weights.fetch(source, on_progress=ignore)

    assert fetched.path.name == Path(SPLIT_PARTS[0]).name
    assert names_in(fetched.path.parent) == [Path(name).name for name in SPLIT_PARTS]
    assert fetched.size_bytes == 1000 + 1001 + 1002


async def test_split_model_without_one_part_is_not_located(weights: Weights) -> None:
    source = WeightsSource(repo=SPLIT, file=SPLIT_PARTS[0])
    fetched = await weights.fetch(source, on_progress=ignore)

    (fetched.path.parent / Path(SPLIT_PARTS[2]).name).unlink()

    assert weights.locate(source) is None


async def test_vision_projector_comes_along(weights: Weights) -> None:
    source = WeightsSource(repo=VISION, file="vision-Q4_K_M.gguf", mmproj="mmproj-vision-F16.gguf")

    fetched = await weights.fetch(source, on_progress=ignore)

    assert fetched.mmproj is not None
    assert fetched.mmproj.read_bytes() == some_bytes(500, 8)
    assert fetched.size_bytes == 1500
    assert weights.locate(source) == fetched


async def test_whole_repository_comes_without_pickles_and_pictures(weights: Weights) -> None:
    source = WeightsSource(repo=CHAT)

    fetched = await weights.fetch(source, on_progress=ignore)

    assert names_in(fetched.path) == [
        "config.json",
        *SHARDS,
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer.model",
    ]
    assert weights.locate(source) == fetched


async def test_whole_repository_without_a_shard_is_not_located(
    weights: Weights, hub: HubServer
) -> None:
    source = WeightsSource(repo=CHAT)
    hub.corrupt.add(SHARDS[1])

    with pytest.raises(ProviderError):
        await weights.fetch(source, on_progress=ignore)

    assert weights.locate(source) is None


async def test_whole_repository_of_gguf_files_means_the_preferred_one(weights: Weights) -> None:
    fetched = await weights.fetch(WeightsSource(repo=GGUF), on_progress=ignore)

    assert fetched.path.name == "Qwen3-0.6B-Q4_0.gguf"
    assert weights.locate(WeightsSource(repo=GGUF)) == fetched


async def test_moved_branch_is_fetched_anew_and_a_commit_stays(
    weights: Weights, hub: HubServer
) -> None:
    first_commit = hub.repos[GGUF].commit
    await weights.fetch(MODEL, on_progress=ignore)
    hub.repos[GGUF].files[Q8] = some_bytes(1000, 9)

    second = await weights.fetch(MODEL, on_progress=ignore)
    asked = len(hub.seen)
    first = await weights.fetch(replace(MODEL, revision=first_commit), on_progress=ignore)

    assert second.path.read_bytes() == some_bytes(1000, 9)
    assert first.size_bytes == 3 * MEGABYTE
    assert len(hub.seen) == asked  # a commit that is here needs no network


async def test_hubs_own_client_finds_what_was_fetched(weights: Weights, config: HubConfig) -> None:
    fetched = await weights.fetch(MODEL, on_progress=ignore)

    found = hf_hub_download(GGUF, Q8, cache_dir=config.cache_dir, local_files_only=True)

    assert Path(found) == fetched.path


async def test_two_fetches_at_once_download_once(weights: Weights, hub: HubServer) -> None:
    both = await asyncio.gather(
        weights.fetch(MODEL, on_progress=ignore), weights.fetch(MODEL, on_progress=ignore)
    )

    assert both[0] == both[1]
    assert len(hub.downloads()) == 1


# What the network does


async def test_broken_download_resumes_where_it_stopped(weights: Weights, hub: HubServer) -> None:
    hub.cuts.extend([2 * MEGABYTE])

    fetched = await weights.fetch(MODEL, on_progress=ignore)

    first, second = hub.downloads()
    assert first.range is None
    assert second.range == f"bytes={2 * MEGABYTE}-"
    assert sha256(fetched.path.read_bytes()) == sha256(hub.repos[GGUF].files[Q8])


async def test_download_that_keeps_breaking_goes_on_while_bytes_come(
    weights: Weights, hub: HubServer
) -> None:
    hub.cuts.extend([MEGABYTE // 2] * 5)  # more often than `retries`, and each brings something

    fetched = await weights.fetch(MODEL, on_progress=ignore)

    assert len(hub.downloads()) == 6
    assert fetched.path.read_bytes() == hub.repos[GGUF].files[Q8]


async def test_later_process_continues_what_an_earlier_one_began(
    config: HubConfig, open_weights: OpenWeights, hub: HubServer
) -> None:
    hub.cuts.extend([MEGABYTE])
    with pytest.raises(ProviderError):
        await open_weights(replace(config, retries=0)).fetch(MODEL, on_progress=ignore)
    progress = Progress()

    fetched = await open_weights(config).fetch(MODEL, on_progress=progress)

    assert hub.downloads()[-1].range == f"bytes={MEGABYTE}-"
    assert progress.sizes(Q8)[0] == MEGABYTE
    assert fetched.path.read_bytes() == hub.repos[GGUF].files[Q8]


async def test_server_that_ignores_ranges_is_read_from_the_start(
    weights: Weights, hub: HubServer
) -> None:
    hub.cuts.extend([MEGABYTE])
    hub.ignores_ranges = True

    fetched = await weights.fetch(MODEL, on_progress=ignore)

    assert fetched.path.read_bytes() == hub.repos[GGUF].files[Q8]


async def test_busy_server_is_asked_again(weights: Weights, hub: HubServer) -> None:
    hub.statuses.extend([503, 429])

    fetched = await weights.fetch(MODEL, on_progress=ignore)

    assert fetched.path.read_bytes() == hub.repos[GGUF].files[Q8]


async def test_server_that_stays_busy_is_named(weights: Weights, hub: HubServer) -> None:
    hub.statuses.extend([503] * 3)

    with pytest.raises(ProviderError, match=rf"HTTP 503 for '{Q8}' of repository '{GGUF}'"):
        await weights.fetch(MODEL, on_progress=ignore)


@pytest.mark.parametrize(
    "source", [MODEL, WeightsSource(repo=CHAT)], ids=["large file", "small file"]
)
async def test_damaged_file_is_deleted_and_reported(
    weights: Weights, hub: HubServer, config: HubConfig, source: WeightsSource
) -> None:
    hub.corrupt |= {Q8, "config.json"}

    with pytest.raises(ProviderError, match="checksum") as raised:
        await weights.fetch(source, on_progress=ignore)

    assert raised.value.code == "checksum_mismatch"
    assert weights.locate(source) is None
    assert not any(name.endswith(".incomplete") for name in names_in(config.cache_dir))

    hub.corrupt.clear()
    await weights.fetch(source, on_progress=ignore)
    assert weights.locate(source) is not None


async def test_damaged_rest_of_a_resumed_file_is_noticed(weights: Weights, hub: HubServer) -> None:
    hub.cuts.extend([MEGABYTE])
    hub.corrupt.add(Q8)

    with pytest.raises(ProviderError, match="checksum"):
        await weights.fetch(MODEL, on_progress=ignore)


async def test_unreachable_hub_says_what_to_do_offline(weights: Weights, hub: HubServer) -> None:
    hub.stop()

    with pytest.raises(ProviderError, match="copy the file to this machine and pass its path"):
        await weights.fetch(MODEL, on_progress=ignore)


async def test_server_that_is_no_hub_is_named(weights: Weights, hub: HubServer) -> None:
    hub.is_portal = True

    with pytest.raises(ProviderError, match=f"{hub.url} did not answer as a Hub does"):
        await weights.fetch(MODEL, on_progress=ignore)


async def test_hub_that_falls_silent_times_out_and_keeps_what_came(
    config: HubConfig, open_weights: OpenWeights, hub: HubServer
) -> None:
    hub.stalls_after = MEGABYTE
    impatient = open_weights(replace(config, timeout_s=0.1, retries=0))

    with pytest.raises(ProviderTimeoutError, match="asking again continues"):
        await impatient.fetch(MODEL, on_progress=ignore)

    hub.stalls_after = None
    await open_weights(config).fetch(MODEL, on_progress=ignore)
    assert hub.downloads()[-1].range == f"bytes={MEGABYTE}-"


async def test_cancelled_fetch_keeps_what_came(weights: Weights, hub: HubServer) -> None:
    hub.stalls_after = MEGABYTE
    progress = Progress()
    task = asyncio.create_task(weights.fetch(MODEL, on_progress=progress))
    await progress.any.wait()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    hub.stalls_after = None
    hub.go_on.set()
    fetched = await weights.fetch(MODEL, on_progress=ignore)
    assert hub.downloads()[-1].range is not None
    assert fetched.path.read_bytes() == hub.repos[GGUF].files[Q8]


async def test_closing_ends_a_fetch_that_someone_waits_for(
    config: HubConfig, open_weights: OpenWeights, hub: HubServer
) -> None:
    hub.stalls_after = MEGABYTE
    weights = open_weights(config)
    progress = Progress()
    task = asyncio.create_task(weights.fetch(MODEL, on_progress=progress))
    await progress.any.wait()

    closing = asyncio.create_task(weights.close())
    await asyncio.sleep(0)
    hub.go_on.set()

    with pytest.raises(ProviderError, match="paused"):
        await task
    await closing


# Who may read what


async def test_missing_repository_is_named(weights: Weights) -> None:
    with pytest.raises(ModelNotFoundError, match="'acme/nothing'"):
        await weights.fetch(WeightsSource(repo="acme/nothing", file="x.gguf"), on_progress=ignore)


async def test_missing_file_is_named_beside_those_there_are(weights: Weights) -> None:
    source = WeightsSource(repo=GGUF, file="Qwen3-Q2_K.gguf")

    with pytest.raises(ModelNotFoundError, match=rf"'Qwen3-Q2_K.gguf'.*'{GGUF}'.*{Q8}"):
        await weights.fetch(source, on_progress=ignore)


async def test_missing_revision_is_named(weights: Weights) -> None:
    with pytest.raises(ModelNotFoundError, match=f"'{GGUF}' has no revision 'v9'"):
        await weights.fetch(replace(MODEL, revision="v9"), on_progress=ignore)


async def test_gated_repository_says_how_to_get_in(weights: Weights, hub: HubServer) -> None:
    source = WeightsSource(repo=GATED, file="gated-Q8_0.gguf")

    with pytest.raises(PermissionDeniedError, match=f"accept its licence at {hub.url}/{GATED}.*"):
        await weights.fetch(source, on_progress=ignore)


async def test_token_opens_a_gated_repository_and_stays_with_the_hub(
    config: HubConfig, open_weights: OpenWeights, hub: HubServer
) -> None:
    weights = open_weights(replace(config, token="hf_licensed"))

    await weights.fetch(WeightsSource(repo=GATED, file="gated-Q8_0.gguf"), on_progress=ignore)

    to_hub = {request.authorization for request in hub.seen if request not in hub.downloads()}
    assert to_hub == {"Bearer hf_licensed"}
    assert [request.authorization for request in hub.downloads()] == [None]


def test_config_hides_the_token(config: HubConfig) -> None:
    assert "hf_secret" not in repr(replace(config, token="hf_secret"))


@pytest.mark.parametrize("repo", ["../../etc", "a/b/c", "", "/etc", "a/..", "a/b:Q8_0"])
async def test_name_that_is_no_repository_is_refused(weights: Weights, repo: str) -> None:
    with pytest.raises(InvalidRequestError, match="owner/name"):
        await weights.fetch(WeightsSource(repo=repo), on_progress=ignore)
    with pytest.raises(InvalidRequestError, match="owner/name"):
        await weights.remove(repo)


async def test_repository_cannot_write_outside_its_folder(
    weights: Weights, hub: HubServer, config: HubConfig
) -> None:
    hub.repos[CHAT].files["../../../../evil.json"] = b"{}"

    with pytest.raises(ProviderError, match=r"evil\.json.* outside"):
        await weights.fetch(WeightsSource(repo=CHAT), on_progress=ignore)

    assert "evil.json" not in names_in(config.cache_dir.parent)


async def test_file_outside_the_repository_is_not_located(weights: Weights, tmp_path: Path) -> None:
    await weights.fetch(MODEL, on_progress=ignore)
    (tmp_path / "outside.gguf").write_bytes(b"GGUF")

    assert weights.locate(replace(MODEL, file="../../../../outside.gguf")) is None
    assert weights.locate(replace(MODEL, file=str(tmp_path / "outside.gguf"))) is None


async def test_model_that_does_not_fit_the_disk_is_not_begun(
    weights: Weights, hub: HubServer
) -> None:
    hub.repos[GGUF].listed_sizes[Q8] = 10**18

    with pytest.raises(StorageError, match=r"1000000000\.0 GB"):
        await weights.fetch(MODEL, on_progress=ignore)

    assert hub.downloads() == []


# Names


@pytest.mark.parametrize(
    ("name", "file"),
    [
        (GGUF, "Qwen3-0.6B-Q4_0.gguf"),
        (f"{GGUF}:Q8_0", Q8),
        (f"{GGUF}:q8_0", Q8),
        (f"{GGUF}:{Q8}", Q8),
        (SPLIT, SPLIT_PARTS[0]),
    ],
)
async def test_bare_name_is_resolved_to_a_file(weights: Weights, name: str, file: str) -> None:
    source = await weights.resolve_file(name)

    assert source == WeightsSource(repo=name.partition(":")[0], file=file)


async def test_bare_name_of_a_seeing_model_brings_its_projector(weights: Weights) -> None:
    assert await weights.resolve_file(VISION) == WeightsSource(
        repo=VISION, file="vision-Q4_K_M.gguf", mmproj="mmproj-vision-F16.gguf"
    )


async def test_bare_name_prefers_what_is_here_and_needs_no_network_then(
    weights: Weights, hub: HubServer
) -> None:
    await weights.fetch(MODEL, on_progress=ignore)
    hub.stop()

    assert await weights.resolve_file(GGUF) == MODEL


async def test_quantisation_that_is_not_there_is_named(weights: Weights) -> None:
    with pytest.raises(ModelNotFoundError, match=f"'{GGUF}' has no GGUF file for 'Q2_K'.*{Q8}"):
        await weights.resolve_file(f"{GGUF}:Q2_K")


async def test_repository_without_gguf_says_so(weights: Weights) -> None:
    with pytest.raises(ModelNotFoundError, match=f"'{CHAT}' has no GGUF file"):
        await weights.resolve_file(CHAT)


# On this machine


async def test_path_is_located_and_fetched_as_it_is(weights: Weights, tmp_path: Path) -> None:
    file = tmp_path / "mine.gguf"
    file.write_bytes(b"GGUF")
    expected = LocalWeights(path=file, mmproj=None, size_bytes=4)

    assert weights.locate(WeightsSource(path=file)) == expected
    assert weights.locate(WeightsSource(path=tmp_path, file="mine.gguf")) == expected
    assert await weights.fetch(WeightsSource(path=file), on_progress=ignore) == expected


async def test_packaged_weights_are_located_by_folder_and_file(
    weights: Weights, tmp_path: Path
) -> None:
    folder = tmp_path / "models" / "tiny"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"1234")
    (folder / "config.json").write_bytes(b"{}")
    (folder / "tiny.gguf").write_bytes(b"GGUF")

    whole = weights.locate(WeightsSource(package="tiny"))
    file = weights.locate(WeightsSource(package="tiny", file="tiny.gguf"))

    assert whole == LocalWeights(path=folder, mmproj=None, size_bytes=6)
    assert file == LocalWeights(path=folder / "tiny.gguf", mmproj=None, size_bytes=4)


@pytest.mark.parametrize("file", [None, "x.gguf"])
async def test_missing_path_is_named(weights: Weights, tmp_path: Path, file: str | None) -> None:
    source = WeightsSource(path=tmp_path / "nowhere", file=file)

    assert weights.locate(source) is None
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        await weights.fetch(source, on_progress=ignore)


async def test_missing_packaged_weights_are_named(weights: Weights) -> None:
    with pytest.raises(ModelNotFoundError, match="'tiny' in this package"):
        await weights.fetch(WeightsSource(package="tiny"), on_progress=ignore)


async def test_pulled_repositories_are_listed_with_their_files(weights: Weights) -> None:
    assert weights.pulled() == []
    fetched = await weights.fetch(MODEL, on_progress=ignore)
    await weights.fetch(WeightsSource(repo=SPLIT, file=SPLIT_PARTS[0]), on_progress=ignore)
    os.utime(fetched.path, (1_790_000_000.0, 1_790_000_000.0))

    qwen, large = weights.pulled()

    assert (qwen.repo, qwen.files, qwen.size_bytes) == (GGUF, (Q8,), 3 * MEGABYTE)
    assert qwen.last_used_s == 1_790_000_000.0
    assert (large.repo, large.files) == (SPLIT, SPLIT_PARTS)


async def test_removed_repository_is_gone_and_its_bytes_are_counted(
    weights: Weights, config: HubConfig
) -> None:
    await weights.fetch(MODEL, on_progress=ignore)

    freed = await weights.remove(GGUF)

    assert 3 * MEGABYTE <= freed < 3 * MEGABYTE + 200
    assert weights.locate(MODEL) is None
    assert weights.pulled() == []
    assert await weights.remove(GGUF) == 0
