from __future__ import annotations

from datetime import UTC, datetime

import pytest

from openworks.app.cli.durations import parse_future, parse_past
from openworks.core.errors import InvalidRequestError

NOW_S = datetime(2026, 1, 15, tzinfo=UTC).timestamp()
DAY_S = 86_400


@pytest.mark.parametrize(
    ("text", "after_s"),
    [
        ("90s", 90),
        ("5m", 300),
        ("12h", DAY_S // 2),
        ("30d", 30 * DAY_S),
        ("2w", 14 * DAY_S),
        ("2026-01-16", DAY_S),
        ("2026-01-15T01:00", 3600),
        ("2026-01-15T02:00+01:00", 3600),
    ],
)
def test_a_future_is_a_span_or_a_date(text: str, after_s: int) -> None:
    assert parse_future(text, NOW_S) == NOW_S + after_s


def test_a_past_is_a_span_back_or_a_date() -> None:
    assert parse_past("24h", NOW_S) == NOW_S - DAY_S
    assert parse_past("2026-01-14", NOW_S) == NOW_S - DAY_S


@pytest.mark.parametrize("text", ["2026-01-15", "2020-01-01", "0d"])
def test_a_future_that_has_passed_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"{text} has passed already"):
        parse_future(text, NOW_S)


@pytest.mark.parametrize("text", ["", "soon", "12", "-3d", "1.5h", "2026-13-01", "9" * 400 + "w"])
def test_anything_else_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="Expected a span such as 12h or 30d"):
        parse_past(text, NOW_S)
