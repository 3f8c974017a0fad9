"""Files as their owners manage them: kept, found, listed, read, deleted."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import Field

from openworks.core.clock import Clock
from openworks.core.errors import (
    InvalidRequestError,
    NotFoundError,
    PayloadTooLargeError,
    StorageError,
)
from openworks.core.ids import AccountId, NewId
from openworks.core.pages import Page, PageRequest
from openworks.ports.blobs import Blobs, UploadedFile
from openworks.ports.files import File, FileStore
from openworks.services.bytes_first import BytesFirst
from openworks.services.jsonl import JsonLines

Purpose = Literal[
    "assistants",
    "assistants_output",
    "batch",
    "batch_output",
    "evals",
    "fine-tune",
    "fine-tune-results",
    "user_data",
    "vision",
]
"""What files are for. Callers bring those that are no output and no result."""

_BATCH_TTL_S: Final = 30 * 86_400
_CHECK_BYTES: Final = 1 << 20
_PIECE_BYTES: Final = 4 << 20
_MAX_NAME_BYTES: Final = 255
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesConfig:
    """How much callers may keep, and for how long."""

    max_bytes: Annotated[int, Field(ge=1)] = 512 * _MIB
    """The largest file that comes in one request; a larger one gets a 413 while it is read."""
    max_batch_bytes: Annotated[int, Field(ge=1)] = 200 * _MIB
    """The largest file for a batch."""
    max_total_bytes: Annotated[int, Field(ge=1)] = 102_400 * _MIB
    """What one account may keep in files and in parts of uploads; more gets a 413."""
    max_uploads: Annotated[int, Field(ge=1)] = 64
    """Files, and parts as well, that may come at once; a further one gets a 503."""
    upload_timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3600.0
    """Seconds within which a whole file or part must have come; a slower one gets a 408."""
    max_part_bytes: Annotated[int, Field(ge=1)] = 64 * _MIB
    """The largest part of an upload."""
    max_upload_bytes: Annotated[int, Field(ge=1)] = 8192 * _MIB
    """The largest file that comes in parts."""
    max_parts: Annotated[int, Field(ge=1)] = 10_000
    """How many parts an upload may have."""
    upload_ttl_s: Annotated[int, Field(ge=1)] = 3600
    """Seconds after which an upload can no longer be completed."""
    sweep_every_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0
    """How often what has expired is removed."""
    orphan_after_s: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 86_400.0
    """Age at which content that a crash left without an owner is removed. Storing a file may take
    half of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFile:
    """What is said of a file that comes."""

    account_id: AccountId
    filename: str
    media_type: str
    purpose: Purpose
    ttl_s: int | None
    """How long it is to live; None for as long as its purpose has it."""

    def lines(self, param: str) -> JsonLines | None:
        """Return what must look at the content, if anything must.

        Raises:
            InvalidRequestError: The name does not end as the purpose needs it.
        """
        if self.purpose not in {"batch", "fine-tune"}:
            return None
        if not self.filename.lower().endswith(".jsonl"):
            raise InvalidRequestError(
                f"A file with the purpose {self.purpose!r} must be JSON Lines, with a name that "
                f"ends in .jsonl, got {self.filename!r}.",
                code="invalid_file_format",
                param=param,
            )
        return JsonLines(param)


