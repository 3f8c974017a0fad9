from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworks.gateway.routing.conditions import ConditionError, compile_condition
from openworks.gateway.routing.context import RouteContext

CALL = RouteContext(
    metadata={"plan": "free", "age": 30, "beta": True, "team.name": "red"},
    headers={"x-region": "eu", "x-level": "7"},
    body={
        "model": "dynamic/support",
        "max_tokens": 100,
        "stream": False,
        "stop": ["a", "b"],
        "messages": [{"role": "user", "content": "Hello there"}],
    },
)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"metadata.plan": {"$eq": "free"}}, True),
        ({"metadata.plan": "free"}, True),
        ({"metadata.plan": {"$ne": "free"}}, False),
        ({"metadata.plan": {"$in": ["paid", "free"]}}, True),
        ({"metadata.plan": {"$nin": ["paid", "free"]}}, False),
        ({"metadata.age": {"$gt": 30}}, False),
        ({"metadata.age": {"$gte": 30}}, True),
        ({"metadata.age": {"$lt": 30.5}}, True),
        ({"metadata.age": {"$gte": 18, "$lt": 30}}, False),
        ({"metadata.age": {"$gt": "3"}}, False),
        ({"metadata.plan": {"$lt": "paid"}}, True),
        ({"metadata.beta": True}, True),
        ({"metadata.beta": 1}, False),
        ({"metadata.age": True}, False),
        ({"metadata.team.name": "red"}, True),
        ({"metadata.none": {"$exists": False}}, True),
        ({"metadata.plan": {"$exists": True}}, True),
        ({"metadata.none": "x"}, False),
        ({"metadata.none": None}, True),
        ({"metadata.none": {"$ne": "x"}}, True),
        ({"metadata.none": {"$nin": ["x"]}}, True),
        ({"metadata.none": {"$gt": 1}}, False),
        ({"metadata.none": {"$not": {"$gt": 1}}}, True),
        ({"headers.X-Region": "eu"}, True),
        ({"headers.x-level": {"$gte": 7}}, True),
        ({"headers.x-level": 7}, True),
        ({"headers.x-region": {"$gt": 7}}, False),
        ({"body.max_tokens": {"$lte": 100}}, True),
        ({"params.max_tokens": {"$lte": 100}}, True),
        ({"body.messages.0.role": "user"}, True),
        ({"body.messages.1.role": {"$exists": True}}, False),
        ({"body.messages.0.content": {"$contains": "Hello"}}, True),
        ({"body.messages.0.content": {"$startsWith": "there"}}, False),
        ({"body.messages.0.content": {"$endsWith": "there"}}, True),
        ({"body.stop": {"$contains": "b"}}, True),
        ({"body.stop": "b"}, True),
        ({"body.stop": {"$in": ["x", "b"]}}, True),
        ({"body.stop": ["a", "b"]}, True),
        ({"body.stream": False}, True),
        ({"$and": [{"metadata.plan": "free"}, {"metadata.age": 31}]}, False),
        ({"$or": [{"metadata.plan": "free"}, {"metadata.age": 31}]}, True),
        ({"$nor": [{"metadata.plan": "x"}, {"metadata.age": 31}]}, True),
        ({"$not": {"metadata.plan": "free"}}, False),
        ({"metadata.plan": "free", "metadata.age": 31}, False),
        ([{"metadata.plan": "free"}, {"metadata.age": 30}], True),
        ({}, True),
        (None, True),
    ],
)
def test_conditions_mean_what_they_mean_in_mongodb(condition: Any, expected: bool) -> None:
    assert compile_condition(condition)(CALL) is expected


@pytest.mark.parametrize(
    ("condition", "part"),
    [
        ("metadata.plan == 'free'", "must be an object"),
        ({"plan": "free"}, "'plan'"),
        ({"metadata": "free"}, "'metadata'"),
        ({"metadata.plan": {"$regex": "(a+)+"}}, "'$regex'"),
        ({"metadata.plan": {}}, "got {}"),
        ({"metadata.plan": {"$in": "free"}}, "'$in' takes a list"),
        ({"metadata.plan": {"$in": [[1]]}}, "plain values"),
        ({"metadata.plan": {"$eq": {"a": 1}}}, "got an object"),
        ({"metadata.plan": [[1]]}, "got a list"),
        ({"metadata.plan": {"$gt": None}}, "'$gt' takes a number"),
        ({"metadata.plan": {"$exists": 1}}, "'$exists' takes true"),
        ({"$and": []}, "'$and' takes a list"),
        ({"$xor": []}, "'$xor'"),
    ],
)
def test_a_condition_that_cannot_be_understood_names_its_part(condition: Any, part: str) -> None:
    with pytest.raises(ConditionError) as raised:
        compile_condition(condition)
    assert part in str(raised.value)


def test_conditions_are_bounded() -> None:
    deep: Any = {"metadata.a": 1}
    for _ in range(50):
        deep = {"$not": deep}
    with pytest.raises(ConditionError, match="nested"):
        compile_condition(deep)
    deep = {"$eq": 1}
    for _ in range(50):
        deep = {"$not": deep}
    with pytest.raises(ConditionError, match="nested"):
        compile_condition({"metadata.a": deep})
    with pytest.raises(ConditionError, match="at most 200"):
        compile_condition({"$or": [{"metadata.a": 1}] * 201})


def test_a_body_of_many_lists_does_no_harm() -> None:
    nested: Any = 1
    for _ in range(100_000):
        nested = [nested]
    call = RouteContext(body={"stop": nested})
    for operator in ("$eq", "$ne", "$contains", "$gt"):
        compile_condition({"body.stop": {operator: 1}})(call)


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["$eq", "$in", "$not", "$and", "$gt", "metadata.a", "body.b.0"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(json, json)
def test_any_json_is_a_condition_or_a_stated_error(condition: Any, value: Any) -> None:
    try:
        holds = compile_condition(condition)
    except ConditionError:
        return
    assert holds(RouteContext(metadata={"a": 1}, body={"b": value})) in (True, False)
