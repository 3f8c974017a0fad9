"""Forms with large files, written to disk while they come: never whole in memory.

What comes in parts is read by `python-multipart`, as Starlette's own forms are; those keep files in
memory or in a folder for temporary files, which on many machines is memory as well.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Final

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openworks.api.body import BodyLimits
from openworks.core.errors import (
    ClientClosedRequestError,
    InvalidRequestError,
    PayloadTooLargeError,
    ServerOverloadedError,
    StorageError,
)
from openworks.ports.blobs import UploadedFile

_FORM: Final = "openworks.form"
"""Where in its scope a request's form is."""
_FRAME_BYTES: Final = 64 << 10
"""What a form may have beside its files."""
_MAX_FIELD_BYTES: Final = 4096
_MAX_FIELDS: Final = 7
_WRITE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FormFile(UploadedFile):
    """A file that a form held."""

    name: str
    """What the client called it; empty when it gave no name."""
    media_type: str
    """What the client says that it is; empty when it says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What a form held."""

    fields: Mapping[str, str]
    files: Sequence[FormFile]

    @property
    def file(self) -> FormFile | None:
        """The file of a form that has at most one."""
        return self.files[0] if self.files else None


class _ComingFile:
    """A file of which some has come, and of that some is written."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.media_type = ""
        self._file = file
        self._name = name
        self._size_bytes = 0
        self._digest = sha256()
        self._pending = bytearray()

    def add(self, data: memoryview) -> None:
        self._size_bytes += len(data)
        self._pending += data

    def write(self) -> None:
        data, self._pending = self._pending, bytearray()
        self._digest.update(data)
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as exc:
            raise _no_room(exc) from exc

    def whole(self) -> FormFile:
        return FormFile(
            file=self._file,
            size_bytes=self._size_bytes,
            sha256=self._digest.hexdigest(),
            name=self._name,
            media_type=self.media_type,
        )


class Forms:
    """Room on disk for forms that come."""

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        max_uploads: int,
        timeout_s: float,
        file_field: str = "file",
        max_files: int = 1,
    ) -> None:
        """Remember the bounds.

        Args:
            folder: Made when it is not there. Files in it have no names, and end with the process.
            max_bytes: Of all files of one form.
            max_uploads: How many may come at once.
            timeout_s: Within which a whole form must have come.
            file_field: The part that is a file, also when the client gives it no name.
            max_files: How many such parts a form may have.
        """
        self.limits = BodyLimits(max_bytes=max_bytes + _FRAME_BYTES, timeout_s=timeout_s)
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_uploads = max_uploads
        self._file_field = file_field
        self._max_files = max_files
        self._under_way = 0

    def open(self, stack: ExitStack, content_type: str) -> FormReader:
        """Begin to read a form; what it holds lives as long as `stack`.

        Raises:
            InvalidRequestError: It is no form.
            ServerOverloadedError: As many are under way as may be.
            StorageError: The disk has no room.
        """
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not boundary:
            raise InvalidRequestError(
                f"This request takes multipart/form-data, got {content_type[:80]!r}."
            )
        if self._under_way >= self._max_uploads:
            raise ServerOverloadedError(
                f"{self._under_way} files are being uploaded, which is as many as this server "
                "takes at once.",
                retry_after_s=5.0,
            )
        self._under_way += 1
        stack.callback(self._ended)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise _no_room(exc) from exc
        return FormReader(
            lambda: self._make_file(stack),
            boundary,
            max_bytes=self._max_bytes,
            file_field=self._file_field,
            max_files=self._max_files,
        )

    def _make_file(self, stack: ExitStack) -> BinaryIO:
        try:
            file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - the stack closes it
        except OSError as exc:
            raise _no_room(exc) from exc
        stack.callback(_close, file)
        return file

    def _ended(self) -> None:
        self._under_way -= 1


class FormReader:
    """Reads one form, of a few small fields and so many files."""

    def __init__(
        self,
        make_file: Callable[[], BinaryIO],
        boundary: bytes,
        *,
        max_bytes: int,
        file_field: str,
        max_files: int = 1,
    ) -> None:
        self._make_file = make_file
        self._file_field = file_field
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._size_bytes = 0
        self._pending_bytes = 0
        self._fields: dict[str, str] = {}
        self._files: list[_ComingFile] = []
        self._parts = 0
        self._header = (bytearray(), bytearray())
        self._name = ""
        self._file: _ComingFile | None = None
        self._part_type = ""
        self._value = bytearray()
        self._is_whole = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    async def feed(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            InvalidRequestError: They are no form, or one with more than it may have.
            PayloadTooLargeError: Its files are over the limit.
            StorageError: The disk has no room for it.
        """
        try:
            self._parser.write(data)
        except FormParserError as exc:
            raise InvalidRequestError(f"The form of this request is broken: {exc}.") from exc
        if self._pending_bytes >= _WRITE_BYTES:
            await self._write()

    async def end(self) -> Form:
        """Return what the form held; its files are at their ends.

        Raises:
            InvalidRequestError: It broke off.
            StorageError: The disk has no room for it.
        """
        if not self._is_whole:
            raise InvalidRequestError("The form of this request breaks off before its end.")
        await self._write()
        return Form(fields=self._fields, files=[file.whole() for file in self._files])

    async def _write(self) -> None:
        self._pending_bytes = 0
        await asyncio.to_thread(self._write_now)

    def _write_now(self) -> None:
        for file in self._files:
            file.write()

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > (most := _MAX_FIELDS + self._max_files):
            raise InvalidRequestError(f"The form of this request has over {most} parts.")
        self._name, self._file, self._value = "", None, bytearray()
        self._part_type = ""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _on_header_end(self) -> None:
        name, value = self._header
        self._header = (bytearray(), bytearray())
        if bytes(name).lower() == b"content-type":
            self._part_type = value[:_MAX_FIELD_BYTES].decode(errors="replace")
        if bytes(name).lower() != b"content-disposition":
            return
        options = parse_options_header(bytes(value))[1]
        self._name = options.get(b"name", b"").decode(errors="replace")
        file_name = options.get(b"filename")
        if file_name is not None or self._name == self._file_field:
            if self._name != self._file_field:
                raise InvalidRequestError(
                    f"The file of this form must be its part {self._file_field!r}, "
                    f"got {self._name[:80]!r}.",
                    param=self._file_field,
                )
            if len(self._files) == self._max_files:
                many = "two" if self._max_files == 1 else f"over {self._max_files}"
                raise InvalidRequestError(
                    f"The form of this request has {many} files.", param=self._file_field
                )
            shown = (file_name or b"").decode(errors="replace")
            self._file = _ComingFile(self._make_file(), shown)
            self._files.append(self._file)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._size_bytes += end - start
            if self._size_bytes > self._max_bytes:
                what = "The file is" if self._max_files == 1 else "The files of this request are"
                raise PayloadTooLargeError(
                    f"{what} over the limit of {self._max_bytes / 1e6:g} MB."
                )
            self._file.add(memoryview(data)[start:end])
            self._pending_bytes += end - start
            return
        self._value += memoryview(data)[start:end]
        if len(self._value) > _MAX_FIELD_BYTES:
            raise InvalidRequestError(
                f"The field {self._name[:80]!r} is over {_MAX_FIELD_BYTES} bytes.",
                param=self._name[:80],
            )

    def _on_part_end(self) -> None:
        if self._file is not None:
            self._file.media_type = self._part_type
        else:
            self._fields[self._name] = self._value.decode(errors="replace")

    def _on_end(self) -> None:
        self._is_whole = True


