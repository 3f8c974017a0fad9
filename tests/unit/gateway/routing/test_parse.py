from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworks.gateway.routing.graph import (
    Conditional,
    End,
    Model,
    Percentage,
    Rate,
    RouteGraphError,
    Start,
)
from openworks.gateway.routing.parse import parse_graph
from tests.unit.gateway.routing.graphs import (
    conditional,
    end,
    model,
    percentage,
    rate,
    start,
    to,
)

DOCUMENTED: list[Any] = [
    start("plan"),
    {
        "id": "plan",
        "type": "conditional",
        "properties": {"condition": {"metadata.plan": {"$eq": "free"}}},
        "outputs": {"true": to("limit"), "false": to("split")},
    },
    {
        "id": "limit",
        "type": "rate_limit",
        "properties": {
            "limitType": "cost",
            "key": "metadata.user_id",
            "limit": 2.5,
            "interval": 3600,
            "technique": "sliding",
        },
        "outputs": {"success": to("big"), "fallback": to("small")},
    },
    {
        "id": "split",
        "type": "percentage",
        "outputs": {"10%": to("big"), "50%": to("small"), "else": to("end")},
    },
    model("big", fallback="small", timeout=60_000, retries=4),
    model("small"),
    end(),
]


def test_the_documented_spelling_is_read() -> None:
    graph = parse_graph(DOCUMENTED)
    assert graph.start == "start"
    kinds = [type(element) for element in graph.elements.values()]
    assert kinds == [Start, Conditional, Rate, Percentage, Model, Model, End]
    limit, split, big = (graph.elements[name] for name in ("limit", "split", "big"))
    assert limit == Rate(
        id="limit",
        key="metadata.user_id",
        limit=2.5,
        unit="cost",
        window_s=3600,
        technique="sliding",
        success="big",
        fallback="small",
    )
    assert split == Percentage(
        id="split", shares=(("10%", 0.1, "big"), ("50%", 0.6, "small")), rest=("else", "end")
    )
    assert big == Model(
        id="big",
        provider="openai",
        model="gpt-big",
        timeout_ms=60_000,
        retries=4,
        success="end",
        fallback="small",
    )
    assert [item.id for item in graph.models] == ["big", "small"]


def test_the_spelling_of_the_sdk_means_the_same() -> None:
    sdk: list[Any] = [dict(element) for element in DOCUMENTED]
    sdk[1] = conditional("plan", {"metadata.plan": {"$eq": "free"}}, "limit", "split")
    sdk[2] = {
        "id": "limit",
        "type": "rate",
        "properties": {
            "limit_type": "cost",
            "key": "metadata.user_id",
            "limit": 2.5,
            "window": 3600,
            "technique": "sliding",
        },
        "outputs": {"success": {"element_id": "big"}, "fallback": {"element_id": "small"}},
    }
    sdk[6] = {**end(), "outputs": {}}
    ours, theirs = parse_graph(DOCUMENTED), parse_graph(sdk)
    for name in ("start", "limit", "split", "big", "small", "end"):
        assert ours.elements[name] == theirs.elements[name]


def test_two_equal_shares_are_told_apart_by_a_name() -> None:
    graph = parse_graph(
        [start("ab"), percentage("ab", **{"50% a": "a", "50% b": "end"}), model("a"), end()]
    )
    split = graph.elements["ab"]
    assert isinstance(split, Percentage)
    assert split.shares == (("50% a", 0.5, "a"), ("50% b", 1.0, "end"))


def wrong(element: dict[str, Any], **outputs: Any) -> list[Any]:
    return [start(element["id"]), {**element, **outputs}, model("m"), end()]


