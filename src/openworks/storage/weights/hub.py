"""Weights from the Hugging Face Hub, from a path, or from this package."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from threading import Event
from typing import TypeVar

from huggingface_hub import HfApi, close_session, hf_hub_url, scan_cache_dir
from huggingface_hub.errors import CacheNotFound
from huggingface_hub.utils import (  # type: ignore[attr-defined] # lazily exported
    WeakFileLock,
    build_hf_headers,
)

from openworks.core.errors import ModelNotFoundError, ProviderError, StorageError
from openworks.ports.catalog import WeightsSource
from openworks.ports.weights import LocalWeights, Progress, PulledRepo
from openworks.storage.weights import choose
from openworks.storage.weights.cache import HubCache, check_repo, is_commit, is_inside
from openworks.storage.weights.download import Download, DownloadStopped, Patience, RemoteFile
from openworks.storage.weights.hub_errors import translated
from openworks.storage.weights.locate import locate_below, place

T = TypeVar("T")
_LOCK_POLL_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class HubConfig:
    """Where the Hub is, who asks, and where its files are kept."""

    cache_dir: Path
    """The Hub's cache layout; an existing `~/.cache/huggingface/hub` may be shared."""
    endpoint: str = "https://huggingface.co"
    token: str | None = field(default=None, repr=False)
    """None leaves it to the client library, which knows HF_TOKEN and `hf auth login`."""
    timeout_s: float = 20.0
    """Seconds without a byte after which a connection counts as broken."""
    retries: int = 5
    """Attempts in a row to continue a download that may bring nothing new."""
    backoff_s: float = 1.0
    """The pause before the first of them; each further one doubles it."""


@dataclass(frozen=True, slots=True)
class _Listing:
    commit: str
    files: dict[str, RemoteFile]


