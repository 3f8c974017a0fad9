"""Points in time as people write them: `24h`, `30d`, `2027-01-01`."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from openworks.core.errors import InvalidRequestError

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SPAN = re.compile(r"(\d{1,5})([smhdw])")


def parse_future(text: str, now_s: float) -> float:
    """Read a point in time after now: a span from now, or a date in UTC.

    Raises:
        InvalidRequestError: It is neither, or it has passed.
    """
    at_s = _parse(text, now_s, sign=1)
    if at_s <= now_s:
        raise InvalidRequestError(f"{text} has passed already.")
    return at_s


def parse_past(text: str, now_s: float) -> float:
    """Read a point in time before now: a span back from now, or a date in UTC.

    Raises:
        InvalidRequestError: It is neither.
    """
    return _parse(text, now_s, sign=-1)


def _parse(text: str, now_s: float, *, sign: int) -> float:
    text = text.strip()
    if (match := _SPAN.fullmatch(text)) is not None:
        return now_s + sign * int(match[1]) * _UNITS_S[match[2]]
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise InvalidRequestError(
            f"Expected a span such as 12h or 30d (s, m, h, d, w), or a date such as 2027-01-01, "
            f"got {text!r}."
        ) from None
