"""The Hub's cache layout on disk, which its own tools read and write too."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined] # lazily exported

from openworks.core.errors import InvalidRequestError

_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubCache:
    """A folder of repositories: `models--owner--name/{blobs,refs,snapshots}`.

    A blob is named for its checksum and enters complete and verified; a snapshot links to blobs.
    See https://huggingface.co/docs/huggingface_hub/guides/manage-cache.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def snapshot(self, repo: str, revision: str | None) -> Path | None:
        """Find the folder of a revision's files; None when nothing of it is here."""
        folder = self._folder(repo)
        commit = revision or "main"
        if not is_commit(commit):
            ref = folder / "refs" / _inside(commit)
            if not ref.is_file():
                return None
            commit = ref.read_text().strip()
        snapshot = folder / "snapshots" / _inside(commit)
        return snapshot if snapshot.is_dir() else None

    def files(self, repo: str, revision: str | None) -> list[str]:
        """Name the files of a revision that are here."""
        snapshot = self.snapshot(repo, revision)
        return [] if snapshot is None else list_files(snapshot)

    def blob(self, repo: str, etag: str) -> Path:
        """Say where a file's bytes belong."""
        return self._folder(repo) / "blobs" / _inside(etag)

    def partial(self, repo: str, etag: str) -> Path:
        """Say where a file's bytes gather until they are complete."""
        return self._folder(repo) / "blobs" / _inside(f"{etag}.incomplete")

    def lock(self, repo: str, etag: str) -> Path:
        """Say which file processes lock that fetch the same bytes."""
        return self.root / ".locks" / self._folder(repo).name / _inside(f"{etag}.lock")

    def link(self, repo: str, commit: str, files: Iterable[tuple[str, str]]) -> None:
        """Put verified blobs into a snapshot, in the order given: pairs of file name and etag."""
        for name, etag in files:
            blob = self.blob(repo, etag)
            pointer = self._folder(repo) / "snapshots" / _inside(commit) / _inside(name)
            if pointer.exists():
                continue
            pointer.parent.mkdir(parents=True, exist_ok=True)
            pointer.unlink(missing_ok=True)  # a link to a blob that is gone
            up = "../" * (1 + len(PurePosixPath(name).parts))
            try:
                pointer.symlink_to(f"{up}blobs/{etag}")
            except OSError:  # Windows wants a privilege for symbolic links, and none for hard ones
                pointer.hardlink_to(blob)

    def point(self, repo: str, revision: str | None, commit: str) -> None:
        """Remember which commit a branch or tag stands for."""
        revision = revision or "main"
        if revision == commit:
            return
        ref = self._folder(repo) / "refs" / _inside(revision)
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(commit)

    def remove(self, repo: str) -> int:
        """Delete all of a repository; return the bytes freed."""
        folder = self._folder(repo)
        if not folder.is_dir():
            return 0
        stats = [path.lstat() for path in folder.rglob("*") if path.is_file()]
        freed = {stat.st_ino: stat.st_size for stat in stats}  # a hard link frees nothing more
        size_bytes = sum(freed.values())
        shutil.rmtree(folder)
        shutil.rmtree(self.root / ".locks" / folder.name, ignore_errors=True)
        return size_bytes

    def _folder(self, repo: str) -> Path:
        check_repo(repo)
        return self.root / f"models--{repo.replace('/', '--')}"


def check_repo(repo: str) -> None:
    """Let only names of repositories pass, which are fit for paths and URLs.

    Raises:
        InvalidRequestError: It is something else.
    """
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise InvalidRequestError(
            f"A Hub repository is named `owner/name`, got '{repo}'.", param="repo"
        ) from error


def is_inside(name: str) -> bool:
    """Tell whether a name inside a repository stays inside when it becomes a path."""
    path = PurePosixPath(name)
    foreign = "\\" in name or ":" in name  # separators elsewhere
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and not foreign


def is_commit(revision: str) -> bool:
    """Tell a full commit hash, which never moves, from a branch or a tag."""
    return _COMMIT.fullmatch(revision) is not None


def list_files(folder: Path) -> list[str]:
    """Name the files below a folder, with forward slashes, in order."""
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def _inside(name: str) -> PurePosixPath:
    if not is_inside(name):
        raise InvalidRequestError(f"A name inside a repository cannot be '{name}'.")
    return PurePosixPath(name)
