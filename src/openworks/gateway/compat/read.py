"""Looking into JSON of others: callers' requests, named by path, and providers' answers."""

from __future__ import annotations

from typing import Final

import orjson

from openworks.core.errors import InvalidRequestError, ProviderError, UnsupportedParameterError
from openworks.core.json import JsonObject, JsonValue

MAX_QUOTE_CHARS: Final = 500
"""How much of a provider's unreadable error is repeated."""


class MalformedAnswer(ValueError):
    """A provider's answer is not what it documents; never leaves this package."""


def loads(data: bytes) -> JsonObject:
    """Return a provider's JSON object."""
    try:
        return an_object(orjson.loads(data))
    except orjson.JSONDecodeError as error:
        raise MalformedAnswer(f"no JSON: {error}") from error


def an_object(value: JsonValue) -> JsonObject:
    """Return a provider's value that must be an object."""
    if not isinstance(value, dict):
        raise MalformedAnswer(f"an object was expected, got {type(value).__name__}")
    return value


def a_list(value: JsonValue) -> list[JsonValue]:
    """Return a provider's value that must be a list."""
    if not isinstance(value, list):
        raise MalformedAnswer(f"a list was expected, got {type(value).__name__}")
    return value


def a_text(value: JsonValue) -> str:
    """Return a provider's value that must be a string."""
    if not isinstance(value, str):
        raise MalformedAnswer(f"a string was expected, got {type(value).__name__}")
    return value


def a_count(value: JsonValue) -> int:
    """Return a provider's number of tokens; 0 when it gave none."""
    if value is None:
        return 0
    if not isinstance(value, int) or value < 0:
        raise MalformedAnswer(f"a count was expected, got {value!r}")
    return value


def unreadable(provider: str, error: ValueError) -> ProviderError:
    """Return the error for an answer that cannot be translated."""
    return ProviderError(
        f"The answer of {provider} could not be read: {error}.", code="invalid_provider_answer"
    )


def error_json(message: str, kind: str, code: str | None) -> bytes:
    """Return OpenAI's error body for what a provider said."""
    error: JsonObject = {"message": message, "type": kind, "param": None, "code": code}
    return orjson.dumps({"error": error})


def error_text(provider: str, status: int, body: bytes) -> str:
    """Return a message for an error body without one that can be read."""
    said = body[: 4 * MAX_QUOTE_CHARS].decode("utf-8", "replace").strip()[:MAX_QUOTE_CHARS]
    return f"{provider} answered with status {status}" + (f": {said}" if said else ".")


def error_kind(status: int) -> str:
    """Return OpenAI's error type for a status."""
    match status:
        case 401:
            return "authentication_error"
        case 403:
            return "permission_error"
        case 429:
            return "rate_limit_error"
        case _:
            return "invalid_request_error" if status < 500 else "server_error"


def wrong_type(param: str, expected: str, value: JsonValue) -> InvalidRequestError:
    """Return the error for a caller's field of another type."""
    return InvalidRequestError(
        f"Invalid type for '{param}': expected {expected}, got {_type_name(value)}.",
        code="invalid_type",
        param=param,
    )


def unsupported(param: str, reason: str) -> UnsupportedParameterError:
    """Return the refusal of a caller's field."""
    return UnsupportedParameterError(f"Unsupported parameter: '{param}': {reason}", param=param)


def field_object(value: JsonValue, param: str) -> JsonObject:
    """Return a caller's field that must be an object."""
    if not isinstance(value, dict):
        raise wrong_type(param, "an object", value)
    return value


def field_list(value: JsonValue, param: str) -> list[JsonValue]:
    """Return a caller's field that must be a list."""
    if not isinstance(value, list):
        raise wrong_type(param, "an array", value)
    return value


def field_text(value: JsonValue, param: str) -> str:
    """Return a caller's field that must be a string."""
    if not isinstance(value, str):
        raise wrong_type(param, "a string", value)
    return value


def field_number(fields: JsonObject, name: str) -> float | None:
    """Return a caller's optional number."""
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type(name, "a number", value)
    return value


def field_count(fields: JsonObject, name: str) -> int | None:
    """Return a caller's optional integer of 1 or more."""
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(name, "an integer", value)
    if value < 1:
        raise InvalidRequestError(
            f"Invalid value for '{name}': expected 1 or more, got {value}.",
            code="integer_below_min_value",
            param=name,
        )
    return value


def _type_name(value: JsonValue) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    return "null" if value is None else names.get(type(value), "a number")
