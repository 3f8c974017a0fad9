"""Items as callers send them, checked, in the shape of answers; the unreadable is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, cast

from openai.types.responses import EasyInputMessageParam
from openai.types.responses.response_input_item_param import Message

from openworks.api.context import as_object
from openworks.api.openai import values
from openworks.core.json import JsonObject, JsonValue
from openworks.services.responses.context import decoded
from openworks.services.responses.packed import unpack

EXTRA_FIELDS_OF: Final[Mapping[object, Mapping[str, object]]] = {
    # Clients send back the very items that they received, with what the request types leave out.
    EasyInputMessageParam: {"id": str | None, "status": Literal["completed"] | None},
    Message: {"id": str | None},
}
"""For validators of bodies with items."""

_NOT_DIRECT: Final = ("caller", "namespace")
_TEXT_DETAILS: Final[JsonObject] = {"annotations": [], "logprobs": []}


def loosened(items: JsonValue) -> JsonValue:
    """Return items with what the SDK's types require and OpenAI's server does not."""
    if not isinstance(items, list):
        return items
    return [_loosened_item(item) if isinstance(item, dict) else item for item in items]


def parse_items(value: JsonValue, param: str) -> tuple[JsonObject, ...]:
    """Return items of a body that a validator has checked; ids may be missing.

    Args:
        value: A text, a list of items or nothing.
        param: Where they are in the request.

    Raises:
        InvalidRequestError: An item says nothing, or holds what cannot be read.
        UnsupportedParameterError: This server does not have what it is about.
    """
    if value is None:
        return ()
    if isinstance(value, str):
        return (_message({"role": "user", "content": value}, param),)
    items = cast("list[JsonObject]", value)
    return tuple(_item(item, f"{param}[{place}]") for place, item in enumerate(items))


def _loosened_item(item: JsonObject) -> JsonObject:
    content = item.get("content")
    if item.get("type", "message") != "message" or not isinstance(content, list):
        return item
    parts = [_loosened_part(part) if isinstance(part, dict) else part for part in content]
    item = {**item, "content": parts}
    is_said = any(isinstance(part, dict) and part.get("type") in _SAID for part in parts)
    if item.get("role") == "assistant" and is_said:
        return {"id": "", "type": "message", "status": "completed", **item}
    return item


_SAID: Final = ("output_text", "refusal")


def _loosened_part(part: JsonObject) -> JsonObject:
    match part.get("type"):
        case "input_image":
            return {"detail": "auto", **part}
        case "output_text":
            return {"annotations": [], **part}
        case _:
            return part


def _item(item: JsonObject, at: str) -> JsonObject:
    kind = item.get("type") or ("message" if "role" in item else "item_reference")
    match kind:
        case "message":
            return _message(item, at)
        case "function_call":
            return _call(item, at)
        case "function_call_output":
            return _output(item, at)
        case "reasoning":
            return _reasoning(item, at)
        case "compaction":
            return _compaction(item, at)
        case "item_reference":
            return {"type": "item_reference", "id": item["id"]}
        case _:
            raise values.unsupported(f"{at}.type", f"items of the type {kind!r}.")


def _message(item: JsonObject, at: str) -> JsonObject:
    role, content = item["role"], item["content"]
    is_said = role == "assistant"
    if isinstance(content, str):
        kind = "output_text" if is_said else "input_text"
        content = [{"type": kind, "text": content}]
    parts = [as_object(part) for part in cast("list[JsonValue]", content)]
    if not parts:
        raise values.invalid(f"{at}.content", f"Invalid '{at}.content': an empty array.")
    read = _said_part if is_said else _part
    message: JsonObject = {
        "type": "message",
        "role": role,
        "status": item.get("status") or "completed",
        "content": [read(part, f"{at}.content[{index}]") for index, part in enumerate(parts)],
    }
    if is_said and item.get("phase") is not None:
        message["phase"] = item["phase"]
    return _with_id(item, message)


def _said_part(part: JsonObject, at: str) -> JsonObject:
    match part["type"]:
        case "refusal":
            return {"type": "refusal", "refusal": part["refusal"]}
        case "output_text":
            return {"type": "output_text", "text": part["text"], **_TEXT_DETAILS}
        case "input_text":
            return {"type": "output_text", "text": part["text"], **_TEXT_DETAILS}
        case kind:
            raise values.unsupported(f"{at}.type", f"{kind!r} in what an assistant has said.")


def _part(part: JsonObject, at: str) -> JsonObject:
    match part["type"]:
        case "input_image":
            return _image(part, at)
        case "input_file":
            return _file(part, at)
        case _:
            return {"type": "input_text", "text": part["text"]}


def _image(part: JsonObject, at: str) -> JsonObject:
    url, file_id = part.get("image_url"), part.get("file_id")
    if (url is None) == (file_id is None):
        raise values.invalid(at, f"Invalid '{at}': send either 'image_url' or 'file_id'.")
    if isinstance(url, str) and not url.startswith("data:image/"):
        raise values.unsupported(
            f"{at}.image_url",
            "images that it would have to fetch: send a data URL (data:image/...;base64,...) or a "
            "'file_id'.",
        )
    source: JsonObject = {"file_id": file_id} if url is None else {"image_url": url}
    return {"type": "input_image", "detail": part["detail"], **source}


def _file(part: JsonObject, at: str) -> JsonObject:
    if part.get("file_url") is not None:
        raise values.unsupported(
            f"{at}.file_url",
            "files that it would have to fetch: send 'file_data' or a 'file_id'.",
        )
    data, file_id = part.get("file_data"), part.get("file_id")
    if (data is None) == (file_id is None):
        raise values.invalid(at, f"Invalid '{at}': send either 'file_data' or 'file_id'.")
    if file_id is not None:
        return {"type": "input_file", "file_id": file_id}
    if decoded(str(data)) is None:
        raise values.invalid(
            f"{at}.file_data", f"Invalid '{at}.file_data': it must be a file, encoded in base64."
        )
    name: JsonObject = {"filename": part["filename"]} if part.get("filename") else {}
    return {"type": "input_file", "file_data": data, **name}


def _call(item: JsonObject, at: str) -> JsonObject:
    _check_direct(item, at)
    call: JsonObject = {
        "type": "function_call",
        "call_id": item["call_id"],
        "name": item["name"],
        "arguments": item["arguments"],
        "status": item.get("status") or "completed",
    }
    return _with_id(item, call)


def _output(item: JsonObject, at: str) -> JsonObject:
    _check_direct(item, at)
    if not item.get("call_id"):
        raise values.missing(f"{at}.call_id")
    output = item["output"]
    if not isinstance(output, str):
        output = [
            _output_part(as_object(part), f"{at}.output[{index}]")
            for index, part in enumerate(cast("list[JsonValue]", output))
        ]
    result: JsonObject = {
        "type": "function_call_output",
        "call_id": item["call_id"],
        "output": output,
        "status": item.get("status") or "completed",
    }
    return _with_id(item, result)


def _output_part(part: JsonObject, at: str) -> JsonObject:
    if part["type"] != "input_text":
        raise values.unsupported(f"{at}.type", f"{part['type']!r} in what a function returns.")
    return {"type": "input_text", "text": part["text"]}


def _reasoning(item: JsonObject, at: str) -> JsonObject:
    packed = item.get("encrypted_content")
    is_told = bool(item.get("content") or item.get("summary"))
    if isinstance(packed, str) and not is_told and unpack(packed) is None:
        raise _unreadable(f"{at}.encrypted_content")
    thought: JsonObject = {
        "type": "reasoning",
        "summary": item["summary"],
        "content": item.get("content") or [],
        "status": item.get("status") or "completed",
    }
    if packed is not None:
        thought["encrypted_content"] = packed
    return _with_id(item, thought)


def _compaction(item: JsonObject, at: str) -> JsonObject:
    packed = str(item["encrypted_content"])
    if unpack(packed) is None:
        raise _unreadable(f"{at}.encrypted_content")
    return _with_id(item, {"type": "compaction", "encrypted_content": packed})


def _unreadable(param: str) -> Exception:
    return values.invalid(
        param, f"Invalid '{param}': it was not made by this server, which cannot read it."
    )


def _check_direct(item: JsonObject, at: str) -> None:
    """Refuse calls that programs made, or that belong to tools of several kinds."""
    for name in _NOT_DIRECT:
        value = item.get(name)
        if value is not None and value != {"type": "direct"}:
            raise values.unsupported(f"{at}.{name}", f"'{name}'; functions are called directly.")


def _with_id(item: JsonObject, kept: JsonObject) -> JsonObject:
    return {"id": item["id"], **kept} if item.get("id") else kept