@pytest.mark.parametrize(
    ("elements", "element", "field"),
    [
        ({}, None, "elements"),
        ([], None, "elements"),
        ([end()], None, "elements"),
        ([start("end"), {**start("end"), "id": "s2"}, end()], None, "elements"),
        ([start("end"), end(), 7], "[2]", ""),
        ([start("end"), end(), {"type": "end"}], "[2]", "id"),
        ([start("end"), end(), end()], "end", "id"),
        ([start("end"), {"id": "end", "type": "stop"}], "end", "type"),
        ([start("nowhere"), end()], "start", "outputs.next"),
        ([{**start("end"), "outputs": {"next": "end"}}, end()], "start", "outputs.next"),
        ([{"id": "start", "type": "start"}, end()], "start", "outputs"),
        (wrong(conditional("c", {"plan": 1}, "m", "end")), "c", "properties.conditions"),
        (wrong(conditional("c", {}, "m", "gone")), "c", "outputs.false"),
        (wrong(percentage("p", **{"60%": "m", "50%": "end"})), "p", "outputs"),
        (wrong(percentage("p", **{"60%": "m", "30%": "end"})), "p", "outputs"),
        (wrong(percentage("p", **{"else": "m"})), "p", "outputs"),
        (wrong(percentage("p", **{"half": "m", "else": "end"})), "p", "outputs.half"),
        (
            wrong(percentage("p", **{f"{n}%": "m" for n in range(1, 7)}, **{"else": "end"})),
            "p",
            "outputs",
        ),
        (wrong(rate("r", "m", limitType="tokens")), "r", "properties.limitType"),
        (wrong(rate("r", "m", key="user")), "r", "properties.key"),
        (wrong(rate("r", "m", limit="many")), "r", "properties.limit"),
        (wrong(rate("r", "m", limit=-1)), "r", "properties.limit"),
        (wrong(rate("r", "m", window=0)), "r", "properties.window"),
        (wrong(rate("r", "m", window=None)), "r", "properties.window"),
        (wrong(rate("r", "m", window=None, interval="1h")), "r", "properties.interval"),
        (wrong(rate("r", "m", technique="leaky")), "r", "properties.technique"),
        (wrong(model("x", model="")), "x", "properties.model"),
        (wrong(model("x", provider=None)), "x", "properties.provider"),
        (wrong(model("x", retries=6)), "x", "properties.retries"),
        (wrong(model("x", retries=1.5)), "x", "properties.retries"),
        (wrong(model("x", timeout=-1)), "x", "properties.timeout"),
        (wrong(model("x"), outputs={"success": to("m")}), "x", "outputs.success"),
        (wrong(model("x"), outputs={}), "x", "outputs.success"),
        (wrong(model("x"), properties=[]), "x", "properties"),
    ],
)
def test_what_is_wrong_names_its_element_and_field(
    elements: Any, element: str | None, field: str
) -> None:
    with pytest.raises(RouteGraphError) as raised:
        parse_graph(elements)
    assert (raised.value.element, raised.value.field) == (element, field)
    assert raised.value.status == 400
    assert raised.value.message.endswith(".")


def test_a_way_that_leads_back_is_named() -> None:
    elements = [
        start("a"),
        model("a", fallback="c"),
        conditional("c", {}, "end", "a"),
        end(),
    ]
    with pytest.raises(RouteGraphError, match="leads back: a → c → a") as raised:
        parse_graph(elements)
    assert (raised.value.element, raised.value.field) == ("c", "outputs.false")


def test_ways_may_meet_again() -> None:
    parse_graph([start("c"), conditional("c", {}, "m", "m"), model("m", fallback="end"), end()])


def test_an_element_that_nothing_leads_to_does_no_harm() -> None:
    parse_graph([start("end"), model("draft"), end()])


def test_routes_are_bounded() -> None:
    many = [start("end"), end(), *(model(f"m{n}") for n in range(99))]
    with pytest.raises(RouteGraphError, match="at most 100"):
        parse_graph(many)


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "type", "outputs", "properties", "elementId", "10%", "next"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield everything that holds something, with the key or index of what it holds."""
    keys = range(len(value)) if isinstance(value, list) else list(value)
    for key in keys:
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from places(value[key])


@given(st.data())
def test_any_json_is_a_graph_or_a_stated_error(data: st.DataObject) -> None:
    elements = deepcopy(DOCUMENTED)
    for _ in range(data.draw(st.integers(1, 3))):
        holder, key = data.draw(st.sampled_from(list(places(elements))))
        holder[key] = data.draw(json)
    with suppress(RouteGraphError):
        parse_graph(elements)
