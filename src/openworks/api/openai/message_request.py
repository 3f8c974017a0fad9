"""The body of a request about a thread or its messages, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict, cast

from openai.types.beta import ThreadCreateParams, ThreadUpdateParams
from openai.types.beta.threads import MessageCreateParams
from openai.types.shared_params import Metadata

from openworks.api.context import as_object
from openworks.api.openai import values
from openworks.core.json import JsonObject, JsonValue
from openworks.ports.threads import Role
from openworks.services.threads import NewMessage
from openworks.wire.openai.validate import RequestValidator


class _MessageUpdate(TypedDict, total=False):
    """As the SDK's type, without the thread's id, which is part of the path."""

    metadata: Metadata | None


_THREAD = RequestValidator(ThreadCreateParams)
_THREAD_UPDATE = RequestValidator(ThreadUpdateParams, keep_nulls=True)
_MESSAGE = RequestValidator(MessageCreateParams)
_MESSAGE_UPDATE = RequestValidator(_MessageUpdate, keep_nulls=True)

_MAX_CHARS = 256_000


def parse_thread(body: JsonValue) -> tuple[JsonObject, list[NewMessage]]:
    """Check the body of a new thread; return its fields and its first messages.

    Raises:
        InvalidRequestError: It breaks OpenAI's types or limits; names the field and the value.
        UnsupportedParameterError: It asks for what this server does not have.
    """
    fields = cast("JsonObject", _THREAD.check(body))
    return fields, parse_messages(fields.get("messages"), "messages")


def parse_messages(value: JsonValue, at: str) -> list[NewMessage]:
    """Return messages whose types have been checked, or nothing; errors as in `parse_thread`.

    Args:
        value: The array, or null.
        at: Where it is in the request.
    """
    return [
        _message(message, f"{at}[{index}].")
        for index, message in enumerate(cast("list[JsonObject]", value or []))
    ]


def parse_thread_update(body: JsonValue) -> JsonObject:
    """Check the body of a change to a thread; errors as in `parse_thread`."""
    return cast("JsonObject", _THREAD_UPDATE.check(body))


def parse_message(body: JsonValue) -> NewMessage:
    """Check the body of a new message; errors as in `parse_thread`."""
    return _message(cast("JsonObject", _MESSAGE.check(body)), "")


def parse_message_update(body: JsonValue) -> JsonObject:
    """Check the body of a change to a message; errors as in `parse_thread`."""
    return cast("JsonObject", _MESSAGE_UPDATE.check(body))


def _message(fields: JsonObject, at: str) -> NewMessage:
    """Return a message; `at` leads to its fields in the request."""
    content, files = _content(fields["content"], f"{at}content")
    attachments = _attachments(fields.get("attachments"), f"{at}attachments", files)
    return NewMessage(
        role=cast("Role", fields["role"]),
        content=content,
        attachments=attachments,
        metadata=values.metadata(fields.get("metadata"), f"{at}metadata"),
        file_ids=files,
    )


def _content(value: JsonValue, at: str) -> tuple[tuple[JsonObject, ...], dict[str, str]]:
    """Return the parts of a message, and the files in them by the place that names them."""
    if isinstance(value, str):
        return (_text(value, at),), {}
    parts, files = [], {}
    for index, part in enumerate(cast("list[JsonObject]", value)):
        place = f"{at}[{index}]"
        match part["type"]:
            case "text":
                parts.append(_text(str(part["text"]), f"{place}.text"))
            case "image_url":
                parts.append(_image_url(as_object(part["image_url"]), f"{place}.image_url.url"))
            case _:
                image = as_object(part["image_file"])
                files[f"{place}.image_file.file_id"] = str(image["file_id"])
                parts.append({"type": "image_file", "image_file": {"detail": "auto", **image}})
    if not parts:
        raise values.invalid(at, f"Invalid '{at}': an empty array; a message must say something.")
    return tuple(parts), files


def _text(value: str, at: str) -> JsonObject:
    if not value:
        raise values.invalid(at, f"Invalid '{at}': an empty text; a message must say something.")
    values.check_length(value, at, most=_MAX_CHARS)
    return {"type": "text", "text": {"value": value, "annotations": []}}


def _image_url(image: JsonObject, at: str) -> JsonObject:
    if not str(image["url"]).startswith("data:image/"):
        raise values.unsupported(
            at,
            "images that it would have to fetch: send a data URL (data:image/...;base64,...) or an "
            "'image_file'.",
        )
    return {"type": "image_url", "image_url": {"detail": "auto", **image}}


def _attachments(value: JsonValue, at: str, files: dict[str, str]) -> tuple[JsonObject, ...]:
    """Return the attachments, adding their files to `files`."""
    found = cast("list[JsonObject]", value or [])
    for index, attachment in enumerate(found):
        _check_attachment(attachment, f"{at}[{index}]")
        files[f"{at}[{index}].file_id"] = str(attachment["file_id"])
    return tuple(found)


def _check_attachment(attachment: Mapping[str, JsonValue], place: str) -> None:
    """Refuse what OpenAI's type allows and nobody could make use of."""
    for name in ("file_id", "tools"):
        if not attachment.get(name):
            raise values.missing(f"{place}.{name}")
    for index, tool in enumerate(cast("list[JsonObject]", attachment["tools"])):
        if tool["type"] == "code_interpreter":
            raise values.unsupported(f"{place}.tools[{index}].type", "the tool 'code_interpreter'.")
