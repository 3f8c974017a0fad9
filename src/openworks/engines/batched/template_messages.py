"""OpenAI's messages in the shape that chat templates were written for."""

from __future__ import annotations

import json
from collections.abc import Sequence

from openworks.core.errors import UnsupportedParameterError
from openworks.core.json import JsonObject, JsonValue

_REASONING = ("reasoning_content", "reasoning", "thinking")


def template_messages(
    messages: Sequence[JsonObject], *, developer_role: bool, text_arguments: bool
) -> list[JsonObject]:
    """Return the messages with plain text as content and without what is null.

    Args:
        messages: OpenAI's message objects.
        developer_role: The template knows developers; otherwise they become the system.
        text_arguments: Leave the arguments of past calls as JSON text.

    Raises:
        UnsupportedParameterError: A part of a content is no text; names the part.
    """
    return [
        _message(message, f"messages[{index}]", developer_role, text_arguments)
        for index, message in enumerate(messages)
    ]


def _message(
    message: JsonObject, path: str, developer_role: bool, text_arguments: bool
) -> JsonObject:
    # Templates ask whether `tool_calls` is there; one that is null must not be.
    shaped: JsonObject = {name: value for name, value in message.items() if value is not None}
    shaped["content"] = _text(message.get("content"), path)
    if shaped.get("role") == "developer" and not developer_role:
        shaped["role"] = "system"
    if isinstance(calls := shaped.get("tool_calls"), list):
        if calls and not text_arguments:
            shaped["tool_calls"] = [_with_object(call) for call in calls]
        elif not calls:
            del shaped["tool_calls"]
    reasoning = next((shaped[name] for name in _REASONING if name in shaped), None)
    if reasoning is not None:  # each family reads it by a name of its own
        shaped |= {"reasoning_content": reasoning, "thinking": reasoning}
    return shaped


def _text(content: JsonValue, path: str) -> str:
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    texts = []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get(kind) if isinstance(part, dict) and kind in {"text", "refusal"} else None
        if not isinstance(text, str):
            raise UnsupportedParameterError(
                f"This model takes no content of type {kind!r}.", param=f"{path}.content[{index}]"
            )
        texts.append(text)
    return "\n".join(texts)


def _with_object(call: JsonValue) -> JsonValue:
    """Return a call whose arguments are an object; as it is where they are no JSON object."""
    function = call.get("function") if isinstance(call, dict) else None
    text = function.get("arguments") if isinstance(function, dict) else None
    if not (isinstance(call, dict) and isinstance(function, dict) and isinstance(text, str)):
        return call
    try:
        arguments: JsonValue = json.loads(text)
    except (ValueError, RecursionError):
        return call
    if not isinstance(arguments, dict):
        return call
    return {**call, "function": {**function, "arguments": arguments}}
