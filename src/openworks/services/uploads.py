"""Files that come in parts: announced, filled, and made whole or given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from hashlib import md5
from typing import cast
from weakref import WeakValueDictionary

from openworks.core.clock import Clock
from openworks.core.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    PayloadTooLargeError,
)
from openworks.core.ids import AccountId, NewId
from openworks.ports.blobs import Blobs, UploadedFile
from openworks.ports.files import File
from openworks.ports.uploads import Part, Upload, UploadStore, part_blob_of
from openworks.services.bytes_first import BytesFirst
from openworks.services.files import Files, FilesConfig, NewFile, Purpose, read_blob
from openworks.services.jsonl import JsonLines


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """An upload that has become a file."""

    upload: Upload
    file: File | None
    """None when it was deleted since."""


class Uploads:
    """Takes files in parts, of one account at a time."""

    def __init__(
        self,
        store: UploadStore,
        files: Files,
        blobs: Blobs,
        config: FilesConfig,
        *,
        clock: Clock,
        new_id: NewId,
    ) -> None:
        """Put together what it needs.

        Args:
            store: Keeps what is known of uploads.
            files: What they become.
            blobs: Keeps parts and files.
            config: The limits.
            clock: Of this process.
            new_id: Makes ids.
        """
        self._store = store
        self._files = files
        self._blobs = blobs
        self._bytes_first = BytesFirst(blobs, clock, orphan_after_s=config.orphan_after_s)
        self._config = config
        self._clock = clock
        self._new_id = new_id
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def create(self, new: NewFile, size_bytes: int) -> Upload:
        """Announce a file of `size_bytes`.

        Raises:
            InvalidRequestError: Its name does not fit its purpose, or it would be empty.
            PayloadTooLargeError: It would be too large.
        """
        if size_bytes < 1:
            raise InvalidRequestError(
                f"Invalid 'bytes': it must be at least 1, got {size_bytes}.",
                code="invalid_value",
                param="bytes",
            )
        if size_bytes > self._config.max_upload_bytes:
            raise PayloadTooLargeError(
                f"An upload has at most {self._config.max_upload_bytes} bytes, got {size_bytes}.",
                param="bytes",
            )
        self._files.check_size(new.purpose, size_bytes, "bytes")
        new.lines("filename")
        now_s = int(self._clock.now_s())
        upload = Upload(
            id=self._new_id("upload_"),
            account_id=new.account_id,
            created_at_s=now_s,
            expires_at_s=now_s + self._config.upload_ttl_s,
            filename=new.filename,
            media_type=new.media_type,
            purpose=new.purpose,
            size_bytes=size_bytes,
            file_ttl_s=new.ttl_s,
            status="pending",
        )
        await self._store.insert(upload)
        return upload

    async def add_part(self, account_id: AccountId, upload_id: str, uploaded: UploadedFile) -> Part:
        """Keep some bytes of an upload; several may come at once.

        Raises:
            NotFoundError: The account has no such upload.
            InvalidRequestError: It takes no parts any more, or the part is empty.
            PayloadTooLargeError: The upload, or the account, would have more than it may.
            StorageError: It could not be kept.
        """
        _check_pending(await self._get(account_id, upload_id))
        if not uploaded.size_bytes:
            raise InvalidRequestError("The part is empty.", code="empty_file", param="data")
        part = Part(
            id=self._new_id("part_"),
            upload_id=upload_id,
            account_id=account_id,
            created_at_s=int(self._clock.now_s()),
            size_bytes=uploaded.size_bytes,
        )

        async def insert() -> None:
            if not await self._store.add_part(
                part,
                max_parts=self._config.max_parts,
                max_upload_bytes=self._config.max_upload_bytes,
                max_total_bytes=self._config.max_total_bytes,
            ):
                raise ConflictError(f"The upload {upload_id!r} ended while a part of it came.")

        put = self._blobs.put_file(part.blob, uploaded.file)
        await self._bytes_first.keep(part.blob, put, insert)
        return part

    async def complete(
        self, account_id: AccountId, upload_id: str, part_ids: Sequence[str], checksum: str | None
    ) -> Completed:
        """Make a file of parts, in the order given; asked again, answer the same again.

        Args:
            account_id: The owner.
            upload_id: The upload.
            part_ids: Which of its parts.
            checksum: The md5 of the whole, in hexadecimal digits; None not to check.

        Raises:
            NotFoundError: The account has no such upload.
            InvalidRequestError: It has ended, a part is not there, or the whole is not what was
                announced; the upload stays as it was.
            PayloadTooLargeError: The account would keep more than it may.
            StorageError: It could not be kept.
        """
        async with self._turn(upload_id):
            upload = await self._get(account_id, upload_id)
            if upload.status == "completed":
                return await self._again(upload, part_ids, checksum)
            _check_pending(upload)
            parts = _in_order(await self._store.list_parts(upload_id), part_ids)
            _check_whole(upload, parts)
            return await self._assemble(upload, parts, checksum)

    async def cancel(self, account_id: AccountId, upload_id: str) -> Upload:
        """Give an upload up, with its parts; asked again, answer the same again.

        Raises:
            NotFoundError: The account has no such upload.
            InvalidRequestError: It has ended otherwise.
        """
        upload = await self._get(account_id, upload_id)
        if upload.status == "cancelled":
            return upload
        _check_pending(upload)
        part_ids = await self._store.cancel(account_id, upload_id)
        if part_ids is None:  # it ended in this moment
            upload = await self._get(account_id, upload_id)
            if upload.status != "cancelled":
                _check_pending(upload)
            return upload
        await self._bytes_first.drop(part_blob_of(part_id) for part_id in part_ids)
        return replace(upload, status="cancelled")

    async def _get(self, account_id: AccountId, upload_id: str) -> Upload:
        upload = await self._store.get(account_id, upload_id)
        if upload is None:
            raise NotFoundError(f"No upload found with id {upload_id[:80]!r}.")
        if upload.status == "pending" and upload.expires_at_s <= self._clock.now_s():
            return replace(upload, status="expired")
        return upload

    async def _again(
        self, upload: Upload, part_ids: Sequence[str], checksum: str | None
    ) -> Completed:
        """Answer who asks for what was done: the first answer may not have come."""
        if tuple(part_ids) != upload.part_ids or checksum not in {None, upload.md5}:
            _check_pending(upload)
        assert upload.file_id is not None
        file = await self._files.find(upload.account_id, upload.file_id)
        return Completed(upload=upload, file=file)

    async def _assemble(
        self, upload: Upload, parts: Sequence[Part], checksum: str | None
    ) -> Completed:
        new = _new_file(upload)
        file = self._files.describe(new, upload.size_bytes)
        whole = _Whole(self._blobs, parts, checksum, new.lines("part_ids"))
        done, forgotten = upload, list[str]()

        async def insert() -> None:
            nonlocal done
            done = replace(
                upload,
                status="completed",
                file_id=file.id,
                part_ids=tuple(part.id for part in parts),
                md5=whole.digest,
            )
            part_ids = await self._store.complete(
                done, file, max_total_bytes=self._config.max_total_bytes
            )
            if part_ids is None:
                raise ConflictError(f"The upload {upload.id!r} ended while it was completed.")
            forgotten.extend(part_ids)

        async with aclosing(whole.pieces()) as pieces:
            put = self._blobs.put_stream(file.blob, pieces)
            await self._bytes_first.keep(file.blob, put, insert)
        await self._bytes_first.drop(part_blob_of(part_id) for part_id in forgotten)
        return Completed(upload=done, file=file)

    def _turn(self, upload_id: str) -> asyncio.Lock:
        """Return what keeps two from assembling one file at once, which would be in vain."""
        lock = self._turns.get(upload_id)
        if lock is None:
            lock = self._turns[upload_id] = asyncio.Lock()
        return lock


class _Whole:
    """The content of all parts together, looked at while it is read."""

    def __init__(
        self, blobs: Blobs, parts: Sequence[Part], checksum: str | None, lines: JsonLines | None
    ) -> None:
        self._blobs = blobs
        self._parts = parts
        self._checksum = checksum
        self._lines = lines
        self._md5 = md5(usedforsecurity=False)  # what the API has its clients send

    @property
    def digest(self) -> str:
        """The md5 of what was read."""
        return self._md5.hexdigest()

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield everything; raise at the end what is wrong with the whole."""
        for part in self._parts:
            pieces = read_blob(self._blobs, part.blob, start=0, end=part.size_bytes)
            async with aclosing(pieces):
                async for piece in pieces:
                    await asyncio.to_thread(self._look_at, piece)
                    yield piece
        if self._lines is not None:
            self._lines.end()
        if self._checksum not in {None, self.digest}:
            raise InvalidRequestError(
                f"The parts have the md5 {self.digest} together, not {self._checksum}.",
                code="md5_mismatch",
                param="md5",
            )

    def _look_at(self, piece: bytes) -> None:
        self._md5.update(piece)
        if self._lines is not None:
            self._lines.feed(piece)


