"""The way of one call through a route: which model to ask next, and why."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, assert_never

from openworks.gateway.routing.conditions import read_field
from openworks.gateway.routing.context import RouteContext
from openworks.gateway.routing.graph import (
    Conditional,
    Element,
    End,
    Graph,
    Model,
    Percentage,
    Rate,
    Start,
)

MAX_VISITS: Final = 100
_MAX_VALUE_CHARS: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class RateStep:
    """Asks whether a call may pass a rate element; answered with `advance(True)` or `(False)`."""

    element: Rate
    value: str
    """Of the field in `element.key`: every value has a count of its own."""

    @property
    def bucket(self) -> str:
        """The name of the count within its route."""
        return f"{self.element.id}:{self.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStep:
    """Asks a model; answered with `advance(True)` once its answer began, `(False)` if it failed."""

    element: Model


@dataclass(frozen=True, slots=True, kw_only=True)
class EndStep:
    """The walk is over."""

    reason: Literal["answered", "no_answer", "limited", "failed"]
    """`answered` by the last model; `no_answer`: an end without a model that answered; `limited` or
    `failed`: the last element has no fallback."""
    element_id: str


Step: TypeAlias = RateStep | ModelStep | EndStep


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One element that a call came by, and which way it went on."""

    element_id: str
    type: str
    output: str | None
    """None where the walk ended or waits."""
    reason: str


class Walk:
    """One call's way; `advance()` first, and then with the answer to each step."""

    __slots__ = ("_at", "_context", "_graph", "_rng", "_salt", "_step", "visits")

    def __init__(
        self, graph: Graph, context: RouteContext, *, rng: random.Random, salt: str = ""
    ) -> None:
        """Begin before the start.

        Args:
            graph: A checked graph.
            context: The call.
            rng: Splits the calls that have no session.
            salt: The route's id without its version: splits of other routes fall independently, and
                those of the next version the same way.
        """
        self._graph = graph
        self._context = context
        self._rng = rng
        self._salt = salt
        self._at: str | None = graph.start
        self._step: Step | None = None
        self.visits: list[Visit] = []

    def advance(self, answer: bool | None = None) -> Step:
        """Go on to the next element that needs an answer, or to the end.

        After an `EndStep` it returns the same one again.
        """
        step = self._step
        if isinstance(step, EndStep):
            return step
        if step is not None:
            assert answer is not None, "a rate or model step needs its answer"
            self._settle(step, answer)
        self._step = self._run()
        return self._step

    def _settle(self, step: RateStep | ModelStep, passed: bool) -> None:
        element = step.element
        if isinstance(element, Rate):
            reasons = ("within the limit", "over the limit")
        else:
            reasons = ("the model answered", "the model failed")
        if passed:
            self._go(element, "success", element.success, reasons[0])
        elif element.fallback is not None:
            self._go(element, "fallback", element.fallback, reasons[1])
        else:
            self._go(element, None, None, f"{reasons[1]}, and there is no fallback")

    def _run(self) -> Step:
        while True:
            if self._at is None or len(self.visits) >= MAX_VISITS:
                return self._stopped()
            element = self._graph.elements[self._at]
            match element:
                case Model():
                    return ModelStep(element=element)
                case Rate():
                    return RateStep(element=element, value=_value_of(element.key, self._context))
                case End():
                    self._go(element, None, None, "the end")
                    answered = len(self.visits) > 1 and self.visits[-2].type == "model"
                    answered = answered and self.visits[-2].output == "success"
                    reason: Literal["answered", "no_answer"] = (
                        "answered" if answered else "no_answer"
                    )
                    return EndStep(reason=reason, element_id=element.id)
                case Start():
                    self._go(element, "next", element.next, "the start")
                case Conditional():
                    self._branch(element)
                case Percentage():
                    self._split(element)
                case _:
                    assert_never(element)

    def _stopped(self) -> EndStep:
        last = self.visits[-1]
        limited = last.type == "rate"
        return EndStep(reason="limited" if limited else "failed", element_id=last.element_id)

    def _branch(self, element: Conditional) -> None:
        if element.condition(self._context):
            self._go(element, "true", element.if_true, "the condition holds")
        else:
            self._go(element, "false", element.if_false, "the condition does not hold")

    def _split(self, element: Percentage) -> None:
        key = self._context.sticky_key
        if key is None:
            point, reason = self._rng.random(), "by chance"
        else:
            point, reason = _point(self._salt, element.id, key), "by the caller's session"
        name, target = element.rest
        for share_name, upper, share_target in element.shares:
            if point < upper:
                name, target = share_name, share_target
                break
        self._go(element, name, target, reason)

    def _go(self, element: Element, output: str | None, target: str | None, reason: str) -> None:
        kind = _TYPES[type(element)]
        self.visits.append(Visit(element_id=element.id, type=kind, output=output, reason=reason))
        self._at = target


_TYPES: Final[dict[type, str]] = {
    Start: "start",
    Conditional: "conditional",
    Percentage: "percentage",
    Rate: "rate",
    Model: "model",
    End: "end",
}


def _value_of(key: str, context: RouteContext) -> str:
    """Return the value that a rate is counted by; calls without a plain one share one count."""
    if not key:
        return ""
    value = read_field(key)(context)
    if not isinstance(value, (str, int, float)):
        return ""
    text = str(value)
    if len(text) <= _MAX_VALUE_CHARS:
        return text
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _point(salt: str, element_id: str, key: str) -> float:
    """Return where a session falls between 0 and 1, the same in every process."""
    text = f"{len(salt)},{len(element_id)}:{salt}{element_id}{key}"
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:7], "big") / (1 << 56)


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What a call would do."""

    visits: tuple[Visit, ...]
    end: EndStep
    model: Model | None
    """Whose answer it would get."""


def simulate(
    graph: Graph,
    context: RouteContext,
    *,
    rng: random.Random,
    salt: str = "",
    passes: Callable[[RateStep], bool] = lambda _: True,
    answers: Callable[[ModelStep], bool] = lambda _: True,
) -> Simulation:
    """Walk a route without asking a model or counting anything.

    Args:
        graph: A checked graph.
        context: The call.
        rng: As for `Walk`.
        salt: As for `Walk`.
        passes: Whether a rate element lets the call pass.
        answers: Whether a model answers.
    """
    walk = Walk(graph, context, rng=rng, salt=salt)
    step = walk.advance()
    model: Model | None = None
    while not isinstance(step, EndStep):
        if isinstance(step, ModelStep):
            answered = answers(step)
            model = step.element if answered else None
            step = walk.advance(answered)
        else:
            step = walk.advance(passes(step))
    return Simulation(visits=tuple(walk.visits), end=step, model=model)
