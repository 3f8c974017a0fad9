"""Query strings for logs: every way of writing filters, and nothing that breaks."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from openworks.api.cloudflare.log_queries import log_query
from openworks.core.errors import InvalidRequestError
from openworks.core.ids import AccountId
from openworks.ports.logs import LogFilter, LogQuery

NAMES = (
    "filters",
    "filters.key",
    "filters.operator",
    "filters.value",
    "cached",
    "feedback",
    "start_date",
    "min_cost",
    "order_by",
    "direction",
    "search",
    "model",
)
WORDS = ("eq", "lt", "contains", "cost", "model", "created_at", "metadata.value", "1", "true", "[]")


def read(query: str) -> LogQuery:
    return log_query(QueryParams(query), AccountId("acct"), "gw")


def condition(key: Any, operator: Any, *values: Any) -> LogFilter:
    return LogFilter(key=key, operator=operator, values=values)


def test_no_words_mean_all_logs_newest_first() -> None:
    assert read("") == LogQuery(account_id=AccountId("acct"), gateway_id="gw")


def test_grouped_filters_go_together_by_position() -> None:
    found = read(
        "filters.key=cost&filters.key=model&filters.operator=gt&filters.operator=eq"
        "&filters.value=0.5&filters.value=gpt"
    )

    assert found.filters == (condition("cost", "gt", 0.5), condition("model", "eq", "gpt"))


def test_filters_as_json_are_the_same() -> None:
    text = quote('[{"key":"model","operator":"eq","value":["a","b"]}]')

    assert read(f"filters={text}").filters == (condition("model", "eq", "a", "b"),)


def test_same_property_twice_is_either_and_two_bounds_are_both() -> None:
    both = "filters.key=model&filters.key=model&filters.operator=eq&filters.operator=eq"
    bounds = "filters.key=cost&filters.key=cost&filters.operator=gt&filters.operator=gt"
    values = "&filters.value=1&filters.value=2"

    assert read(both + values).filters == (condition("model", "eq", "1", "2"),)
    assert read(bounds + values).filters == (
        condition("cost", "gt", 1.0),
        condition("cost", "gt", 2.0),
    )


def test_filter_without_a_value_means_null() -> None:
    found = read("filters.key=feedback&filters.operator=eq")

    assert found.filters == (condition("feedback", "eq", None),)


@pytest.mark.parametrize(
    "query",
    [
        "filters.key=cost",
        "filters.value=1",
        "filters.key=cost&filters.key=model&filters.operator=eq&filters.operator=eq&filters.value=1",
        "filters=5",
        "filters=[5]",
        "min_cost=nan",
        "max_duration=lots",
        "direction=up",
        "feedback=2",
        "cached=1",
        "model_type=text",
        "start_date=soon",
        "search=" + "x" * 201,
    ],
)
def test_words_that_make_no_sense_are_refused(query: str) -> None:
    with pytest.raises(InvalidRequestError):
        read(query)


@given(
    st.lists(
        st.tuples(st.sampled_from(NAMES), st.sampled_from(WORDS) | st.text(max_size=8)), max_size=8
    )
)
def test_any_query_string_is_a_query_or_a_refusal(pairs: list[tuple[str, str]]) -> None:
    try:
        found = log_query(QueryParams(pairs), AccountId("acct"), "gw")
    except InvalidRequestError:
        return
    assert found.gateway_id == "gw"
