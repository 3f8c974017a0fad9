"""What a dynamic route is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from openworks.core.errors import InvalidRequestError
from openworks.gateway.routing.conditions import Condition
from openworks.ports.gateways import Technique


class RouteGraphError(InvalidRequestError):
    """A route's graph is not one that can be walked; `element` and `field` say where."""

    default_code = "invalid_route"

    def __init__(self, message: str, *, element: str | None, field: str) -> None:
        """Hold what is wrong.

        Args:
            message: Names the element, the field and the value; ends with a full stop.
            element: The id of the element, or its place such as `[2]` when it has none; None when
                the fault is in the whole.
            field: The path inside the element, such as `outputs.true`.
        """
        param = f"elements.{element}.{field}" if element is not None else field
        super().__init__(message, param=param)
        self.element = element
        self.field = field


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where a walk begins."""

    id: str
    next: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditional:
    """Goes one way when a condition holds and the other way when not."""

    id: str
    condition: Condition
    if_true: str
    if_false: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentage:
    """Splits the calls by shares."""

    id: str
    shares: tuple[tuple[str, float, str], ...]
    """Output name, the upper end of its share (0 to 1, rising), the element it leads to."""
    rest: tuple[str, str]
    """The output for everything above the last share, and where it leads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Lets a number of requests, or a sum of dollars, pass in a window."""

    id: str
    key: str
    """The field whose values are counted apart, such as `metadata.user_id`; empty for one count."""
    limit: float
    unit: Literal["count", "cost"]
    window_s: float
    technique: Technique
    success: str
    fallback: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Asks a model; its answer is the route's."""

    id: str
    provider: str
    model: str
    timeout_ms: int | None
    """To the first byte; None for the gateway's own."""
    retries: int
    """How often to ask again after the first attempt."""
    success: str
    fallback: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Where a walk ends, with an answer or without one."""

    id: str


Element: TypeAlias = Start | Conditional | Percentage | Rate | Model | End


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A checked graph: every output leads to an element, none leads back, some way has an end."""

    start: str
    elements: Mapping[str, Element]

    @property
    def models(self) -> tuple[Model, ...]:
        """Every model that the route may ask, such as for a check of a key's rights."""
        return tuple(item for item in self.elements.values() if isinstance(item, Model))
