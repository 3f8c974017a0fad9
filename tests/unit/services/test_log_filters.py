from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworks.core.errors import InvalidRequestError
from openworks.services.log_filters import log_filter, seconds_of

AT_S = 1_793_707_200.0  # 2026-11-03T12:00:00Z


@pytest.mark.parametrize(
    ("key", "operator", "value", "expected"),
    [
        ("cost", "gt", "0.5", (0.5,)),
        ("tokens_in", "eq", 7, (7.0,)),
        ("cached", "eq", "true", (True,)),
        ("success", "neq", False, (False,)),
        ("model", "contains", "gpt", ("gpt",)),
        ("created_at", "lt", "2026-11-03T12:00:00Z", (AT_S,)),
        ("created_at", "lt", "2026-11-03T13:00:00+01:00", (AT_S,)),
        ("created_at", "lt", AT_S * 1000, (AT_S,)),
        ("feedback", "eq", None, (None,)),
        ("event_id", "eq", "", (None,)),
        ("metadata.value", "eq", "5", ("5",)),
        ("metadata.value", "eq", True, ("true", True)),
        ("metadata.value", "lt", "5", (5.0,)),
    ],
)
def test_value_gets_the_type_of_its_key(
    key: str, operator: str, value: Any, expected: tuple[Any, ...]
) -> None:
    assert log_filter(key, operator, [value], param="filters").values == expected


@pytest.mark.parametrize(
    ("key", "operator", "values"),
    [
        ("cost", "gt", ["nan"]),
        ("cost", "gt", ["1e999"]),
        ("cost", "contains", ["1"]),
        ("cached", "gt", ["true"]),
        ("cached", "eq", ["maybe"]),
        ("created_at", "lt", ["yesterday"]),
        ("model", "like", ["x"]),
        ("model", "eq", []),
        ("model", "eq", ["x"] * 101),
        ("dlp_action", "eq", ["x"]),
        ("nothing", "eq", ["x"]),
    ],
)
def test_condition_without_sense_is_refused(key: str, operator: str, values: list[Any]) -> None:
    with pytest.raises(InvalidRequestError):
        log_filter(key, operator, values, param="filters")


@given(st.text(max_size=30) | st.floats() | st.integers() | st.none() | st.booleans())
def test_any_time_is_seconds_or_a_refusal(value: Any) -> None:
    with suppress(InvalidRequestError):
        assert isinstance(seconds_of(value, param="since"), float)
