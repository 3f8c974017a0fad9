"""OpenAI's messages as turns: instructions apart, neighbours of one side joined."""

from __future__ import annotations

import re
from typing import Final, Literal

import orjson

from openworks.core.errors import InvalidRequestError
from openworks.core.json import JsonObject, JsonValue
from openworks.gateway.compat.chat_parts import (
    Document,
    Image,
    Part,
    Text,
    Thinking,
    ToolResult,
    ToolUse,
    Turn,
)
from openworks.gateway.compat.read import (
    field_list,
    field_object,
    field_text,
    unsupported,
    wrong_type,
)

_DATA_URL: Final = re.compile(r"data:([a-z]+/[a-z0-9.+-]+);base64,", re.IGNORECASE)
_IMAGE_TYPES: Final = {
    "image/gif": "image/gif",
    "image/jpeg": "image/jpeg",
    "image/jpg": "image/jpeg",
    "image/png": "image/png",
    "image/webp": "image/webp",
}


def read_messages(messages: list[JsonValue]) -> tuple[list[Text], list[Turn]]:
    """Return the instructions, wherever they stood, and the turns.

    Neighbouring messages of one side become one turn, so that the results of parallel calls stand
    together. Instructions between turns move to the front, as providers take them only there.
    An assistant's `thinking_blocks`, which this server's answers carry, go back as they came.

    Raises:
        InvalidRequestError: A message has the wrong shape, or there is none.
        UnsupportedParameterError: It holds what cannot be translated.
    """
    system: list[Text] = []
    turns: list[Turn] = []
    for index, value in enumerate(messages):
        param = f"messages[{index}]"
        message = field_object(value, param)
        match message.get("role"):
            case "system" | "developer":
                system += _texts(message.get("content"), f"{param}.content")
            case "user":
                _add(turns, "user", _user_parts(message.get("content"), f"{param}.content"), param)
            case "tool":
                _add(turns, "user", [_tool_result(message, param)], param)
            case "assistant":
                _add(turns, "assistant", _assistant_parts(message, param), param)
            case role:
                raise unsupported(f"{param}.role", f"{role!r:.100} cannot be translated.")
    if not turns:
        raise InvalidRequestError(
            "Invalid 'messages': at least one message of a user is needed.", param="messages"
        )
    return system, turns


def _add(
    turns: list[Turn], role: Literal["user", "assistant"], parts: list[Part], param: str
) -> None:
    if not parts:
        if role == "assistant":
            return  # an answer that held nothing says nothing
        raise InvalidRequestError(
            f"Invalid '{param}.content': this provider takes no empty message.",
            param=f"{param}.content",
        )
    if turns and turns[-1].role == role:
        turns[-1].parts.extend(parts)
    else:
        turns.append(Turn(role=role, parts=parts))


def _texts(content: JsonValue, param: str) -> list[Text]:
    """Return content that must be words; empty ones, which providers refuse, are left out."""
    if isinstance(content, str):
        return [Text(text=content)] if content else []
    texts = [
        _text(field_object(part, f"{param}[{index}]"), f"{param}[{index}]")
        for index, part in enumerate(field_list(content, param))
    ]
    return [text for text in texts if text.text]


def _text(part: JsonObject, param: str) -> Text:
    match part.get("type"):
        case "text":
            words = field_text(part.get("text"), f"{param}.text")
        case "refusal":
            words = field_text(part.get("refusal"), f"{param}.refusal")
        case kind:
            raise unsupported(f"{param}.type", f"{kind!r:.100} is not possible here.")
    return Text(text=words, cache_control=_cache_control(part))


def _cache_control(part: JsonObject) -> JsonObject | None:
    value = part.get("cache_control")
    return value if isinstance(value, dict) else None


def _user_parts(content: JsonValue, param: str) -> list[Part]:
    if isinstance(content, str):
        return [Text(text=content)] if content else []
    parts = [
        _user_part(field_object(part, f"{param}[{index}]"), f"{param}[{index}]")
        for index, part in enumerate(field_list(content, param))
    ]
    return [part for part in parts if not isinstance(part, Text) or part.text]


