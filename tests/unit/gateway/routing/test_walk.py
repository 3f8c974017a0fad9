from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworks.gateway.routing.context import RouteContext
from openworks.gateway.routing.graph import Graph
from openworks.gateway.routing.parse import outputs_of, parse_graph
from openworks.gateway.routing.walk import EndStep, ModelStep, RateStep, Walk, simulate
from tests.unit.gateway.routing.graphs import (
    conditional,
    end,
    model,
    percentage,
    rate,
    start,
)


def walk_of(elements: list[Any], **context: Any) -> Walk:
    return Walk(parse_graph(elements), RouteContext(**context), rng=random.Random(3))


def test_a_failed_model_leads_to_its_fallback_until_the_end() -> None:
    walk = walk_of([start("a"), model("a", fallback="b"), model("b", fallback="end"), end()])
    first = walk.advance()
    assert isinstance(first, ModelStep)
    assert first.element.model == "gpt-a"
    second = walk.advance(False)
    assert isinstance(second, ModelStep)
    assert second.element.model == "gpt-b"
    last = walk.advance(False)
    assert last == EndStep(reason="no_answer", element_id="end")
    assert walk.advance(True) is last


def test_an_answer_ends_the_walk() -> None:
    walk = walk_of([start("a"), model("a", fallback="b"), model("b"), end()])
    walk.advance()
    assert walk.advance(True) == EndStep(reason="answered", element_id="end")
    assert [(visit.element_id, visit.output) for visit in walk.visits] == [
        ("start", "next"),
        ("a", "success"),
        ("end", None),
    ]


def test_a_failed_model_without_a_fallback_ends_the_walk() -> None:
    walk = walk_of([start("a"), model("a"), end()])
    walk.advance()
    assert walk.advance(False) == EndStep(reason="failed", element_id="a")
    assert walk.visits[-1].reason == "the model failed, and there is no fallback"


def test_a_rate_is_counted_by_the_value_of_its_field() -> None:
    elements = [start("r"), rate("r", "a", "b"), model("a"), model("b"), end()]
    walk = walk_of(elements, metadata={"user_id": 7})
    step = walk.advance()
    assert isinstance(step, RateStep)
    assert (step.value, step.bucket, step.element.limit) == ("7", "r:7", 10)
    passed = walk.advance(True)
    assert isinstance(passed, ModelStep)
    assert passed.element.id == "a"
    walk = walk_of(elements, metadata={"user_id": 7})
    walk.advance()
    refused = walk.advance(False)
    assert isinstance(refused, ModelStep)
    assert refused.element.id == "b"


@pytest.mark.parametrize("metadata", [{}, {"user_id": ""}])
def test_calls_without_the_field_share_one_count(metadata: dict[str, str]) -> None:
    step = walk_of([start("r"), rate("r", "end"), end()], metadata=metadata).advance()
    assert isinstance(step, RateStep)
    assert step.value == ""


def test_a_long_value_is_counted_by_its_digest() -> None:
    elements = [start("r"), rate("r", "end"), end()]
    step = walk_of(elements, metadata={"user_id": "x" * 5_000}).advance()
    assert isinstance(step, RateStep)
    assert len(step.value) == 64


def test_a_refused_rate_without_a_fallback_limits_the_call() -> None:
    walk = walk_of([start("r"), rate("r", "a"), model("a"), end()])
    walk.advance()
    assert walk.advance(False) == EndStep(reason="limited", element_id="r")


def test_a_condition_chooses_the_way() -> None:
    elements = [
        start("c"),
        conditional("c", {"metadata.plan": "paid"}, "big", "small"),
        model("big"),
        model("small"),
        end(),
    ]
    for plan, expected in (("paid", "big"), ("free", "small")):
        step = walk_of(elements, metadata={"plan": plan}).advance()
        assert isinstance(step, ModelStep)
        assert step.element.id == expected


SPLIT = [
    start("p"),
    percentage("p", **{"10%": "a", "30%": "b", "else": "c"}),
    model("a"),
    model("b"),
    model("c"),
    end(),
]


def chosen(graph: Graph, salt: str = "", **context: Any) -> str:
    simulation = simulate(graph, RouteContext(**context), rng=random.Random(5), salt=salt)
    assert simulation.model is not None
    return simulation.model.id


def test_splits_stick_to_a_session_and_their_shares_converge() -> None:
    graph = parse_graph(SPLIT)
    sides = {name: chosen(graph, session_id=name) for name in map(str, range(5_000))}
    assert all(chosen(graph, session_id=name) == sides[name] for name in map(str, range(100)))
    counts = Counter(sides.values())
    for side, share in (("a", 0.1), ("b", 0.3), ("c", 0.6)):
        assert counts[side] / 5_000 == pytest.approx(share, abs=0.025)


