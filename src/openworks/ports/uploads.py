"""Files that come in parts: what is known of them until they are whole."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from openworks.core.ids import AccountId
from openworks.ports.files import File

UploadStatus = Literal["pending", "completed", "cancelled", "expired"]

FOLDER: Final = "uploads"
"""Where parts are among the blobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A file that is announced, and comes in parts."""

    id: str
    account_id: AccountId
    created_at_s: int
    expires_at_s: int
    """When it can no longer be completed."""
    filename: str
    media_type: str
    purpose: str
    size_bytes: int
    """Of the whole file, as announced."""
    file_ttl_s: int | None
    """How long the file will live; None for ever."""
    status: UploadStatus
    file_id: str | None = None
    """The file that it has become."""
    part_ids: tuple[str, ...] = ()
    """What that file was made of."""
    md5: str | None = None
    """Of that file, in hexadecimal digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some bytes of an upload, kept as a blob."""

    id: str
    upload_id: str
    account_id: AccountId
    created_at_s: int
    size_bytes: int

    @property
    def blob(self) -> str:
        """The name of its content."""
        return part_blob_of(self.id)


def part_blob_of(part_id: str) -> str:
    """Return the name of a part's content."""
    return f"{FOLDER}/{part_id}"


class UploadStore(Protocol):
    """Where uploads are known. What belongs to another account is not there."""

    async def insert(self, upload: Upload) -> None:
        """Remember an upload."""
        ...

    async def get(self, account_id: AccountId, upload_id: str) -> Upload | None:
        """Find one; a pending one may have expired."""
        ...

    async def list_parts(self, upload_id: str) -> Sequence[Part]:
        """Return all parts of an upload."""
        ...

    async def add_part(
        self, part: Part, *, max_parts: int, max_upload_bytes: int, max_total_bytes: int
    ) -> bool:
        """Remember a part whose content is kept already; False when its upload takes none.

        Args:
            part: The part.
            max_parts: Of one upload.
            max_upload_bytes: Of all parts of one upload together.
            max_total_bytes: What the account may keep, with files.

        Raises:
            PayloadTooLargeError: It would be more.
        """
        ...

    async def complete(
        self, upload: Upload, file: File, *, max_total_bytes: int
    ) -> Sequence[str] | None:
        """Make a file of a pending upload and forget its parts, all at once.

        Args:
            upload: As it is from now on.
            file: Its content is kept already.
            max_total_bytes: What the account may keep, without these parts.

        Returns:
            The ids of all its parts; None when it is pending no more, and nothing was changed.

        Raises:
            PayloadTooLargeError: The account would keep more.
        """
        ...

    async def cancel(self, account_id: AccountId, upload_id: str) -> Sequence[str] | None:
        """Cancel a pending upload and forget its parts; return their ids, or None without one."""
        ...

    async def expire(self, *, now_s: float, limit: int) -> tuple[int, Sequence[str]]:
        """Let up to `limit` pending uploads expire that are due, and forget their parts.

        Returns:
            How many uploads they were, and the ids of their parts.
        """
        ...

    async def delete_ended(self, *, before_s: float) -> None:
        """Forget uploads that are pending no more and could not be since a moment."""
        ...

    async def known_parts(self, part_ids: Collection[str]) -> frozenset[str]:
        """Return those ids that are parts of any upload."""
        ...
