"""From the JSON of a dynamic route to a graph that can be walked, or to what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from openworks.core.json import JsonObject, JsonValue
from openworks.gateway.routing.conditions import (
    ConditionError,
    compile_condition,
    read_field,
    shown,
)
from openworks.gateway.routing.graph import (
    Conditional,
    Element,
    End,
    Graph,
    Model,
    Percentage,
    Rate,
    RouteGraphError,
    Start,
)

MAX_ELEMENTS: Final = 100
MAX_SHARES: Final = 5
MAX_RETRIES: Final = 5
_MAX_TEXT_CHARS: Final = 256
_MAX_TIMEOUT_MS: Final = 86_400_000
_MAX_WINDOW_S: Final = 366 * 86_400


def parse_graph(elements: JsonValue) -> Graph:
    """Check the `elements` of a route, in the spelling of the documentation or of the SDK.

    Raises:
        RouteGraphError: Names the element and the field at fault.
    """
    if not isinstance(elements, list):
        raise RouteGraphError(
            f"elements must be a list, got {shown(elements)}.", element=None, field="elements"
        )
    if len(elements) > MAX_ELEMENTS:
        raise RouteGraphError(
            f"A route may have at most {MAX_ELEMENTS} elements, got {len(elements)}.",
            element=None,
            field="elements",
        )
    parsed: dict[str, Element] = {}
    for index, source in enumerate(elements):
        element = _Source(index, source).element()
        if element.id in parsed:
            raise RouteGraphError(
                f"Element id '{element.id}' is used twice.", element=element.id, field="id"
            )
        parsed[element.id] = element
    start = _only_start(parsed)
    _check_targets(parsed)
    _check_cycles(parsed, start)
    return Graph(start=start, elements=parsed)


class _Source:
    """One element as JSON, with readers that name it in their errors."""

    def __init__(self, index: int, source: JsonValue) -> None:
        self._name = f"[{index}]"
        if not isinstance(source, dict):
            raise self._wrong("", f"must be an object, got {shown(source)}")
        self._source: JsonObject = source
        self._id = self._text(source, "id")
        self._name = self._id
        properties = source.get("properties")
        if not isinstance(properties, dict | None):
            raise self._wrong("properties", f"must be an object, got {shown(properties)}")
        self._properties: JsonObject = properties or {}

    def element(self) -> Element:
        kind = self._text(self._source, "type")
        reader = _READERS.get(kind)
        if reader is None:
            raise self._wrong("type", f"must be one of {', '.join(_READERS)}, got '{kind}'")
        return reader(self)

    def start(self) -> Start:
        return Start(id=self._id, next=self._target("next"))

    def conditional(self) -> Conditional:
        name, source = self._either("conditions", "condition")
        try:
            condition = compile_condition(source)
        except ConditionError as error:
            raise self._wrong(f"properties.{name}", f"is not valid: {error}") from None
        return Conditional(
            id=self._id,
            condition=condition,
            if_true=self._target("true"),
            if_false=self._target("false"),
        )

    def percentage(self) -> Percentage:
        shares: list[tuple[str, float, str]] = []
        total = 0.0
        for name in self._outputs():
            if name != "else":
                total += self._share(name)
                shares.append((name, total / 100, self._target(name)))
        if not 1 <= len(shares) <= MAX_SHARES:
            raise self._wrong("outputs", f"may have 1 to {MAX_SHARES} shares, got {len(shares)}")
        if total > 100 + 1e-6:
            raise self._wrong("outputs", f"must not add up to more than 100 %, got {total:g} %")
        if self._optional_target("else") is not None:
            rest = ("else", self._target("else"))
        elif total < 100 - 1e-6:
            raise self._wrong("outputs", f"must add up to 100 % or have an else, got {total:g} %")
        else:
            rest = (shares[-1][0], shares[-1][2])
        return Percentage(id=self._id, shares=tuple(shares), rest=rest)

    def rate(self) -> Rate:
        _, unit = self._either("limitType", "limit_type")
        if unit not in ("count", "cost"):
            raise self._wrong("properties.limitType", f"must be count or cost, got {shown(unit)}")
        window_name, window = self._either("window", "interval")
        technique = self._properties.get("technique", "fixed")
        if technique not in ("fixed", "sliding"):
            raise self._wrong(
                "properties.technique", f"must be fixed or sliding, got {shown(technique)}"
            )
        return Rate(
            id=self._id,
            key=self._rate_key(),
            limit=self._number("limit", self._properties.get("limit"), most=1e15),
            unit="cost" if unit == "cost" else "count",
            window_s=self._number(window_name, window, least=1, most=_MAX_WINDOW_S),
            technique="sliding" if technique == "sliding" else "fixed",
            success=self._target("success"),
            fallback=self._optional_target("fallback"),
        )

    def model(self) -> Model:
        timeout = self._properties.get("timeout")
        retries = self._number("retries", self._properties.get("retries", 0), most=MAX_RETRIES)
        if retries != int(retries):
            raise self._wrong("properties.retries", f"must be a whole number, got {retries:g}")
        return Model(
            id=self._id,
            provider=self._text(self._properties, "provider", "properties."),
            model=self._text(self._properties, "model", "properties."),
            timeout_ms=int(self._number("timeout", timeout, least=1, most=_MAX_TIMEOUT_MS))
            if timeout
            else None,
            retries=int(retries),
            success=self._target("success"),
            fallback=self._optional_target("fallback"),
        )

    def end(self) -> End:
        return End(id=self._id)

    def _rate_key(self) -> str:
        key = self._properties.get("key")
        if key is None or key == "":
            return ""
        if not isinstance(key, str) or len(key) > _MAX_TEXT_CHARS:
            raise self._wrong("properties.key", f"must be the name of a field, got {shown(key)}")
        try:
            read_field(key)
        except ConditionError as error:
            raise self._wrong("properties.key", f"is not valid: {error}") from None
        return key

    def _share(self, name: str) -> float:
        found = _SHARE.fullmatch(name)
        if found is None:
            raise self._wrong(f"outputs.{name}", f"must be named like '10%' or else, got '{name}'")
        return float(found.group(1))

    def _outputs(self) -> JsonObject:
        outputs = self._source.get("outputs")
        if not isinstance(outputs, dict):
            raise self._wrong("outputs", f"must be an object, got {shown(outputs)}")
        return outputs

    def _optional_target(self, name: str) -> str | None:
        output = self._outputs().get(name)
        return None if output is None else self._target(name)

    def _target(self, name: str) -> str:
        output = self._outputs().get(name)
        target = None
        if isinstance(output, dict):
            target = output.get("elementId", output.get("element_id"))
        if not isinstance(target, str):
            raise self._wrong(
                f"outputs.{name}", f"must be an object with an elementId, got {shown(output)}"
            )
        return target

    def _either(self, first: str, second: str) -> tuple[str, JsonValue]:
        """Return the spelling that is used, and its value."""
        name = second if self._properties.get(first) is None else first
        value = self._properties.get(name)
        return (name, value) if value is not None else (first, None)

    def _text(self, source: JsonObject, field: str, prefix: str = "") -> str:
        value = source.get(field)
        if not isinstance(value, str) or not 0 < len(value) <= _MAX_TEXT_CHARS:
            raise self._wrong(
                prefix + field,
                f"must be a string of 1 to {_MAX_TEXT_CHARS} characters, got {shown(value)}",
            )
        return value

    def _number(self, name: str, value: JsonValue, *, least: float = 0, most: float) -> float:
        plain = isinstance(value, (int, float)) and not isinstance(value, bool)
        # NaN is in no range.
        if not plain or not isinstance(value, (int, float)) or not least <= value <= most:
            raise self._wrong(
                f"properties.{name}",
                f"must be a number from {least:g} to {most:g}, got {shown(value)}",
            )
        return float(value)

    def _wrong(self, field: str, what: str) -> RouteGraphError:
        told = f"{field} {what}" if field else what
        return RouteGraphError(f"Element '{self._name}': {told}.", element=self._name, field=field)


# A name after the share tells two equal ones apart: "50% a" and "50% b".
_SHARE: Final = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)\s*%?(?:[\s:#_-].{0,64})?")

_READERS: Final[Mapping[str, Callable[[_Source], Element]]] = {
    "start": _Source.start,
    "conditional": _Source.conditional,
    "percentage": _Source.percentage,
    "rate": _Source.rate,
    "rate_limit": _Source.rate,
    "model": _Source.model,
    "end": _Source.end,
}


def outputs_of(element: Element) -> Iterator[tuple[str, str]]:
    """Yield every output of an element by name, with the element that it leads to."""
    match element:
        case Start():
            yield "next", element.next
        case Conditional():
            yield "true", element.if_true
            yield "false", element.if_false
        case Percentage():
            for name, _, target in element.shares:
                yield name, target
            if element.rest[0] == "else":
                yield element.rest
        case Rate() | Model():
            yield "success", element.success
            if element.fallback is not None:
                yield "fallback", element.fallback
        case End():
            return


def _only_start(elements: Mapping[str, Element]) -> str:
    starts = [element.id for element in elements.values() if isinstance(element, Start)]
    if len(starts) != 1:
        raise RouteGraphError(
            f"A route must have one element of type start, got {len(starts)}.",
            element=None,
            field="elements",
        )
    return starts[0]


def _check_targets(elements: Mapping[str, Element]) -> None:
    for element in elements.values():
        for name, target in outputs_of(element):
            if target not in elements:
                raise RouteGraphError(
                    f"Element '{element.id}': outputs.{name} leads to '{target:.80}', which is no "
                    "element of this route.",
                    element=element.id,
                    field=f"outputs.{name}",
                )
        if isinstance(element, Model) and not isinstance(elements[element.success], End):
            raise RouteGraphError(
                f"Element '{element.id}': outputs.success must lead to an element of type end, as "
                "the answer of a model is the answer of the route.",
                element=element.id,
                field="outputs.success",
            )


def _check_cycles(elements: Mapping[str, Element], start: str) -> None:
    """Walk every way from the start once; no element may be met again on the way to itself."""
    on_way: dict[str, None] = {}  # in order
    done: set[str] = set()
    ways = [iter(outputs_of(elements[start]))]
    on_way[start] = None
    while ways:
        step = next(ways[-1], None)
        if step is None:
            ways.pop()
            done.add(on_way.popitem()[0])
            continue
        name, target = step
        if target in on_way:
            at = next(reversed(on_way))
            way = [*on_way][[*on_way].index(target) :]
            raise RouteGraphError(
                f"Element '{at}': outputs.{name} leads back: {' → '.join([*way, target])[:300]}.",
                element=at,
                field=f"outputs.{name}",
            )
        if target not in done:
            on_way[target] = None
            ways.append(iter(outputs_of(elements[target])))
    if not any(isinstance(elements[element_id], End) for element_id in done):
        raise RouteGraphError(
            "No way from the start leads to an element of type end.", element=None, field="elements"
        )
