"""Threads of an account and their messages: made, found, changed, deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson

from openworks.core.clock import Clock
from openworks.core.errors import InvalidRequestError, NotFoundError
from openworks.core.ids import AccountId, NewId
from openworks.core.json import JsonObject
from openworks.core.pages import Page, PageRequest
from openworks.ports.threads import (
    KnownFiles,
    Message,
    MessageStore,
    Role,
    Thread,
    ThreadStore,
)
from openworks.wire.openai.errors import error_body

MAX_MESSAGES: Final = 100_000
"""In one thread, as with OpenAI."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMessage:
    """A message that a caller wants in a thread, checked but for its files."""

    role: Role
    content: tuple[JsonObject, ...]
    attachments: tuple[JsonObject, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    file_ids: Mapping[str, str] = field(default_factory=dict)
    """The files that it points at, by the place in the request that names them."""


class Threads:
    """Keeps and finds threads, and the messages in them, of one account at a time."""

    def __init__(
        self,
        threads: ThreadStore,
        messages: MessageStore,
        files: KnownFiles,
        *,
        clock: Clock,
        new_id: NewId,
    ) -> None:
        self._threads = threads
        self._messages = messages
        self._files = files
        self._clock = clock
        self._new_id = new_id

    async def create(
        self,
        account_id: AccountId,
        *,
        messages: Sequence[NewMessage],
        metadata: Mapping[str, str],
        tool_resources: JsonObject,
    ) -> Thread:
        """Keep a new thread with its first messages.

        Raises:
            InvalidRequestError: There are too many messages, or a file is not the account's.
        """
        thread, first = await self.prepare(
            account_id, messages=messages, metadata=metadata, tool_resources=tool_resources
        )
        await self._threads.insert(thread, first)
        return thread

    async def prepare(
        self,
        account_id: AccountId,
        *,
        messages: Sequence[NewMessage],
        metadata: Mapping[str, str],
        tool_resources: JsonObject,
    ) -> tuple[Thread, Sequence[Message]]:
        """Return a thread and its first messages, which nobody has kept yet; raises as `create`."""
        if len(messages) > MAX_MESSAGES:
            raise InvalidRequestError(
                f"Invalid 'messages': a thread holds at most {MAX_MESSAGES}, got {len(messages)}.",
                code="invalid_value",
                param="messages",
            )
        thread = Thread(
            id=self._new_id("thread_"),
            account_id=account_id,
            created_at_s=self._clock.now_s(),
            metadata=metadata,
            tool_resources=tool_resources,
        )
        return thread, await self.prepare_messages(account_id, thread.id, messages)

    async def prepare_messages(
        self, account_id: AccountId, thread_id: str, messages: Sequence[NewMessage]
    ) -> Sequence[Message]:
        """Return messages for a thread, which nobody has kept yet.

        Raises:
            InvalidRequestError: A file is not the account's.
        """
        await self._check_files(account_id, messages)
        return [self._message(thread_id, message) for message in messages]

    async def get(self, account_id: AccountId, thread_id: str) -> Thread:
        """Find one.

        Raises:
            NotFoundError: There is none, or it belongs to another account.
        """
        thread = await self._threads.get(account_id, thread_id)
        if thread is None:
            raise _no_thread(thread_id)
        return thread

    async def list(self, account_id: AccountId, page: PageRequest) -> Page[Thread]:
        """Return a page of them."""
        return await self._threads.list(account_id, page)

    async def update(
        self,
        account_id: AccountId,
        thread_id: str,
        *,
        metadata: Mapping[str, str] | None,
        tool_resources: JsonObject | None,
    ) -> Thread:
        """Replace what is given."""
        thread = await self._threads.update(
            account_id, thread_id, metadata=metadata, tool_resources=tool_resources
        )
        if thread is None:
            raise _no_thread(thread_id)
        return thread

    async def delete(self, account_id: AccountId, thread_id: str) -> None:
        """Remove one with its messages and runs; a run that is active ends with it."""
        gone = NotFoundError(f"Thread '{thread_id}' was deleted.")
        if not await self._threads.delete(
            account_id,
            thread_id,
            farewell=[("error", orjson.dumps(error_body(gone))), ("done", b"[DONE]")],
            now_s=self._clock.now_s(),
        ):
            raise _no_thread(thread_id)

    async def add_message(
        self, account_id: AccountId, thread_id: str, message: NewMessage
    ) -> Message:
        """Put a message at the end of a thread.

        Raises:
            NotFoundError: There is no such thread.
            InvalidRequestError: The thread is full, a run is active on it, or a file is not the
                account's.
        """
        (kept,) = await self.prepare_messages(account_id, thread_id, [message])
        if not await self._messages.append(account_id, kept, most=MAX_MESSAGES):
            raise _no_thread(thread_id)
        return kept

    async def get_message(self, account_id: AccountId, thread_id: str, message_id: str) -> Message:
        """Find a message.

        Raises:
            NotFoundError: The account has no such message in this thread.
        """
        message = await self._messages.get(account_id, thread_id, message_id)
        if message is None:
            raise _no_message(thread_id, message_id)
        return message

    async def list_messages(
        self, account_id: AccountId, thread_id: str, page: PageRequest, *, run_id: str | None
    ) -> Page[Message]:
        """Return a page of a thread's messages.

        Raises:
            NotFoundError: There is no such thread.
        """
        found = await self._messages.list(account_id, thread_id, page, run_id=run_id)
        if found is None:
            raise _no_thread(thread_id)
        return found

    async def set_message_metadata(
        self,
        account_id: AccountId,
        thread_id: str,
        message_id: str,
        metadata: Mapping[str, str],
    ) -> Message:
        """Replace a message's metadata."""
        message = await self._messages.set_metadata(account_id, thread_id, message_id, metadata)
        if message is None:
            raise _no_message(thread_id, message_id)
        return message

    async def delete_message(self, account_id: AccountId, thread_id: str, message_id: str) -> None:
        """Remove a message."""
        if not await self._messages.delete(account_id, thread_id, message_id):
            raise _no_message(thread_id, message_id)

    async def _check_files(self, account_id: AccountId, messages: Sequence[NewMessage]) -> None:
        places: dict[str, str] = {}
        for message in messages:
            for place, file_id in message.file_ids.items():
                places.setdefault(file_id, place)
        for file_id, place in places.items():
            try:
                await self._files.get(account_id, file_id)
            except NotFoundError as error:
                raise InvalidRequestError(
                    f"Invalid '{place}': no file found with id {file_id[:100]!r}.",
                    code="invalid_value",
                    param=place,
                ) from error

    def _message(self, thread_id: str, message: NewMessage) -> Message:
        return Message(
            id=self._new_id("msg_"),
            thread_id=thread_id,
            created_at_s=self._clock.now_s(),
            role=message.role,
            content=message.content,
            attachments=message.attachments,
            metadata=message.metadata,
        )


def _no_thread(thread_id: str) -> NotFoundError:
    return NotFoundError(f"No thread found with id {thread_id[:100]!r}.")


def _no_message(thread_id: str, message_id: str) -> NotFoundError:
    return NotFoundError(
        f"No message found with id {message_id[:100]!r} in thread {thread_id[:100]!r}."
    )
