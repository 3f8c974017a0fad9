"""Weights on this machine: found, fetched, listed and removed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from openworks.ports.catalog import WeightsSource


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalWeights:
    """Weights that are complete on this machine."""

    path: Path
    """The GGUF file, or the folder of a whole repository."""
    mmproj: Path | None
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledRepo:
    """A Hub repository of which files lie in the local cache."""

    repo: str
    files: tuple[str, ...]
    size_bytes: int
    last_used_s: float


Progress = Callable[[str, int, int], None]
"""Called with (file name, bytes so far, bytes in all) while a file is fetched."""


class Weights(Protocol):
    """The weights of this machine."""

    def locate(self, source: WeightsSource) -> LocalWeights | None:
        """Find weights without the network; None when they are missing or incomplete."""
        ...

    async def fetch(self, source: WeightsSource, *, on_progress: Progress) -> LocalWeights:
        """Bring weights here, resuming what was begun, and verify their checksum.

        Raises:
            ModelNotFoundError: The repository or the file does not exist.
            PermissionDeniedError: The repository is gated, or private; the message says what to do.
            ProviderError: The Hub could not be reached, or sent bytes that fail their checksum.
            StorageError: The disk is full, or may not be written.
        """
        ...

    async def resolve_file(self, name: str) -> WeightsSource:
        """Choose the GGUF file, and the vision projector if there is one, that a bare name means.

        What is on this machine already is chosen from first, without the network.

        Args:
            name: `owner/name` for the preferred quantisation that the repository has, or
                `owner/name:Q8_0`, or `owner/name:file.gguf`.

        Raises:
            ModelNotFoundError: There is no such repository, or it has no such GGUF file.
            PermissionDeniedError: As `fetch` does.
            ProviderError: As `fetch` does.
        """
        ...

    def pulled(self) -> Sequence[PulledRepo]:
        """List the repositories in the local cache."""
        ...

    async def remove(self, repo: str) -> int:
        """Delete a repository from the cache; return the bytes freed, 0 when there was none."""
        ...
