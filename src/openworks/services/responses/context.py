"""What a model is asked: the items of a response as the messages of a chat."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from mimetypes import guess_type
from tempfile import NamedTemporaryFile
from typing import IO, BinaryIO, Final, Protocol, cast

from openworks.core.errors import InvalidRequestError, NotFoundError
from openworks.core.ids import AccountId
from openworks.core.json import JsonObject, JsonValue
from openworks.ports.converters import Converter, Document
from openworks.ports.files import File
from openworks.services.responses.items import is_whole
from openworks.services.responses.packed import unpack

MAX_FILE_BYTES: Final = 20 << 20
"""Of one file that a model is shown."""


class FileContents(Protocol):
    """Where files are read that items name."""

    async def get(self, account_id: AccountId, file_id: str) -> File:
        """Return a file.

        Raises:
            NotFoundError: There is none, or it belongs to another account.
        """
        ...

    def read(self, file: File) -> AsyncGenerator[bytes, None]:
        """Yield its content."""
        ...


class ItemReader:
    """Turns items into messages, with the content of the files that they name."""

    def __init__(self, files: FileContents, converter: Converter) -> None:
        self._files = files
        self._converter = converter

    async def messages(
        self, account_id: AccountId, instructions: str | None, items: Sequence[JsonObject]
    ) -> list[JsonObject]:
        """Return the messages of a chat, the instructions first.

        What a model thought, said and called in one go becomes one message, and texts of the
        system that follow each other as well: most templates know nothing else.

        Raises:
            InvalidRequestError: A file is not there, or not what a model can be shown.
        """
        chat = _Chat()
        if instructions:
            chat.add_system(instructions)
        for item in filter(is_whole, items):
            match item["type"]:
                case "reasoning":
                    chat.reasoning = reasoning_text(item)
                case "function_call":
                    chat.add_call(item)
                case "function_call_output":
                    chat.add_output(item)
                case "compaction":
                    summary = unpack(str(item["encrypted_content"])) or ""
                    chat.add_system(f"What was said before, in short:\n{summary}")
                case _:
                    await self._add_message(account_id, chat, item)
        return chat.messages

    async def _add_message(self, account_id: AccountId, chat: _Chat, item: JsonObject) -> None:
        parts = cast("list[JsonObject]", item["content"])
        role = str(item["role"])
        if role == "assistant":
            texts = (part.get("text") or part.get("refusal") or "" for part in parts)
            chat.add_said("".join(str(text) for text in texts))
            return
        content = [await self._part(account_id, part) for part in parts]
        only_text = content[0]["text"] if len(content) == 1 and "text" in content[0] else None
        if role in {"system", "developer"} and isinstance(only_text, str):
            chat.add_system(only_text)
        else:
            shown: JsonValue = [*content] if only_text is None else only_text
            name = "system" if role == "developer" else role
            chat.messages.append({"role": name, "content": shown})

    async def _part(self, account_id: AccountId, part: JsonObject) -> JsonObject:
        match part["type"]:
            case "input_image":
                url = part.get("image_url") or await self._image_url(account_id, part)
                return {"type": "image_url", "image_url": {"url": url, "detail": part["detail"]}}
            case "input_file":
                name, text = await self._file_text(account_id, part)
                return {"type": "text", "text": f"The file {name}:\n{text}"}
            case _:
                return {"type": "text", "text": part["text"]}

    async def _image_url(self, account_id: AccountId, part: JsonObject) -> str:
        file, content = await self._content(account_id, str(part["file_id"]))
        media_type = file.media_type or guess_type(file.filename)[0] or "of no known type"
        if not media_type.startswith("image/"):
            raise _unfit(f"the file {file.id!r} is {media_type}, not a picture.")
        return f"data:{media_type};base64,{b64encode(content).decode()}"

    async def _file_text(self, account_id: AccountId, part: JsonObject) -> tuple[str, str]:
        data = part.get("file_data")
        if isinstance(data, str):
            content, name = decoded(data) or b"", str(part.get("filename") or "")
        else:
            file, content = await self._content(account_id, str(part["file_id"]))
            name = file.filename
        text = _plain_text(content)
        return name, await self._converted(name, content) if text is None else text

    async def _converted(self, name: str, content: bytes) -> str:
        """Return what a document says, such as a PDF."""
        with NamedTemporaryFile(prefix="openworks-") as copy:
            await asyncio.to_thread(_fill, copy, content)
            document = Document(name=name or "file", file=cast("BinaryIO", copy.file))
            try:
                return (await self._converter.convert(document)).text
            except InvalidRequestError as error:
                raise _unfit(error.message) from error

    async def _content(self, account_id: AccountId, file_id: str) -> tuple[File, bytes]:
        try:
            file = await self._files.get(account_id, file_id)
        except NotFoundError as error:
            raise _unfit(f"no file found with id {file_id[:100]!r}.") from error
        if file.size_bytes > MAX_FILE_BYTES:
            raise _unfit(
                f"the file {file_id!r} has {file.size_bytes} bytes; a model is shown at most "
                f"{MAX_FILE_BYTES}."
            )
        content = bytearray()
        async with aclosing(self._files.read(file)) as pieces:
            async for piece in pieces:
                content += piece
        return file, bytes(content)


class _Chat:
    """Messages while they are put together."""

    def __init__(self) -> None:
        self.messages: list[JsonObject] = []
        self.reasoning = ""
        """What belongs to the next thing that the model says."""

    def add_system(self, text: str) -> None:
        last = self.messages[-1] if self.messages else {}
        if last.get("role") == "system" and isinstance(last["content"], str):
            last["content"] = f"{last['content']}\n\n{text}"
        else:
            self.messages.append({"role": "system", "content": text})

    def add_said(self, text: str) -> None:
        self._new_assistant(text)

    def add_call(self, item: JsonObject) -> None:
        last = self.messages[-1] if self.messages else {}
        if last.get("role") != "assistant" or self.reasoning:
            last = self._new_assistant("")
        calls = last.setdefault("tool_calls", [])
        assert isinstance(calls, list)
        function: JsonObject = {"name": item["name"], "arguments": item["arguments"]}
        calls.append({"id": item["call_id"], "type": "function", "function": function})

    def add_output(self, item: JsonObject) -> None:
        output = item["output"]
        if not isinstance(output, str):
            parts = cast("list[JsonObject]", output)
            output = "\n".join(str(part["text"]) for part in parts)
        message: JsonObject = {"role": "tool", "tool_call_id": item["call_id"], "content": output}
        self.messages.append(message)

    def _new_assistant(self, text: str) -> JsonObject:
        message: JsonObject = {"role": "assistant", "content": text}
        if self.reasoning:
            message["reasoning_content"], self.reasoning = self.reasoning, ""
        self.messages.append(message)
        return message


def reasoning_text(item: JsonObject) -> str:
    """Return what a reasoning item holds, in whichever of its forms that is."""
    for name in ("content", "summary"):
        parts = cast("list[JsonObject]", item.get(name) or [])
        if parts:
            return "\n".join(str(part["text"]) for part in parts)
    return unpack(str(item.get("encrypted_content") or "")) or ""


def decoded(data: str) -> bytes | None:
    """Return a file that came within a request; None if its base64 is none.

    Args:
        data: Base64, alone or as a data URL.
    """
    content = data.partition(",")[2] if data.startswith("data:") else data
    try:
        return b64decode(content, validate=True)
    except ValueError:
        return None


def _plain_text(content: bytes) -> str | None:
    """Return what is a text as it stands; a PDF may look like one."""
    try:
        return None if content.startswith(b"%PDF-") else content.decode()
    except UnicodeDecodeError:
        return None


def _fill(file: IO[bytes], content: bytes) -> None:
    file.write(content)
    file.flush()


def _unfit(what: str) -> InvalidRequestError:
    return InvalidRequestError(f"Invalid 'input': {what}", code="invalid_value", param="input")
