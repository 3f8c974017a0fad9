"""Saved objects as the nouns that this server keeps; what it cannot keep is counted, not hidden."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final, cast

from openworks.core.errors import InvalidRequestError
from openworks.core.ids import AccountId
from openworks.core.json import JsonObject, JsonValue
from openworks.ports.assistants import Assistant, AssistantSettings
from openworks.ports.conversations import Conversation
from openworks.ports.threads import Message, Role, Thread
from openworks.services.moving.dump import Saved

_TOOLS: Final = frozenset({"function", "file_search"})


class Mover:
    """Turns saved objects into those of one account."""

    def __init__(self, account_id: AccountId, left_out: Counter[str], *, now_s: float) -> None:
        """Remember whose they will be.

        Args:
            account_id: Theirs.
            left_out: What cannot be kept is counted here, by its kind.
            now_s: The creation of what does not tell its own, in seconds since the Unix epoch.
        """
        self._account_id = account_id
        self._now_s = now_s
        self._left_out = left_out

    def assistant(self, saved: JsonObject) -> Assistant:
        """Return an assistant.

        Raises:
            InvalidRequestError: It has no id or no model.
        """
        assistant_id = self._id(saved, "an assistant")
        return Assistant(
            id=assistant_id,
            account_id=self._account_id,
            created_at_s=self._time(saved, self._now_s),
            settings=AssistantSettings(
                model=_required(saved, "model", assistant_id),
                name=_optional(saved, "name"),
                description=_optional(saved, "description"),
                instructions=_optional(saved, "instructions"),
                tools=tuple(self._tools(saved)),
                metadata=_metadata(saved),
                temperature=_number(saved, "temperature"),
                top_p=_number(saved, "top_p"),
                reasoning_effort=_optional(saved, "reasoning_effort"),
                response_format=saved.get("response_format") or "auto",
            ),
        )

    def thread(self, saved: Saved) -> tuple[Thread, list[Message]]:
        """Return a thread with its messages, each once.

        Raises:
            InvalidRequestError: A message has no id.
        """
        thread_id = self._id(saved.head, "a thread")
        messages: dict[str, Message] = {}
        created_at_s = self._time(saved.head, self._now_s)
        for part in saved.parts:
            message = self._message(thread_id, part, created_at_s)
            if message is not None:
                messages[message.id] = message
        self._note_resources(saved.head)
        thread = Thread(
            id=thread_id,
            account_id=self._account_id,
            created_at_s=created_at_s,
            metadata=_metadata(saved.head),
        )
        return thread, list(messages.values())

    def conversation(self, saved: Saved) -> tuple[Conversation, list[JsonObject]]:
        """Return a conversation with its items, each once.

        Raises:
            InvalidRequestError: An item has no id or no type.
        """
        conversation_id = self._id(saved.head, "a conversation")
        items: dict[str, JsonObject] = {}
        for item in saved.parts:
            item_id = self._id(item, f"an item of {conversation_id!r}")
            items[item_id] = {**item, "type": _required(item, "type", item_id)}
        conversation = Conversation(
            id=conversation_id,
            account_id=self._account_id,
            created_at_s=self._time(saved.head, self._now_s),
            metadata=_metadata(saved.head),
        )
        return conversation, list(items.values())

    def _message(self, thread_id: str, saved: JsonObject, default_s: float) -> Message | None:
        message_id = self._id(saved, f"a message of {thread_id!r}")
        role = saved.get("role")
        if role not in {"user", "assistant"}:
            self._left_out[f"messages of the role {str(role)[:40]!r}"] += 1
            return None
        content = tuple(self._content(saved.get("content")))
        if not content:
            self._left_out["messages that say nothing"] += 1
            return None
        self._left_out["attachments"] += len(
            cast("list[JsonValue]", saved.get("attachments") or [])
        )
        return Message(
            id=message_id,
            thread_id=thread_id,
            created_at_s=self._time(saved, default_s),
            role=cast("Role", role),
            content=content,
            metadata=_metadata(saved),
            assistant_id=_optional(saved, "assistant_id"),
        )

    def _content(self, value: JsonValue) -> Iterator[JsonObject]:
        if isinstance(value, str):
            yield _text(value)
        for part in value if isinstance(value, list) else []:
            match part:
                case {"type": "text", "text": {"value": str(text)}} | {
                    "type": "text",
                    "text": str(text),
                }:
                    yield _text(text)
                case {"type": "refusal", "refusal": str(text)}:
                    yield {"type": "refusal", "refusal": text}
                case {"type": "image_url", "image_url": {"url": str(url)}}:
                    yield {"type": "image_url", "image_url": {"url": url, "detail": "auto"}}
                case {"type": str(kind)}:
                    self._left_out[f"parts of type {kind[:40]!r}"] += 1
                case _:
                    self._left_out["parts without a type"] += 1

    def _tools(self, saved: JsonObject) -> Iterator[JsonObject]:
        for tool in _list(saved, "tools"):
            if isinstance(tool, dict) and tool.get("type") in _TOOLS:
                yield tool
            else:
                kind = tool.get("type") if isinstance(tool, dict) else tool
                self._left_out[f"tools of type {str(kind)[:40]!r}"] += 1
        self._note_resources(saved)

    def _note_resources(self, saved: JsonObject) -> None:
        """Files and vector stores are elsewhere; what points at them would point at nothing."""
        resources = saved.get("tool_resources")
        if isinstance(resources, dict):
            self._left_out["tool resources"] += sum(1 for value in resources.values() if value)

    def _id(self, saved: JsonObject, what: str) -> str:
        value = saved.get("id")
        if not isinstance(value, str) or not value or "\0" in value or len(value) > 200:
            raise InvalidRequestError(f"The id of {what} is no id: {str(value)[:80]!r}.")
        return value

    def _time(self, saved: JsonObject, default_s: float) -> float:
        value = saved.get("created_at")
        return float(value) if isinstance(value, int | float) else default_s


def _text(value: str) -> JsonObject:
    # Annotations cite files that are elsewhere.
    return {"type": "text", "text": {"value": value, "annotations": []}}


def _required(saved: JsonObject, name: str, id_: str) -> str:
    value = _optional(saved, name)
    if not value:
        raise InvalidRequestError(f"{id_!r} has no '{name}'.", param=name)
    return value


def _optional(saved: JsonObject, name: str) -> str | None:
    value = saved.get(name)
    return value if isinstance(value, str) else None


def _list(saved: JsonObject, name: str) -> list[JsonValue]:
    value = saved.get(name)
    return value if isinstance(value, list) else []


def _number(saved: JsonObject, name: str) -> float | None:
    value = saved.get(name)
    return float(value) if isinstance(value, int | float) else None


def _metadata(saved: JsonObject) -> dict[str, str]:
    value = saved.get("metadata")
    pairs = value.items() if isinstance(value, dict) else ()
    return {name: text for name, text in pairs if isinstance(text, str)}