class FormEndpoint:
    """An endpoint that is given a form in the place of a body.

    The form is read when the endpoint asks for the body: it has found out who asks by then, and
    knows how to refuse.
    """

    def __init__(self, inner: ASGIApp, forms: Forms) -> None:
        self._inner = inner
        self._forms = forms

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with ExitStack() as stack:

            async def receive_form() -> Message:
                if _FORM in scope:
                    return await receive()
                scope[_FORM] = None
                reader = self._forms.open(stack, _content_type(scope))
                scope[_FORM] = await _read(reader, receive, self._forms.limits.max_bytes)
                return {"type": "http.request", "body": b"", "more_body": False}

            await self._inner(scope, receive_form, send)


def form_of(scope: MutableMapping[str, Any]) -> Form:
    """Return the form of a request to a `FormEndpoint`, by its scope."""
    form = scope[_FORM]
    assert isinstance(form, Form)
    return form


async def _read(reader: FormReader, receive: Receive, max_bytes: int) -> Form:
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientClosedRequestError("The client left before its request was complete.")
        data = message.get("body", b"")
        size += len(data)
        if size > max_bytes:
            raise PayloadTooLargeError(f"The form is over the limit of {max_bytes / 1e6:g} MB.")
        await reader.feed(data)
        if not message.get("more_body", False):
            return await reader.end()


def _no_room(error: OSError) -> StorageError:
    reason = error.strerror or type(error).__name__  # without the path, which is nobody's business
    return StorageError(f"The file cannot be kept on this machine's disk: {reason}.")


def _close(file: BinaryIO) -> None:
    with suppress(OSError):  # what could not be written is tried again here
        file.close()


def _content_type(scope: Scope) -> str:
    found = dict(scope["headers"]).get(b"content-type", b"")
    assert isinstance(found, bytes)
    return found.decode("latin-1")
