"""Files that callers bring, and that their batches and assistants leave: what is known of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from openworks.core.ids import AccountId
from openworks.core.pages import Page, PageRequest

FOLDER: Final = "files"
"""Where the content of files is among the blobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file whose content is a blob; it never changes."""

    id: str
    account_id: AccountId
    created_at_s: int
    filename: str
    media_type: str
    """As the client said; empty when it said nothing."""
    purpose: str
    size_bytes: int
    expires_at_s: int | None
    """When it is no longer there; None for never."""

    @property
    def blob(self) -> str:
        """The name of its content."""
        return blob_of(self.id)


def blob_of(file_id: str) -> str:
    """Return the name of a file's content."""
    return f"{FOLDER}/{file_id}"


class FileStore(Protocol):
    """Where files are known. What belongs to another account is not there."""

    async def insert(self, file: File, *, max_total_bytes: int) -> None:
        """Remember a file whose content is kept already.

        Args:
            file: The file.
            max_total_bytes: What the account may keep, with this file and the parts of uploads.

        Raises:
            PayloadTooLargeError: It would be more.
            ConflictError: Its id is there already.
        """
        ...

    async def get(self, account_id: AccountId, file_id: str) -> File | None:
        """Find one, also if it has expired."""
        ...

    async def list(
        self,
        account_id: AccountId,
        page: PageRequest,
        *,
        now_s: float,
        purpose: str | None = None,
    ) -> Page[File]:
        """Return a page of what has not expired, ordered by creation, then id.

        Raises:
            InvalidRequestError: `after` or `before` is not the id of a file of the account.
        """
        ...

    async def delete(self, account_id: AccountId, file_id: str) -> bool:
        """Forget one; False when there is none, so that one of two callers is told True."""
        ...

    async def delete_expired(self, *, now_s: float, limit: int) -> Sequence[str]:
        """Forget up to `limit` files that have expired; return their ids."""
        ...

    async def known(self, file_ids: Collection[str]) -> frozenset[str]:
        """Return those ids that are files of any account."""
        ...
