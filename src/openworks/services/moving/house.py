"""Takes an account's assistants, threads and conversations out, and brings others in."""

from __future__ import annotations

from collections import Counter
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterator,
)
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Literal, TypeVar

from openworks.core.clock import Clock
from openworks.core.errors import ConflictError, NotFoundError
from openworks.core.ids import AccountId
from openworks.core.json import JsonObject
from openworks.core.pages import Page, PageRequest
from openworks.ports.assistants import Assistant, AssistantStore
from openworks.ports.conversations import Conversation, ConversationStore
from openworks.ports.threads import Message, MessageStore, Thread, ThreadStore
from openworks.services.moving.convert import as_conversation, as_thread
from openworks.services.moving.dump import ITEM, Dump, Saved
from openworks.services.moving.nouns import Mover

Form = Literal["threads", "conversations"]

_LIMIT = 100
_T = TypeVar("_T", Assistant, Thread, Conversation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """Where the nouns are kept."""

    assistants: AssistantStore
    threads: ThreadStore
    messages: MessageStore
    conversations: ConversationStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What came of it, by kind."""

    done: Counter[str] = field(default_factory=Counter)
    already_there: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)


class House:
    """The nouns of one account."""

    def __init__(self, stores: Stores, account_id: AccountId, *, clock: Clock) -> None:
        self._stores = stores
        self._account_id = account_id
        self._clock = clock

    async def take_out(
        self, moved: Moved, *, form: Form | None = None, thread_ids: Collection[str] = ()
    ) -> AsyncGenerator[JsonObject, None]:
        """Yield objects as OpenAI's API shows them, each before what belongs to it.

        Args:
            moved: Is filled while they are read.
            form: Threads become conversations, or the reverse; None leaves all as they are.
            thread_ids: Only these threads; empty for the whole account.

        Raises:
            NotFoundError: A thread of that id is not the account's.
        """
        if not thread_ids:
            async for assistant in self._all(self._stores.assistants.list):
                moved.done["assistants"] += 1
                yield _assistant_body(assistant)
        async for thread in self._threads(thread_ids):
            saved = Saved(head=_thread_body(thread), parts=await self._messages(thread.id))
            for body in _as_objects(saved, "thread", form, moved):
                yield body
        if not thread_ids:
            async for conversation in self._all(self._stores.conversations.list):
                saved = Saved(
                    head=_conversation_body(conversation), parts=await self._items(conversation.id)
                )
                for body in _as_objects(saved, "conversation", form, moved):
                    yield body

    async def bring_in(self, dump: Dump, *, form: Form | None = None) -> Moved:
        """Keep what was saved, under its own ids and times; what is there already stays as it is.

        Args:
            dump: What a file holds.
            form: Threads become conversations, or the reverse; None leaves all as they are.

        Raises:
            InvalidRequestError: Something has no id; what came before it is kept.
            ConflictError: An id belongs to something else.
        """
        moved = Moved(left_out=dump.left_out)
        mover = Mover(self._account_id, moved.left_out, now_s=self._clock.now_s())
        for assistant in map(mover.assistant, dump.assistants):
            await self._keep(
                "assistants",
                partial(self._stores.assistants.insert, assistant),
                partial(self._stores.assistants.get, self._account_id, assistant.id),
                moved,
            )
        threads, conversations = [*dump.threads.values()], [*dump.conversations.values()]
        if form == "conversations":
            conversations += [as_conversation(saved, moved.left_out) for saved in threads]
            threads = []
        elif form == "threads":
            threads += [as_thread(saved, moved.left_out) for saved in conversations]
            conversations = []
        for saved in threads:
            await self._bring_thread(mover.thread(saved), moved)
        for saved in conversations:
            await self._bring_conversation(mover.conversation(saved), moved)
        return moved

    async def _bring_thread(self, brought: tuple[Thread, list[Message]], moved: Moved) -> None:
        thread, messages = brought
        if await self._keep(
            "threads",
            partial(self._stores.threads.insert, thread, messages),
            partial(self._stores.threads.get, self._account_id, thread.id),
            moved,
        ):
            moved.done["messages"] += len(messages)

    async def _bring_conversation(
        self, brought: tuple[Conversation, list[JsonObject]], moved: Moved
    ) -> None:
        conversation, items = brought
        if await self._keep(
            "conversations",
            partial(self._stores.conversations.insert, conversation, items),
            partial(self._stores.conversations.get, self._account_id, conversation.id),
            moved,
        ):
            moved.done["items"] += len(items)

    async def _keep(
        self,
        kind: str,
        insert: Callable[[], Awaitable[None]],
        find: Callable[[], Awaitable[object | None]],
        moved: Moved,
    ) -> bool:
        """Keep one noun; False when the account has it already."""
        try:
            await insert()
        except ConflictError:
            if await find() is None:
                raise
            moved.already_there[kind] += 1
            return False
        moved.done[kind] += 1
        return True

    async def _threads(self, thread_ids: Collection[str]) -> AsyncIterator[Thread]:
        if not thread_ids:
            async for thread in self._all(self._stores.threads.list):
                yield thread
        for thread_id in thread_ids:
            found = await self._stores.threads.get(self._account_id, thread_id)
            if found is None:
                raise NotFoundError(f"No thread found with id {thread_id[:100]!r}.")
            yield found

    async def _messages(self, thread_id: str) -> list[JsonObject]:
        rows: list[JsonObject] = []
        after: str | None = None
        while True:
            page = await self._stores.messages.list(
                self._account_id, thread_id, PageRequest(limit=_LIMIT, order="asc", after=after)
            )
            if page is None:  # deleted meanwhile
                return rows
            rows.extend(_message_body(message) for message in page.items)
            if not page.has_more:
                return rows
            after = page.items[-1].id

    async def _items(self, conversation_id: str) -> list[JsonObject]:
        snapshot = await self._stores.conversations.snapshot(self._account_id, conversation_id)
        return [] if snapshot is None else [*snapshot.items]

    async def _all(
        self, read: Callable[[AccountId, PageRequest], Awaitable[Page[_T]]]
    ) -> AsyncIterator[_T]:
        after: str | None = None
        while True:
            request = PageRequest(limit=_LIMIT, order="asc", after=after)
            page = await read(self._account_id, request)
            for item in page.items:
                yield item
            if not page.has_more:
                return
            after = page.items[-1].id


def _as_objects(
    saved: Saved, kind: Literal["thread", "conversation"], form: Form | None, moved: Moved
) -> Iterator[JsonObject]:
    if kind == "thread" and form == "conversations":
        saved, kind = as_conversation(saved, moved.left_out), "conversation"
    elif kind == "conversation" and form == "threads":
        saved, kind = as_thread(saved, moved.left_out), "thread"
    id_ = saved.head["id"]
    moved.done[f"{kind}s"] += 1
    yield {"object": kind, **saved.head}
    for part in saved.parts:
        if kind == "thread":
            yield {"object": "thread.message", "thread_id": id_, **part}
        else:
            yield {"object": ITEM, "conversation_id": id_, "item": part}
    moved.done["messages" if kind == "thread" else "items"] += len(saved.parts)


def _assistant_body(assistant: Assistant) -> JsonObject:
    settings = asdict(assistant.settings)
    return {
        "object": "assistant",
        "id": assistant.id,
        "created_at": assistant.created_at_s,
        **{name: value for name, value in settings.items() if value is not None},
        "tools": [*settings["tools"]],
    }


def _thread_body(thread: Thread) -> JsonObject:
    return {
        "id": thread.id,
        "created_at": thread.created_at_s,
        "metadata": dict(thread.metadata),
        "tool_resources": thread.tool_resources,
    }


def _message_body(message: Message) -> JsonObject:
    return {
        "id": message.id,
        "created_at": message.created_at_s,
        "role": message.role,
        "content": [*message.content],
        "attachments": [*message.attachments],
        "metadata": dict(message.metadata),
        "assistant_id": message.assistant_id,
        "run_id": message.run_id,
    }


def _conversation_body(conversation: Conversation) -> JsonObject:
    return {
        "id": conversation.id,
        "created_at": conversation.created_at_s,
        "metadata": dict(conversation.metadata),
    }