class HubWeights:
    """`ports.weights.Weights` over a Hub cache; blocking work runs in threads of its own."""

    def __init__(self, config: HubConfig, *, package_dir: Path | None = None) -> None:
        """Hold the configuration; nothing is read or made yet.

        Args:
            config: The Hub and its cache.
            package_dir: Where packaged weights lie; None for `openworks/models`.
        """
        self._config = replace(config, endpoint=config.endpoint.rstrip("/"))
        self._package_dir = package_dir or Path(str(files("openworks"))) / "models"
        self._cache = HubCache(config.cache_dir)
        self._api = HfApi(
            endpoint=self._config.endpoint, token=config.token, library_name="openworks"
        )
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="hub")
        self._stops: set[Event] = set()

    async def close(self) -> None:
        """End downloads, which may be continued later, and wait for their threads."""
        for stop in self._stops:
            stop.set()
        await asyncio.to_thread(self._threads.shutdown)
        close_session()

    def locate(self, source: WeightsSource) -> LocalWeights | None:
        if source.repo is not None:
            root = self._cache.snapshot(source.repo, source.revision)
        elif source.package is not None:
            root = self._package_dir / source.package
        else:
            root = source.path
        if root is None or not root.exists():
            return None
        if source.path is None and not all(is_inside(name) for name in _names(source)):
            return None
        return locate_below(root, file=source.file, mmproj=source.mmproj)

    async def fetch(self, source: WeightsSource, *, on_progress: Progress) -> LocalWeights:
        if source.repo is None or (source.revision is not None and is_commit(source.revision)):
            found = self.locate(source)
            if found is not None:
                return found
        if source.repo is None:
            raise ModelNotFoundError(f"No complete weights found at {place(source)}.")

        loop = asyncio.get_running_loop()
        stop = Event()

        def report(file: str, size_bytes: int, total_bytes: int) -> None:
            if not stop.is_set():
                loop.call_soon_threadsafe(on_progress, file, size_bytes, total_bytes)

        self._stops.add(stop)
        try:
            return await self._in_thread(lambda: self._fetch(source, report, stop))
        except DownloadStopped as error:  # only `close` does this while someone still waits
            raise ProviderError("The server is shutting down; the download was paused.") from error
        finally:
            stop.set()
            self._stops.discard(stop)

    async def resolve_file(self, name: str) -> WeightsSource:
        repo, choice = choose.split_name(name)
        here = self._cache.files(repo, None)
        source = _choose_source(repo, here, choice)
        if source is not None and self.locate(source) is not None:
            return source
        there = list((await self._in_thread(lambda: self._list(repo, None))).files)
        source = _choose_source(repo, there, choice)
        if source is None:
            wanted = "GGUF file" if choice is None else f"GGUF file for '{choice}'"
            raise ModelNotFoundError(f"Repository '{repo}' has no {wanted}. {_offer(there)}")
        return source

    def pulled(self) -> Sequence[PulledRepo]:
        try:
            repos = scan_cache_dir(self._cache.root).repos
        except CacheNotFound:
            return []
        return [
            PulledRepo(
                repo=repo.repo_id,
                files=tuple(
                    sorted(
                        {
                            file.file_path.relative_to(revision.snapshot_path).as_posix()
                            for revision in repo.revisions
                            for file in revision.files
                        }
                    )
                ),
                size_bytes=repo.size_on_disk,
                last_used_s=repo.last_accessed,
            )
            for repo in sorted(repos, key=lambda repo: repo.repo_id)
            if repo.repo_type == "model"
        ]

    async def remove(self, repo: str) -> int:
        with translated(self._config.endpoint, repo):
            return await self._in_thread(lambda: self._cache.remove(repo))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _list(self, repo: str, revision: str | None) -> _Listing:
        check_repo(repo)
        endpoint = self._config.endpoint
        with translated(endpoint, repo, revision=revision):
            info = self._api.model_info(
                repo, revision=revision, files_metadata=True, timeout=self._config.timeout_s
            )
        commit = info.sha
        if commit is None:
            raise ProviderError(f"{endpoint} did not say which commit of '{repo}' it has.")
        listed = {}
        for sibling in info.siblings or ():
            name = sibling.rfilename
            if not is_inside(name):
                raise ProviderError(f"Repository '{repo}' lists '{name}', a path outside itself.")
            size_bytes = sibling.lfs.size if sibling.lfs else sibling.size
            etag = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
            if size_bytes is not None and etag is not None:
                url = hf_hub_url(repo, name, revision=commit, endpoint=endpoint)
                listed[name] = RemoteFile(name=name, url=url, size_bytes=size_bytes, etag=etag)
        return _Listing(commit, listed)

    def _fetch(self, source: WeightsSource, report: Progress, stop: Event) -> LocalWeights:
        repo = source.repo
        assert repo is not None
        listing = self._list(repo, source.revision)
        wanted = [listing.files[name] for name in _wanted(source, listing)]
        with translated(self._config.endpoint, repo):
            self._check_space(repo, wanted)
        for file in wanted:
            with translated(self._config.endpoint, repo, revision=source.revision, file=file.name):
                self._bring(repo, file, report, stop)
        with translated(self._config.endpoint, repo):
            self._cache.link(repo, listing.commit, [(file.name, file.etag) for file in wanted])
            self._cache.point(repo, source.revision, listing.commit)
        found = self.locate(replace(source, revision=listing.commit))
        if found is None:
            raise ProviderError(
                f"Repository '{repo}' is incomplete: its index names missing files."
            )
        return found

    def _bring(self, repo: str, file: RemoteFile, report: Progress, stop: Event) -> None:
        """Have the file's blob in the cache, whoever of the processes here fetches it."""
        blob = self._cache.blob(repo, file.etag)
        with _locked(self._cache.lock(repo, file.etag), stop):
            if blob.exists():
                report(file.name, file.size_bytes, file.size_bytes)
                return
            partial = self._cache.partial(repo, file.etag)
            Download(
                file,
                partial,
                headers=build_hf_headers(token=self._config.token, library_name="openworks"),
                patience=Patience(
                    timeout_s=self._config.timeout_s,
                    retries=self._config.retries,
                    backoff_s=self._config.backoff_s,
                ),
                stop=stop,
                on_bytes=lambda size_bytes: report(file.name, size_bytes, file.size_bytes),
            ).run()
            partial.replace(blob)

    def _check_space(self, repo: str, wanted: Sequence[RemoteFile]) -> None:
        missing_bytes = 0
        for file in wanted:
            if not self._cache.blob(repo, file.etag).exists():
                partial = self._cache.partial(repo, file.etag)
                missing_bytes += file.size_bytes - (
                    partial.stat().st_size if partial.exists() else 0
                )
        self._cache.root.mkdir(parents=True, exist_ok=True)
        free_bytes = shutil.disk_usage(self._cache.root).free
        if missing_bytes > free_bytes:
            raise StorageError(
                f"Repository '{repo}' needs {missing_bytes / 1e9:.1f} GB more, and"
                f" {self._cache.root} has {free_bytes / 1e9:.1f} GB free."
            )


def _names(source: WeightsSource) -> list[str]:
    return [name for name in (source.file, source.mmproj) if name is not None]


def _wanted(source: WeightsSource, listing: _Listing) -> list[str]:
    names = list(listing.files)
    if source.file is not None:
        wanted = list(choose.parts_of(source.file))
    else:
        wanted = choose.snapshot_files(names)
        if not any(choose.is_weights(name) for name in wanted):
            gguf = choose.choose_gguf(names)
            if gguf is None:
                raise ModelNotFoundError(f"Repository '{source.repo}' has no weights.")
            wanted = list(choose.parts_of(gguf))
    if source.mmproj is not None:
        wanted.append(source.mmproj)
    for name in wanted:
        if name not in listing.files:
            raise ModelNotFoundError(
                f"No file found with name '{name}' in repository '{source.repo}'. {_offer(names)}"
            )
    return wanted


def _choose_source(repo: str, names: Sequence[str], choice: str | None) -> WeightsSource | None:
    file = choose.choose_gguf(names, choice)
    if file is None:
        return None
    return WeightsSource(repo=repo, file=file, mmproj=choose.choose_mmproj(names))


def _offer(names: Sequence[str]) -> str:
    models = choose.gguf_models(names)
    return f"It has: {', '.join(models)}." if models else "It has no GGUF file."


@contextmanager
def _locked(path: Path, stop: Event) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(WeakFileLock(path, timeout=_LOCK_POLL_S))
                break
            except TimeoutError:
                if stop.is_set():
                    raise DownloadStopped from None
        yield
