"""Threads, and the messages in them, whose order never changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from openworks.core.ids import AccountId
from openworks.core.json import JsonObject
from openworks.core.pages import Page, PageRequest

Role = Literal["user", "assistant"]
MessageStatus = Literal["in_progress", "incomplete", "completed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Thread:
    """A conversation of an account."""

    id: str
    account_id: AccountId
    created_at_s: float
    metadata: Mapping[str, str] = field(default_factory=dict)
    tool_resources: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message of a thread."""

    id: str
    thread_id: str
    created_at_s: float
    role: Role
    content: tuple[JsonObject, ...]
    """Parts in the shape of answers, where a text has annotations."""
    attachments: tuple[JsonObject, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    run_id: str | None = None
    """The run that wrote it; None for what callers put there."""
    assistant_id: str | None = None
    status: MessageStatus = "completed"
    ended_at_s: float | None = None
    """When a run completed it, or was cut off; what callers put there was complete already."""
    incomplete_reason: str | None = None


class ThreadStore(Protocol):
    """Where threads are kept. What belongs to another account is not there."""

    async def insert(self, thread: Thread, messages: Sequence[Message] = ()) -> None:
        """Keep a thread with its first messages: all of it or nothing.

        Raises:
            ConflictError: One of the ids is there already.
        """
        ...

    async def get(self, account_id: AccountId, thread_id: str) -> Thread | None:
        """Find one."""
        ...

    async def list(self, account_id: AccountId, page: PageRequest) -> Page[Thread]:
        """Return a page, ordered by creation, then id; `before` as with stored completions.

        Raises:
            InvalidRequestError: `after` or `before` is not the id of a thread of the account.
        """
        ...

    async def update(
        self,
        account_id: AccountId,
        thread_id: str,
        *,
        metadata: Mapping[str, str] | None = None,
        tool_resources: JsonObject | None = None,
    ) -> Thread | None:
        """Replace what is given, and leave the rest; None when there is no such thread."""
        ...

    async def delete(
        self,
        account_id: AccountId,
        thread_id: str,
        *,
        farewell: Sequence[tuple[str, bytes]] = (),
        now_s: float = 0.0,
    ) -> bool:
        """Remove a thread with its messages and runs; False when there is none.

        A run that is active ends with it, and so does its job.

        Args:
            account_id: The thread's owner.
            thread_id: The thread.
            farewell: Names and data of the events that end the stream of an active run.
            now_s: The present time.
        """
        ...


class MessageStore(Protocol):
    """The messages of those threads."""

    async def append(self, account_id: AccountId, message: Message, *, most: int) -> bool:
        """Put a message at the end of its thread; False when there is no such thread.

        Messages that come together get places of their own, whichever server takes them.

        Args:
            account_id: The thread's owner.
            message: Its `thread_id` says where.
            most: How many messages a thread may hold.

        Raises:
            ConflictError: Its id is there already.
            InvalidRequestError: The thread holds as many as it may, or a run is active on it.
        """
        ...

    async def get(self, account_id: AccountId, thread_id: str, message_id: str) -> Message | None:
        """Find one; a message of another thread is not there."""
        ...

    async def list(
        self,
        account_id: AccountId,
        thread_id: str,
        page: PageRequest,
        *,
        run_id: str | None = None,
    ) -> Page[Message] | None:
        """Return a page in the order of arrival; None when there is no such thread.

        `before` is as with stored completions.

        Args:
            account_id: The thread's owner.
            thread_id: The thread.
            page: Which part of the list.
            run_id: Leaves those messages alone that this run wrote.

        Raises:
            InvalidRequestError: `after` or `before` is not the id of a message of the thread.
        """
        ...

    async def set_metadata(
        self,
        account_id: AccountId,
        thread_id: str,
        message_id: str,
        metadata: Mapping[str, str],
    ) -> Message | None:
        """Replace the metadata; None when there is no such message."""
        ...

    async def delete(self, account_id: AccountId, thread_id: str, message_id: str) -> bool:
        """Remove a message; the others keep their order. False when there is none."""
        ...


class KnownFiles(Protocol):
    """Where messages look up the files that they point at."""

    async def get(self, account_id: AccountId, file_id: str) -> object:
        """Return a file.

        Raises:
            NotFoundError: There is none, or it belongs to another account.
        """
        ...
