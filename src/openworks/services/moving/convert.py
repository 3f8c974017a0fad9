"""Threads as conversations, and conversations as threads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from openworks.core.json import JsonObject, JsonValue
from openworks.services.moving.dump import Saved

_THREAD, _CONVERSATION = "thread_", "conv_"


def as_conversation(thread: Saved, left_out: Counter[str]) -> Saved:
    """Return a thread as a conversation; ids change their prefix alone.

    Args:
        thread: With messages as the Assistants API shows them.
        left_out: What a conversation cannot hold is counted here, by its kind.
    """
    items: list[JsonObject] = []
    for message in thread.parts:
        role = message.get("role")
        content = [*_items_content(message.get("content"), str(role), left_out)]
        items.append(
            {
                "type": "message",
                "id": message.get("id"),
                "role": role,
                "status": "completed",
                "content": [*content],
            }
        )
    return Saved(head=_head(thread, _THREAD, _CONVERSATION), parts=items)


def as_thread(conversation: Saved, left_out: Counter[str]) -> Saved:
    """Return a conversation as a thread: its messages, without calls and reasoning.

    Args:
        conversation: With items as the Responses API shows them.
        left_out: What a thread cannot hold is counted here, by its kind.
    """
    head = _head(conversation, _CONVERSATION, _THREAD)
    messages: list[JsonObject] = []
    for item in conversation.parts:
        if item.get("type", "message") != "message":
            left_out[f"items of type {str(item.get('type'))[:40]!r}"] += 1
            continue
        content = [*_message_content(item.get("content"), left_out)]
        messages.append(
            {
                "id": item.get("id"),
                "created_at": head.get("created_at"),
                "role": item.get("role"),
                "content": [*content],
            }
        )
    return Saved(head=head, parts=messages)


def _head(saved: Saved, old: str, new: str) -> JsonObject:
    id_ = str(saved.head.get("id"))
    return {
        "id": new + id_.removeprefix(old),
        "created_at": saved.head.get("created_at"),
        "metadata": saved.head.get("metadata") or {},
    }


def _items_content(value: JsonValue, role: str, left_out: Counter[str]) -> Iterator[JsonObject]:
    for part in _parts(value):
        match part:
            case {"type": "text", "text": {"value": str(text)}} | {
                "type": "text",
                "text": str(text),
            }:
                yield _item_text(text, role)
            case {"type": "image_url", "image_url": {"url": str(url)}}:
                yield {"type": "input_image", "image_url": url, "detail": "auto", "file_id": None}
            case {"type": "refusal", "refusal": str(text)}:
                yield {"type": "refusal", "refusal": text}
            case _:
                left_out[f"parts of type {_kind(part)!r}"] += 1


def _item_text(text: str, role: str) -> JsonObject:
    if role == "assistant":
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "input_text", "text": text}


def _message_content(value: JsonValue, left_out: Counter[str]) -> Iterator[JsonObject]:
    for part in _parts(value):
        match part:
            case {"type": "input_text" | "output_text" | "text", "text": str(text)}:
                yield {"type": "text", "text": {"value": text, "annotations": []}}
            case {"type": "input_image", "image_url": str(url)}:
                yield {"type": "image_url", "image_url": {"url": url, "detail": "auto"}}
            case {"type": "refusal", "refusal": str(text)}:
                yield {"type": "refusal", "refusal": text}
            case _:
                left_out[f"parts of type {_kind(part)!r}"] += 1


def _parts(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else [{"type": "text", "text": value}]


def _kind(part: JsonValue) -> str:
    return str(part.get("type"))[:40] if isinstance(part, dict) else "none"
