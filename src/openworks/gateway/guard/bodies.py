"""Finds the texts in a request or an answer, and redacts them where they stand.

One way for every provider: all string values of a JSON body are text, tool arguments and tool
results among them, less those that are structure (ids, types, roles) or encoded bytes (pictures,
sound). Nothing has to be known of a provider for its texts to be looked at, and a new field of one
is looked at from its first day.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import orjson

from openworks.gateway.guard.policies import SidePolicies
from openworks.gateway.guard.verdicts import Tally, Verdict, decode, encode, redact, without_escapes

# fmt: off
STRUCTURE = frozenset(
    {
        "callId", "call_id", "created", "created_at", "encoding_format",
        "encrypted_content", "event_id", "finishReason", "finish_reason", "id", "item_id",
        "media_type", "message_id", "mimeType", "mime_type", "model", "modelVersion",
        "native_finish_reason", "obfuscation", "object", "previous_response_id",
        "reasoning_effort", "responseId", "response_id", "role", "service_tier",
        "signature", "status", "stop_reason", "system_fingerprint", "thoughtSignature",
        "thought_signature", "tool_call_id", "tool_use_id", "type",
    }
)
# fmt: on
"""Keys whose values no one writes by hand: a marker there would break the call."""

NESTED = frozenset({"arguments", "partial_json"})
"""Keys whose strings are JSON themselves."""

_ENCODED = frozenset({"data", "b64_json", "file_data", "embedding", "audio", "image", "url"})
_LONG_ENCODED_CHARS = 256
_NOT_ENCODED = re.compile(r"[^A-Za-z0-9+/=_\r\n-]")

# A string and, for a key, its colon. Possessive, so that it cannot go back.
_STRING = re.compile(rb'"((?:[^"\\]++|\\.)*+)"(\s*+:)?', re.DOTALL)


def is_text(key: str | None, value: str) -> bool:
    """Whether a string value is text, by the key that it stands under (None in an array)."""
    if key in STRUCTURE and " " not in value:
        return False
    if key in _ENCODED and len(value) > _LONG_ENCODED_CHARS:
        is_data_url = value.startswith("data:") and ";base64," in value[:128]
        return not is_data_url and _NOT_ENCODED.search(value) is not None
    return True


def texts_of(body: bytes) -> list[str]:
    """Return the texts of a body in their order; a body that is no JSON is one text.

    Bytes that are not UTF-8 either (sound, pictures) hold none.
    """
    try:
        value = _parse(body)
    except ValueError:
        try:
            return [body.decode("utf-8")] if body else []
        except UnicodeDecodeError:
            return []
    return leaves(value)


def leaves(value: Any) -> list[str]:
    """Return the texts in decoded JSON, as a document has them."""
    found: list[str] = []
    stack: list[tuple[str | None, Any]] = [(None, value)]
    while stack:
        key, value = stack.pop()
        kind = type(value)
        if kind is str:
            if is_text(key, value):
                found.append(value)
        elif kind is dict:
            stack.extend(reversed(value.items()))
        elif kind is list:
            # Vectors are long lists of numbers: not one of them goes onto the stack.
            stack.extend((None, item) for item in reversed(value) if type(item) in _HOLDS_TEXT)
    return found


_HOLDS_TEXT = frozenset({str, dict, list})


def guard_body(policies: SidePolicies | None, body: bytes) -> tuple[bytes, Verdict | None]:
    """Scan a body; return it as it may go on, and what was found.

    The body is the same object unless something in it was redacted, and then only the strings
    concerned differ. The verdict is None when no policy looks at this side.
    """
    if policies is None:
        return body, None
    tally = Tally(policies)
    return redact_body(policies, body, tally), tally.verdict()


def redact_body(policies: SidePolicies, body: bytes, tally: Tally) -> bytes:
    """Count what is in a body, and return it redacted; the same object when nothing changes."""
    texts = texts_of(body)
    # Joined by line breaks: one search for all of them.
    joined = encode("\n".join(texts))
    if not policies.scanner.may_match(joined) and (
        b"\\" not in joined or not policies.scanner.may_match(without_escapes(joined))
    ):
        return body
    if not _is_json(body):
        return redact(policies, body, tally)
    pieces = list(_redacted_pieces(policies, body, tally))
    return b"".join(pieces) if len(pieces) > 1 else body


def _parse(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return json.loads(body.decode("utf-8"))  # halves of surrogate pairs, which orjson refuses


def _is_json(body: bytes) -> bool:
    try:
        _parse(body)
    except ValueError:
        return False
    return True


def _redacted_pieces(policies: SidePolicies, body: bytes, tally: Tally) -> Iterator[bytes]:
    done, key, key_end = 0, None, -1
    for match in _STRING.finditer(body):
        content = match.group(1)
        if match.group(2) is not None:
            key, key_end = decode_string(content), match.end()
            continue
        stands_under = key if not body[key_end : match.start()].strip() else None
        text = decode_string(content)
        if not is_text(stands_under, text):
            continue
        raw = encode(text)
        redacted = redact(policies, raw, tally, nested=stands_under in NESTED)
        if redacted is not raw:
            yield body[done : match.start()]
            yield dump_string(decode(redacted))
            done = match.end()
    yield body[done:]


def decode_string(content: bytes) -> str:
    """Decode what stands between the quotes of a JSON string."""
    if b"\\" not in content:
        return content.decode("utf-8", "replace")
    text: str = json.loads(b'"' + content + b'"', strict=False)
    return text


def dump_string(text: str) -> bytes:
    """Write a JSON string, quotes included."""
    try:
        return orjson.dumps(text)
    except orjson.JSONEncodeError:
        return json.dumps(text).encode("ascii")  # halves of surrogate pairs
