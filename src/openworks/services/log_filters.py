"""Conditions on logs as clients write them: key, operator and values, each of its key's type."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias, cast, get_args

from openworks.core.errors import InvalidRequestError, UnsupportedParameterError
from openworks.core.json import JsonValue
from openworks.ports.logs import FilterKey, FilterOperator, FilterValue, LogFilter

_Kind: TypeAlias = Literal["text", "number", "flag", "time", "any"]

_KINDS: Final[Mapping[FilterKey, _Kind]] = {
    "id": "text",
    "created_at": "time",
    "request_content_type": "text",
    "response_content_type": "text",
    "success": "flag",
    "cached": "flag",
    "provider": "text",
    "model": "text",
    "cost": "number",
    "tokens": "number",
    "tokens_in": "number",
    "tokens_out": "number",
    "duration": "number",
    "feedback": "number",
    "event_id": "text",
    "metadata.key": "text",
    "metadata.value": "any",
    "status": "number",
    "key_id": "text",
}
NOT_KEPT: Final = frozenset(
    {
        "request_type",
        "model_type",
        "authentication",
        "wholesale",
        "compatibilityMode",
        "dlp_action",
        "user_agent",
    }
)
"""Keys of the official client that logs here have nothing for."""
MAX_FILTERS: Final = 50
MAX_VALUES: Final = 100
_MILLISECONDS_FROM: Final = 1e11
"""Larger numbers are a time in milliseconds: as seconds, they would lie beyond the year 5000."""


def log_filter(key: str, operator: str, values: Sequence[JsonValue], *, param: str) -> LogFilter:
    """Check one condition.

    Args:
        key: What is compared.
        operator: How.
        values: As JSON or as text of a query string, in which the empty text stands for null.
        param: Where it stands in the request.

    Raises:
        InvalidRequestError: It has no sense; names what is wrong.
    """
    kind = _KINDS.get(cast("FilterKey", key))
    if kind is None:
        raise _unknown_key(key, param)
    if operator not in get_args(FilterOperator):
        expected = ", ".join(get_args(FilterOperator))
        raise InvalidRequestError(
            f"{param}.operator must be one of {expected}, got {operator[:80]!r}.", param=param
        )
    if not _go_together(kind, operator):
        raise InvalidRequestError(f"{param}: {operator!r} does not go with {key!r}.", param=param)
    if not 1 <= len(values) <= MAX_VALUES:
        raise InvalidRequestError(
            f"{param}.value must have 1..{MAX_VALUES} values, got {len(values)}.", param=param
        )
    found: list[FilterValue] = []
    for value in values:
        found += _typed(kind, operator, value, param)
    return LogFilter(
        key=cast("FilterKey", key), operator=cast("FilterOperator", operator), values=tuple(found)
    )


def seconds_of(value: JsonValue, *, param: str) -> float:
    """Read a time: ISO 8601 (UTC where it names no zone), or seconds or milliseconds since 1970.

    Raises:
        InvalidRequestError: It is none.
    """
    number = _number(value)
    if number is not None:
        return number / 1000 if abs(number) >= _MILLISECONDS_FROM else number
    try:
        at = datetime.fromisoformat(str(value))
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise InvalidRequestError(
            f"{param} must be a time such as 2026-11-03T12:00:00Z, got {str(value)[:80]!r}.",
            param=param,
        ) from None


def _go_together(kind: _Kind, operator: str) -> bool:
    if operator == "contains":
        return kind in ("text", "any")
    return operator in ("eq", "neq") or kind != "flag"


def _typed(kind: _Kind, operator: str, value: JsonValue, param: str) -> list[FilterValue]:
    if value is None or value == "":
        return [None]
    match kind:
        case "text":
            return [str(value)]
        case "time":
            return [seconds_of(value, param=param)]
        case "number":
            return [_wanted_number(value, param)]
        case "flag":
            return [_flag(value, param)]
        case "any":
            return _any(operator, value, param)


def _any(operator: str, value: JsonValue, param: str) -> list[FilterValue]:
    """Metadata has values of all types, and a query string does not say which is meant."""
    if operator in ("lt", "gt"):
        return [_wanted_number(value, param)]
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return [text, text == "true"] if text in ("true", "false") else [text]


def _wanted_number(value: JsonValue, param: str) -> float:
    number = _number(value)
    if number is None:
        raise InvalidRequestError(
            f"{param}.value must be a number, got {str(value)[:80]!r}.", param=param
        )
    return number


def _number(value: JsonValue) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _flag(value: JsonValue, param: str) -> bool:
    text = str(value).lower()
    if text not in ("true", "false", "1", "0"):
        raise InvalidRequestError(
            f"{param}.value must be true or false, got {str(value)[:80]!r}.", param=param
        )
    return text in ("true", "1")


def _unknown_key(key: str, param: str) -> InvalidRequestError:
    if key in NOT_KEPT:
        return UnsupportedParameterError(
            f"{param}.key: logs of this server say nothing of {key!r}.", param=param
        )
    return InvalidRequestError(
        f"{param}.key must be one of {', '.join(sorted(_KINDS))}, got {key[:80]!r}.", param=param
    )
