"""The model's name in a request body: replaced in place, every other byte left alone."""

from __future__ import annotations

import re
from typing import Final

import msgspec
import orjson

from openworks.core.errors import InvalidRequestError

_KEY: Final = re.compile(
    rb'"(?<=[{, \t\r\n]")'
    rb"(?:m|\\u006[dD])(?:o|\\u006[fF])(?:d|\\u0064)(?:e|\\u0065)(?:l|\\u006[cC])"
    rb'"[ \t\r\n]*:[ \t\r\n]*'
)
"""The key in each spelling that JSON allows, its colon, and the space up to the value.

No quote within a string follows a brace, a comma or a space: there it follows a backslash.
"""
_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_VALUE: Final = re.compile(_STRING, re.DOTALL)
_TOKEN: Final = re.compile(_STRING + rb"|[{}\[\]]", re.DOTALL)
_CLOSED: Final = b'"":0}'


class _AnyObject(msgspec.Struct):
    """An object of which nothing is kept: decoding it checks its form."""


_check = msgspec.json.Decoder(_AnyObject).decode


def with_model(body: bytes, model: str) -> bytes:
    """Return `body` with `model` as its top-level "model".

    When the key is there more than once each is replaced, as parsers differ on which one counts.
    The usual body, with one such key, costs one search and a parse of what stands before it.

    Args:
        body: A JSON object; its form is taken for granted.
        model: The name to send.

    Raises:
        InvalidRequestError: There is no top-level "model", or it is not a string.
    """
    name = orjson.dumps(model)
    found = _KEY.search(body)
    if found is None:
        raise _missing()
    if _KEY.search(body, found.end()) is None and _is_top_level(body, found.start()):
        value = _value(body, found.end())
        return b"".join((body[: value[0]], name, body[value[1] :]))
    return _replace_each(body, name)


def _is_top_level(body: bytes, at: int) -> bool:
    """Tell whether a key at `at` is the outermost object's: with one more brace it must parse."""
    try:
        _check(body[:at] + _CLOSED)
    except msgspec.DecodeError:
        return False
    return True


def _replace_each(body: bytes, name: bytes) -> bytes:
    pieces: list[bytes] = []
    depth = copied = at = 0
    while (token := _TOKEN.search(body, at)) is not None:
        at = token.end()
        first = body[token.start()]
        if first in b"{[":
            depth += 1
        elif first in b"}]":
            depth -= 1
        elif depth == 1 and (key := _KEY.match(body, token.start())) is not None:
            start, at = _value(body, key.end())
            pieces += (body[copied:start], name)
            copied = at
    if not pieces:
        raise _missing()
    pieces.append(body[copied:])
    return b"".join(pieces)


def _value(body: bytes, at: int) -> tuple[int, int]:
    value = _VALUE.match(body, at)
    if value is None:
        raise InvalidRequestError(
            "Invalid type for 'model': expected a string.", code="invalid_type", param="model"
        )
    return value.span()


def _missing() -> InvalidRequestError:
    return InvalidRequestError(
        "Missing required parameter: 'model'.", code="missing_required_parameter", param="model"
    )