def test_splits_stick_to_the_user_of_the_metadata() -> None:
    graph = parse_graph(SPLIT)
    rng = random.Random(1)
    for name in ("user_id", "userId", "user"):
        context = RouteContext(metadata={name: "u-17"})
        models = {simulate(graph, context, rng=rng).model for _ in range(50)}
        assert len(models) == 1


def test_calls_of_nobody_split_by_chance() -> None:
    graph, rng = parse_graph(SPLIT), random.Random(2)
    ends = [simulate(graph, RouteContext(), rng=rng).model for _ in range(5_000)]
    counts = Counter(item.id for item in ends if item is not None)
    for side, share in (("a", 0.1), ("b", 0.3), ("c", 0.6)):
        assert counts[side] / 5_000 == pytest.approx(share, abs=0.025)


def test_a_larger_share_keeps_the_sessions_that_it_had() -> None:
    before = parse_graph(
        [start("p"), percentage("p", **{"10%": "a", "else": "b"}), model("a"), model("b"), end()]
    )
    after = parse_graph(
        [start("p"), percentage("p", **{"40%": "a", "else": "b"}), model("a"), model("b"), end()]
    )
    for name in map(str, range(500)):
        if chosen(before, session_id=name) == "a":
            assert chosen(after, session_id=name) == "a"


def test_splits_of_other_routes_fall_independently() -> None:
    graph = parse_graph(SPLIT)
    same = sum(
        chosen(graph, "one", session_id=name) == chosen(graph, "two", session_id=name)
        for name in map(str, range(2_000))
    )
    assert same / 2_000 == pytest.approx(0.1**2 + 0.3**2 + 0.6**2, abs=0.05)


def test_a_simulation_tells_the_way_and_its_reasons() -> None:
    graph = parse_graph(
        [
            start("c"),
            conditional("c", {"metadata.plan": "paid"}, "r", "small"),
            rate("r", "big", "small"),
            model("big", fallback="small"),
            model("small"),
            end(),
        ]
    )
    simulation = simulate(
        graph,
        RouteContext(metadata={"plan": "paid"}),
        rng=random.Random(1),
        answers=lambda step: step.element.id != "big",
    )
    assert [(v.element_id, v.output, v.reason) for v in simulation.visits] == [
        ("start", "next", "the start"),
        ("c", "true", "the condition holds"),
        ("r", "success", "within the limit"),
        ("big", "fallback", "the model failed"),
        ("small", "success", "the model answered"),
        ("end", None, "the end"),
    ]
    assert simulation.end.reason == "answered"
    assert simulation.model is not None
    assert simulation.model.id == "small"
    limited = simulate(
        graph,
        RouteContext(metadata={"plan": "paid"}),
        rng=random.Random(1),
        passes=lambda _: False,
        answers=lambda _: False,
    )
    assert limited.end == EndStep(reason="failed", element_id="small")
    assert limited.model is None


@st.composite
def graphs(draw: st.DrawFn) -> list[Any]:
    """Draw a valid graph: every element leads to later ones only."""
    size = draw(st.integers(1, 98))
    names = [f"e{number}" for number in range(size)]

    def later(number: int) -> str:
        return draw(st.sampled_from([*names[number + 1 : number + 6], "end"]))

    elements = [start(names[0])]
    for number, name in enumerate(names):
        kind = draw(st.sampled_from(["conditional", "percentage", "rate", "model"]))
        if kind == "conditional":
            condition = {"metadata.n": {"$gt": draw(st.integers(0, 9))}}
            elements.append(conditional(name, condition, later(number), later(number)))
        elif kind == "percentage":
            share = f"{draw(st.integers(0, 100))}%"
            elements.append(percentage(name, **{share: later(number), "else": later(number)}))
        elif kind == "rate":
            elements.append(rate(name, later(number), later(number)))
        else:
            elements.append(model(name, fallback=draw(st.none() | st.just(later(number)))))
    return [*draw(st.permutations(elements)), end()]


@given(graphs(), st.integers(0, 9), st.randoms(use_true_random=False))
def test_a_walk_over_any_valid_graph_ends(
    elements: list[Any], number: int, rng: random.Random
) -> None:
    graph = parse_graph(elements)
    walk = Walk(graph, RouteContext(metadata={"n": number}), rng=rng)
    step = walk.advance()
    for _ in range(len(elements) + 1):
        if isinstance(step, EndStep):
            break
        step = walk.advance(rng.random() < 0.2)
    assert isinstance(step, EndStep)
    assert len({visit.element_id for visit in walk.visits}) == len(walk.visits) <= 100
    for visit, following in zip(walk.visits, walk.visits[1:], strict=False):
        outputs = dict(outputs_of(graph.elements[visit.element_id]))
        assert outputs[str(visit.output)] == following.element_id
