"""Conditions over a call in the manner of MongoDB: `{"metadata.plan": {"$eq": "free"}}`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias, cast

from openworks.core.json import JsonValue
from openworks.gateway.routing.context import RouteContext

MAX_DEPTH: Final = 10
MAX_TERMS: Final = 200

Condition: TypeAlias = Callable[[RouteContext], bool]
Read: TypeAlias = Callable[[RouteContext], object]

MISSING: Final = object()
"""What a field reads as when the call does not have it; equal to null, as in MongoDB."""


class ConditionError(ValueError):
    """A condition that cannot be understood; the message names the part and ends without a stop."""


def compile_condition(source: JsonValue) -> Condition:
    """Turn a condition into a function; null and `{}` hold for every call.

    A list holds when all of its items do.

    Raises:
        ConditionError: Unknown operator or field, wrong operand, or too large.
    """
    return _Compiler().compile(source, 0)


def read_field(path: str) -> Read:
    """Return what reads `metadata.NAME`, `headers.NAME`, or `body.PATH` (`params.PATH`) of a call.

    Raises:
        ConditionError: The path begins with none of them.
    """
    root, dot, rest = path.partition(".")
    if dot and rest:
        if root == "metadata":
            return lambda context: context.metadata.get(rest, MISSING)
        if root in ("headers", "header"):
            name = rest.lower()
            return lambda context: context.headers.get(name, MISSING)
        if root in ("body", "params", "request"):
            keys = tuple(rest.split("."))
            return lambda context: _descend(context.body, keys)
    raise ConditionError(
        f"field must begin with 'metadata.', 'headers.', 'body.' or 'params.', got '{path:.80}'"
    )


def shown(value: JsonValue) -> str:
    """Return a value as a message shows it: never long, whatever it holds."""
    if isinstance(value, dict):
        return "an object" if value else "{}"
    if isinstance(value, list):
        return "a list" if value else "[]"
    return f"{value!r:.80}"


def _descend(value: object, keys: tuple[str, ...]) -> object:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key, MISSING)
        elif isinstance(value, list) and key.isdecimal() and len(key) < 6 and int(key) < len(value):
            value = value[int(key)]
        else:
            return MISSING
    return value


class _Compiler:
    def __init__(self) -> None:
        self._terms = 0

    def compile(self, source: JsonValue, depth: int) -> Condition:
        if depth > MAX_DEPTH:
            raise ConditionError(f"a condition may be nested at most {MAX_DEPTH} deep")
        if source is None:
            return _always
        if isinstance(source, list):
            return _all([self.compile(item, depth + 1) for item in source])
        if not isinstance(source, dict):
            raise ConditionError(f"a condition must be an object, got {shown(source)}")
        return _all([self._entry(name, operand, depth) for name, operand in source.items()])

    def _entry(self, name: str, operand: JsonValue, depth: int) -> Condition:
        if name in ("$and", "$or", "$nor"):
            return self._many(name, operand, depth)
        if name == "$not":
            return _not(self.compile(operand, depth + 1))
        if name.startswith("$"):
            raise ConditionError(f"operator '{name:.40}' is unknown here")
        return self._tests(read_field(name), operand, depth)

    def _many(self, name: str, operand: JsonValue, depth: int) -> Condition:
        if not isinstance(operand, list) or not operand:
            raise ConditionError(f"'{name}' takes a list of conditions, got {shown(operand)}")
        items = [self.compile(item, depth + 1) for item in operand]
        if name == "$and":
            return _all(items)
        return _any(items) if name == "$or" else _not(_any(items))

    def _tests(self, read: Read, operand: JsonValue, depth: int) -> Condition:
        """Compile what is asked of one field: a value it must equal, or an object of operators."""
        if not isinstance(operand, dict):
            operand = {"$eq": operand}
        if not operand:
            raise ConditionError("a field needs a value or an operator, got {}")
        if depth > MAX_DEPTH:
            raise ConditionError(f"a condition may be nested at most {MAX_DEPTH} deep")
        return _all([self._test(read, name, value, depth) for name, value in operand.items()])

    def _test(self, read: Read, name: str, operand: JsonValue, depth: int) -> Condition:
        self._terms += 1
        if self._terms > MAX_TERMS:
            raise ConditionError(f"a condition may have at most {MAX_TERMS} terms")
        if name == "$not":
            return _not(self._tests(read, operand, depth + 1))
        test = _OPERATORS.get(name)
        if test is None:
            raise ConditionError(f"operator '{name:.40}' must be one of {', '.join(_OPERATORS)}")
        _check_operand(name, operand)
        return lambda context: test(read(context), operand)


def _check_operand(name: str, operand: JsonValue) -> None:
    if name in ("$in", "$nin"):
        good = _is_flat(operand)
        expected = f"a list of at most {MAX_TERMS} plain values"
    elif name == "$exists":
        good, expected = isinstance(operand, bool), "true or false"
    elif name in ("$gt", "$gte", "$lt", "$lte"):
        good = isinstance(operand, (int, float, str)) and not isinstance(operand, bool)
        expected = "a number or a string"
    elif name in ("$startsWith", "$endsWith"):
        good, expected = isinstance(operand, str), "a string"
    else:
        good = _is_plain(operand) or _is_flat(operand)
        expected = f"a plain value or a list of at most {MAX_TERMS}"
    if not good:
        raise ConditionError(f"'{name}' takes {expected}, got {shown(operand)}")


def _is_plain(value: JsonValue) -> bool:
    return not isinstance(value, (dict, list))


def _is_flat(value: JsonValue) -> bool:
    return isinstance(value, list) and len(value) <= MAX_TERMS and all(map(_is_plain, value))


def _equal(value: object, operand: JsonValue) -> bool:
    if value is MISSING:
        return operand is None
    if isinstance(value, bool) or isinstance(operand, bool):
        return value is operand
    if isinstance(value, str) and isinstance(operand, (int, float)):
        return _number(value) == operand  # headers are always text
    return value == operand


def _compare(value: object, operand: JsonValue) -> int | None:
    """Return the sign of value - operand, None when they are not of one kind."""
    if isinstance(operand, str):
        if not isinstance(value, str):
            return None
        return (value > operand) - (value < operand)
    number = _number(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        return None
    wanted = cast("float", operand)
    return (number > wanted) - (number < wanted)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _holds(value: object, operand: JsonValue) -> bool:
    """Whether a value, or one item of a list, is the operand, as in MongoDB."""
    if isinstance(value, list) and not isinstance(operand, list):
        return any(_equal(item, operand) for item in value)
    return _equal(value, operand)


def _contains(value: object, operand: JsonValue) -> bool:
    if isinstance(value, str):
        return isinstance(operand, str) and operand in value
    return isinstance(value, list) and any(_equal(item, operand) for item in value)


def _among(value: object, operand: JsonValue) -> bool:
    return any(_holds(value, item) for item in cast("list[JsonValue]", operand))


_Test: TypeAlias = Callable[[object, JsonValue], bool]

_OPERATORS: Final[Mapping[str, _Test]] = {
    "$eq": _holds,
    "$ne": lambda value, operand: not _holds(value, operand),
    "$gt": lambda value, operand: _compare(value, operand) == 1,
    "$gte": lambda value, operand: _compare(value, operand) in (0, 1),
    "$lt": lambda value, operand: _compare(value, operand) == -1,
    "$lte": lambda value, operand: _compare(value, operand) in (0, -1),
    "$in": _among,
    "$nin": lambda value, operand: not _among(value, operand),
    "$exists": lambda value, operand: (value is not MISSING) is operand,
    "$contains": _contains,
    "$startsWith": lambda value, operand: (
        isinstance(value, str) and value.startswith(cast("str", operand))
    ),
    "$endsWith": lambda value, operand: (
        isinstance(value, str) and value.endswith(cast("str", operand))
    ),
}


def _always(_: RouteContext) -> bool:
    return True


def _all(conditions: list[Condition]) -> Condition:
    if len(conditions) == 1:
        return conditions[0]
    return lambda context: all(condition(context) for condition in conditions)


def _any(conditions: list[Condition]) -> Condition:
    return lambda context: any(condition(context) for condition in conditions)


def _not(condition: Condition) -> Condition:
    return lambda context: not condition(context)