class Files:
    """Keeps, finds, lists, reads and deletes files of one account at a time."""

    def __init__(
        self, store: FileStore, blobs: Blobs, config: FilesConfig, *, clock: Clock, new_id: NewId
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._bytes_first = BytesFirst(blobs, clock, orphan_after_s=config.orphan_after_s)
        self._config = config
        self._clock = clock
        self._new_id = new_id

    async def create(self, new: NewFile, uploaded: UploadedFile) -> File:
        """Check a file that has come, and keep it.

        Raises:
            InvalidRequestError: It is empty, or not what its purpose needs.
            PayloadTooLargeError: It is larger than its purpose admits, or the account keeps as
                much as it may.
            StorageError: It could not be kept.
        """
        if not uploaded.size_bytes:
            raise InvalidRequestError("The file is empty.", code="empty_file", param="file")
        self.check_size(new.purpose, uploaded.size_bytes, "file")
        if (lines := new.lines("file")) is not None:
            await _check_lines(uploaded, lines)
        file = self.describe(new, uploaded.size_bytes)

        async def insert() -> None:
            await self._store.insert(file, max_total_bytes=self._config.max_total_bytes)

        put = self._blobs.put_file(file.blob, uploaded.file)
        await self._bytes_first.keep(file.blob, put, insert)
        return file

    def check_size(self, purpose: Purpose, size_bytes: int, param: str) -> None:
        """Return if a file of this purpose may be so large.

        Raises:
            PayloadTooLargeError: It may not.
        """
        if purpose == "batch" and size_bytes > self._config.max_batch_bytes:
            raise PayloadTooLargeError(
                f"A file for a batch has at most {self._config.max_batch_bytes} bytes, got "
                f"{size_bytes}.",
                param=param,
            )

    def describe(self, new: NewFile, size_bytes: int) -> File:
        """Return a file as it will be known, made now."""
        now_s = int(self._clock.now_s())
        default_s = _BATCH_TTL_S if new.purpose == "batch" else None
        ttl_s = default_s if new.ttl_s is None else new.ttl_s
        return File(
            id=self._new_id("file-"),
            account_id=new.account_id,
            created_at_s=now_s,
            filename=new.filename,
            media_type=new.media_type,
            purpose=new.purpose,
            size_bytes=size_bytes,
            expires_at_s=None if ttl_s is None else now_s + ttl_s,
        )

    async def find(self, account_id: AccountId, file_id: str) -> File | None:
        """Return one; None when it is not there, or no more."""
        file = await self._store.get(account_id, file_id)
        if file is None or file.expires_at_s is None:
            return file
        return file if file.expires_at_s > self._clock.now_s() else None

    async def get(self, account_id: AccountId, file_id: str) -> File:
        """Return one.

        Raises:
            NotFoundError: There is none, it has expired, or it belongs to another account.
        """
        file = await self.find(account_id, file_id)
        if file is None:
            raise _missing(file_id)
        return file

    async def list(
        self, account_id: AccountId, page: PageRequest, *, purpose: Purpose | None
    ) -> Page[File]:
        """Return a page of those that have not expired."""
        return await self._store.list(account_id, page, now_s=self._clock.now_s(), purpose=purpose)

    async def delete(self, account_id: AccountId, file_id: str) -> None:
        """Delete one with its content; who reads it at this moment is cut off.

        Raises:
            NotFoundError: There is none; of two that delete it at once, one is told so.
        """
        file = await self.get(account_id, file_id)
        if not await self._store.delete(account_id, file_id):
            raise _missing(file_id)
        await self._bytes_first.drop([file.blob])

    def read(
        self, file: File, *, start: int = 0, length: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield the content piece by piece, from `start` on; close it when it is not wanted.

        Raises:
            StorageError: The content cannot be read, or is not there.
        """
        end = file.size_bytes if length is None else start + length
        return read_blob(self._blobs, file.blob, start=start, end=end)


def clean_name(name: str, param: str) -> str:
    """Return a file's name without the folders that some clients send before it.

    Raises:
        InvalidRequestError: Nothing is left, it is too long, or it has control characters.
    """
    base = re.split(r"[/\\]", name)[-1].strip()
    if base in {"", ".", ".."}:
        raise _bad_name(param, f"expected the name of a file, got {name[:80]!r}")
    if _CONTROL.search(base):
        raise _bad_name(param, f"control characters are not allowed, got {base[:80]!r}")
    if len(base.encode()) > _MAX_NAME_BYTES:
        raise _bad_name(
            param, f"at most {_MAX_NAME_BYTES} bytes are allowed, got {len(base.encode())}"
        )
    return base


async def read_blob(
    blobs: Blobs, name: str, *, start: int, end: int
) -> AsyncGenerator[bytes, None]:
    """Yield a part of a blob, a few megabytes at a time.

    Raises:
        StorageError: It cannot be read, or is not there.
    """
    while start < end:
        piece = await blobs.get_range(name, start=start, length=min(_PIECE_BYTES, end - start))
        if not piece:
            raise StorageError(f"The blob {name!r} is missing.")
        yield piece
        start += len(piece)


async def _check_lines(uploaded: UploadedFile, lines: JsonLines) -> None:
    uploaded.file.seek(0)
    while await asyncio.to_thread(_check_some, uploaded, lines):
        pass
    lines.end()


def _check_some(uploaded: UploadedFile, lines: JsonLines) -> bool:
    data = uploaded.file.read(_CHECK_BYTES)
    lines.feed(data)
    return bool(data)


def _bad_name(param: str, what: str) -> InvalidRequestError:
    return InvalidRequestError(f"Invalid '{param}': {what}.", code="invalid_value", param=param)


def _missing(file_id: str) -> NotFoundError:
    return NotFoundError(f"No file found with id {file_id[:80]!r}.")