def _user_part(part: JsonObject, param: str) -> Part:
    match part.get("type"):
        case "image_url":
            return _image(part, f"{param}.image_url")
        case "file":
            return _document(part, f"{param}.file")
        case _:
            return _text(part, param)


def _image(part: JsonObject, param: str) -> Image:
    url = field_text(field_object(part.get("image_url"), param).get("url"), f"{param}.url")
    cache_control = _cache_control(part)
    if url[:5].lower() != "data:":
        return Image(param=f"{param}.url", url=url, cache_control=cache_control)
    media_type, data = _data_url(url, f"{param}.url")
    known = _IMAGE_TYPES.get(media_type)
    if known is None:
        raise unsupported(f"{param}.url", f"images of type {media_type!r:.100} are not taken.")
    return Image(param=f"{param}.url", media_type=known, data=data, cache_control=cache_control)


def _document(part: JsonObject, param: str) -> Document:
    file = field_object(part.get("file"), param)
    if file.get("file_data") is None:
        raise unsupported(f"{param}.file_id", "this provider has other files; send 'file_data'.")
    media_type, data = _data_url(
        field_text(file["file_data"], f"{param}.file_data"), f"{param}.file_data"
    )
    if media_type != "application/pdf":
        raise unsupported(f"{param}.file_data", f"files of type {media_type!r:.100} are not taken.")
    name = file.get("filename")
    return Document(name=name if isinstance(name, str) else "document.pdf", data=data)


def _data_url(url: str, param: str) -> tuple[str, str]:
    head = _DATA_URL.match(url)
    if head is None:
        raise InvalidRequestError(
            f"Invalid '{param}': expected 'data:TYPE;base64,DATA'.", param=param
        )
    return head[1].lower(), url[head.end() :]


def _tool_result(message: JsonObject, param: str) -> ToolResult:
    texts = _texts(message.get("content"), f"{param}.content")
    return ToolResult(
        call_id=field_text(message.get("tool_call_id"), f"{param}.tool_call_id"),
        texts=tuple(text.text for text in texts),
    )


def _assistant_parts(message: JsonObject, param: str) -> list[Part]:
    for name in ("audio", "function_call"):
        if message.get(name) is not None:
            raise unsupported(f"{param}.{name}", "it cannot be translated for this provider.")
    parts: list[Part] = list(_thinking(message, param))
    content = message.get("content")
    if content is None:
        content = message.get("refusal")
    if content is not None:
        parts += _texts(content, f"{param}.content")
    calls = message.get("tool_calls")
    if calls is not None:
        for index, value in enumerate(field_list(calls, f"{param}.tool_calls")):
            at = f"{param}.tool_calls[{index}]"
            parts.append(_call(field_object(value, at), at))
    return parts


def _thinking(message: JsonObject, param: str) -> list[Thinking]:
    blocks = message.get("thinking_blocks")
    if blocks is None:
        return []  # `reasoning_content` alone has no signature, and no provider takes it back
    found: list[Thinking] = []
    for index, value in enumerate(field_list(blocks, f"{param}.thinking_blocks")):
        at = f"{param}.thinking_blocks[{index}]"
        block = field_object(value, at)
        if block.get("type") == "redacted_thinking":
            found.append(Thinking(redacted=field_text(block.get("data"), f"{at}.data")))
        else:
            found.append(
                Thinking(
                    text=field_text(block.get("thinking"), f"{at}.thinking"),
                    signature=field_text(block.get("signature"), f"{at}.signature"),
                )
            )
    return found


def _call(call: JsonObject, param: str) -> ToolUse:
    if call.get("type") not in ("function", None):
        raise unsupported(f"{param}.type", "only calls of functions can be translated.")
    function = field_object(call.get("function"), f"{param}.function")
    at = f"{param}.function.arguments"
    written = field_text(function.get("arguments"), at)
    try:
        arguments = orjson.loads(written) if written.strip() else {}
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(f"Invalid '{at}': it is no JSON: {error}.", param=at) from error
    if not isinstance(arguments, dict):
        raise wrong_type(at, "an object in JSON", arguments)
    return ToolUse(
        id=field_text(call.get("id"), f"{param}.id"),
        name=field_text(function.get("name"), f"{param}.function.name"),
        arguments=arguments,
    )
