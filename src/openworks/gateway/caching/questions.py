"""The last thing that a user said, apart from everything else in a chat request."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from openworks.core.json import JsonObject, JsonValue

MAX_TEXT_CHARS: Final = 8_192


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What may differ between two calls with one answer, and a digest of what may not."""

    text: str
    rest: bytes
    """Over system prompt, earlier turns, tools, parameters, and the numbers in the text."""


_CHAT: Final = (
    "chat/completions",
    "/messages",
    "/responses",
    ":generateContent",
    ":streamGenerateContent",
)


def question_of(target: bytes, body: JsonValue) -> Question | None:
    """Split a decoded chat body of OpenAI's, Anthropic's or Google's shape.

    None when the target is not a chat (an embedding of another text is simply wrong), when the
    last turn is not a user's, is more than text, or is too long to be compared: then only the same
    body has the same answer.

    Args:
        target: The provider's path, with or without its query.
        body: What it is sent.
    """
    path = target.partition(b"?")[0].decode("ascii", "replace")
    if not isinstance(body, dict) or not path.endswith(_CHAT):
        return None
    for field, part_field in (("messages", "content"), ("contents", "parts"), ("input", "content")):
        turns = body.get(field)
        if turns is None:
            continue
        if isinstance(turns, str):
            return _question(turns, {**body, field: None})
        return _last_turn(body, field, turns, part_field)
    return None


def _last_turn(body: JsonObject, field: str, turns: JsonValue, part_field: str) -> Question | None:
    if not isinstance(turns, list) or not turns:
        return None
    last = turns[-1]
    if not isinstance(last, dict) or last.get("role", "user") != "user":
        return None
    text = _text_of(last.get(part_field))
    if text is None:
        return None
    return _question(text, {**body, field: [*turns[:-1], {**last, part_field: None}]})


def _text_of(content: JsonValue) -> str | None:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    texts: list[str] = []
    for part in content:
        # A part with anything else, such as an image or a cache mark, is more than text.
        if not isinstance(part, dict) or not part.keys() <= {"type", "text"}:
            return None
        text = part.get("text")
        if not isinstance(text, str):
            return None
        texts.append(text)
    return "\n".join(texts)


_NUMBER: Final = re.compile(r"\d+(?:[.,:/-]\d+)*")


def _question(text: str, rest: JsonObject) -> Question | None:
    text = text.strip()
    if not text or len(text) > MAX_TEXT_CHARS:
        return None
    digest = hashlib.sha256(orjson.dumps(rest, option=orjson.OPT_SORT_KEYS))
    # Vectors of "2 + 2" and "2 + 3" lie close together, and so do those of two order numbers.
    digest.update(" ".join(_NUMBER.findall(text)).encode())
    return Question(text=text, rest=digest.digest())


def question_scope(
    question: Question,
    *,
    account: str,
    gateway: str,
    epoch: int,
    provider: str,
    target: bytes,
    credential: bytes,
) -> bytes:
    """Return the digest of everything that two alike questions must share to have one answer."""
    parts: Mapping[str, str | int] = {
        "account": account,
        "gateway": gateway,
        "epoch": epoch,
        "provider": provider,
        "target": target.hex(),
        "credential": credential.hex(),
        "rest": question.rest.hex(),
    }
    return hashlib.sha256(orjson.dumps(parts)).digest()
