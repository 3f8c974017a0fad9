"""Checks of values that the types alone do not make: ranges, counts, patterns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import cast

from openworks.core.errors import InvalidRequestError, UnsupportedParameterError
from openworks.core.json import JsonObject, JsonValue
from openworks.core.pages import MAX_LIMIT, Order, PageRequest

MAX_INTEGER = 2**31 - 1
"""What engines count with; a larger number would come out as another one."""

_MAX_STOPS = 4
_MAX_METADATA = 16
_MAX_METADATA_KEY = 64
_MAX_METADATA_VALUE = 512
_TOKEN_ID = re.compile(r"[0-9]{1,9}")
_LIMIT = re.compile(r"-?[0-9]{1,9}")
_FUNCTION_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def invalid(param: str, message: str) -> InvalidRequestError:
    """An error about one value."""
    return InvalidRequestError(message, code="invalid_value", param=param)


def missing(param: str) -> InvalidRequestError:
    """An error about a value that is not there."""
    return InvalidRequestError(
        f"Missing required parameter: '{param}'.", code="missing_required_parameter", param=param
    )


def unsupported(param: str, what: str) -> UnsupportedParameterError:
    """An error about something that no model here can do."""
    return UnsupportedParameterError(f"This server does not support {what}", param=param)


def texts_or_tokens(value: JsonValue, param: str) -> list[str | Sequence[int]]:
    """Tell apart a text, a list of texts, token ids and a list of lists of token ids."""
    if isinstance(value, str):
        return [value]
    assert isinstance(value, list)
    if not value:
        raise invalid(param, f"Invalid '{param}': an empty array.")
    if all(isinstance(item, int) for item in value):
        return [_tokens(value, param)]
    return [
        item if isinstance(item, str) else _tokens(item, f"{param}[{index}]")
        for index, item in enumerate(value)
    ]


def _tokens(value: JsonValue, param: str) -> list[int]:
    assert isinstance(value, list)
    for token in value:
        assert isinstance(token, int)
        if not 0 <= token <= MAX_INTEGER:
            raise invalid(param, f"Invalid '{param}': {token} is not a token id.")
    return cast("list[int]", value)


def check_depth(value: JsonValue, param: str, *, limit: int = 32) -> None:
    """Return if nothing in `value` is nested more than `limit` deep."""
    level = [value]
    for _ in range(limit):
        level = [
            item
            for inner in level
            if isinstance(inner, dict | list)
            for item in (inner.values() if isinstance(inner, dict) else inner)
        ]
        if not level:
            return
    raise invalid(param, f"Invalid '{param}': it is nested more than {limit} deep.")


def check_length(value: JsonValue, param: str, *, most: int) -> None:
    """Return if a text, or null, has at most so many characters."""
    if isinstance(value, str) and len(value) > most:
        raise invalid(
            param, f"Invalid '{param}': at most {most} characters are allowed, got {len(value)}."
        )


def number(
    body: JsonObject, name: str, low: float, high: float, default: float | None = None
) -> float | None:
    """Return a number of the body that must lie in `low..high`."""
    value = body.get(name)
    if value is None:
        return default
    assert isinstance(value, int | float)
    if not low <= value <= high:
        raise invalid(
            name, f"Invalid '{name}': it must be between {low:g} and {high:g}, got {value}."
        )
    return float(value)


def integer(body: JsonObject, name: str, low: int, high: int = MAX_INTEGER) -> int | None:
    """Return an integer of the body that must be at least `low` and at most `high`."""
    value = body.get(name)
    if value is None:
        return None
    assert isinstance(value, int)
    if not low <= value <= high:
        bounds = f"at least {low}" if value < low else f"at most {high}"
        raise invalid(name, f"Invalid '{name}': it must be {bounds}, got {value}.")
    return value


def stops(body: JsonObject) -> tuple[str, ...]:
    """Return the stop texts."""
    value = body.get("stop")
    found = [] if value is None else [value] if isinstance(value, str) else value
    assert isinstance(found, list)
    if len(found) > _MAX_STOPS:
        raise invalid(
            "stop", f"Invalid 'stop': at most {_MAX_STOPS} sequences are allowed, got {len(found)}."
        )
    if any(not text for text in found):
        raise invalid("stop", "Invalid 'stop': a sequence must not be empty.")
    return tuple(str(text) for text in found)


def logit_bias(body: JsonObject) -> dict[int, float]:
    """Return token id → bias."""
    value = body.get("logit_bias") or {}
    assert isinstance(value, dict)
    biases: dict[int, float] = {}
    for token, bias in value.items():
        if not _TOKEN_ID.fullmatch(token):
            raise invalid(
                "logit_bias", f"Invalid 'logit_bias': keys must be token ids, got {token[:40]!r}."
            )
        assert isinstance(bias, int | float)
        if not -100 <= bias <= 100:
            raise invalid(
                f"logit_bias.{token}",
                f"Invalid 'logit_bias.{token}': it must be between -100 and 100, got {bias}.",
            )
        biases[int(token)] = float(bias)
    return biases


def metadata(value: JsonValue, param: str = "metadata") -> Mapping[str, str]:
    """Return metadata: up to 16 pairs of strings, keys to 64 characters, values to 512."""
    pairs = value or {}
    assert isinstance(pairs, dict)
    if len(pairs) > _MAX_METADATA:
        raise invalid(
            param,
            f"Invalid '{param}': at most {_MAX_METADATA} pairs are allowed, got {len(pairs)}.",
        )
    for key, text in pairs.items():
        if len(key) > _MAX_METADATA_KEY:
            raise invalid(
                param,
                f"Invalid '{param}': keys have at most {_MAX_METADATA_KEY} characters, "
                f"{key[:20] + '...'!r} has {len(key)}.",
            )
        if not isinstance(text, str) or len(text) > _MAX_METADATA_VALUE:
            raise invalid(
                f"{param}.{key}",
                f"Invalid '{param}.{key}': values are strings of at most {_MAX_METADATA_VALUE} "
                "characters.",
            )
    return {key: str(text) for key, text in pairs.items()}


def function_name(name: str, param: str) -> str:
    """Return a function's name if it is one."""
    if not _FUNCTION_NAME.fullmatch(name):
        raise invalid(
            param,
            f"Invalid '{param}': a function's name has 1 to 64 letters, digits, underscores or "
            f"dashes, got {name[:80]!r}.",
        )
    return name


def page(
    query: Mapping[str, str], *, limit: int = 20, order: Order = "asc", most: int = MAX_LIMIT
) -> PageRequest:
    """Return the page that query parameters ask for.

    Args:
        query: The parameters.
        limit: Of a query that names none.
        order: The same.
        most: The largest limit that this list admits.
    """
    given_limit, given_order = query.get("limit", str(limit)), query.get("order", order)
    if not _LIMIT.fullmatch(given_limit):
        raise invalid("limit", f"limit must be an integer, got {given_limit[:40]!r}.")
    if given_order not in {"asc", "desc"}:
        raise invalid("order", f"order must be 'asc' or 'desc', got {given_order[:40]!r}.")
    return PageRequest(
        limit=int(given_limit),
        order="asc" if given_order == "asc" else "desc",
        after=query_id(query, "after"),
        before=query_id(query, "before"),
        most=most,
    )


def query_id(query: Mapping[str, str], name: str) -> str | None:
    """Return an id among query parameters; None when there is none.

    Raises:
        InvalidRequestError: It holds a character that no id has, and some databases cannot take.
    """
    id_ = query.get(name) or None
    if id_ is not None and "\0" in id_:
        raise invalid(name, f"{name} must be an id, got {id_[:80]!r}.")
    return id_