def _new_file(upload: Upload) -> NewFile:
    return NewFile(
        account_id=upload.account_id,
        filename=upload.filename,
        media_type=upload.media_type,
        purpose=cast("Purpose", upload.purpose),  # it was checked when the upload was announced
        ttl_s=upload.file_ttl_s,
    )


def _check_pending(upload: Upload) -> None:
    if upload.status != "pending":
        raise InvalidRequestError(
            f"The upload {upload.id!r} is {upload.status}, so it can no longer be changed.",
            code="upload_not_pending",
        )


def _check_whole(upload: Upload, parts: Sequence[Part]) -> None:
    size_bytes = sum(part.size_bytes for part in parts)
    if size_bytes != upload.size_bytes:
        raise InvalidRequestError(
            f"The parts have {size_bytes} bytes together, and the upload was announced with "
            f"{upload.size_bytes}.",
            code="size_mismatch",
            param="part_ids",
        )


def _in_order(parts: Sequence[Part], part_ids: Sequence[str]) -> Sequence[Part]:
    by_id = {part.id: part for part in parts}
    for index, part_id in enumerate(part_ids):
        if part_id not in by_id:
            raise InvalidRequestError(
                f"The upload has no part {part_id[:80]!r}.",
                code="part_not_found",
                param=f"part_ids[{index}]",
            )
    if len(set(part_ids)) < len(part_ids):
        raise InvalidRequestError(
            "Invalid 'part_ids': a part is named twice.", code="invalid_value", param="part_ids"
        )
    return [by_id[part_id] for part_id in part_ids]
