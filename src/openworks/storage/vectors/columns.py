"""The metadata that filters ask for, as columns in memory: a filter becomes a mask over slots."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias, assert_never

import numpy as np
from numpy.typing import NDArray

from openworks.core.json import JsonObject, JsonValue
from openworks.ports.vectors import Compare, Either, Every, Filter, Not, OneOf, Scalar
from openworks.storage.vectors.growing import Growing

Mask: TypeAlias = NDArray[np.bool_]
Path: TypeAlias = tuple[str, ...]

_NULL, _FALSE, _TRUE, _OTHER = range(4)
_NO_STRING = -2
_ORDER = {"lt": operator.lt, "lte": operator.le, "gt": operator.gt, "gte": operator.ge}

MOST_COLUMNS = 64
"""Properties of one index that are kept as columns; the least recently asked for goes."""


class Column:
    """One property of every row, so laid out that most conditions are one pass over an array."""

    def __init__(self) -> None:
        self._kinds = Growing(np.int8)
        self._numbers = Growing(np.float64)  # NaN where it is no number
        self._codes = Growing(np.int32)  # -1 where it is no string
        self._code_of: dict[str, int] = {}

    def extend(self, values: Sequence[JsonValue]) -> None:
        """Take in the values of the next slots."""
        kinds = np.zeros(len(values), np.int8)
        numbers = np.full(len(values), np.nan)
        codes = np.full(len(values), -1, np.int32)
        for row, value in enumerate(values):
            match value:
                case None:
                    pass
                case bool():
                    kinds[row] = _TRUE if value else _FALSE
                case int() | float():
                    kinds[row] = _OTHER
                    numbers[row] = _number(value)
                case str():
                    kinds[row] = _OTHER
                    codes[row] = self._code_of.setdefault(value, len(self._code_of))
                case _:
                    kinds[row] = _OTHER
        self._kinds.extend(kinds)
        self._numbers.extend(numbers)
        self._codes.extend(codes)

    def equals(self, value: Scalar) -> Mask:
        """The rows whose value is this one."""
        match value:
            case None:
                return np.equal(self._kinds.view, _NULL)
            case bool():
                return np.equal(self._kinds.view, _TRUE if value else _FALSE)
            case str():
                return np.equal(self._codes.view, self._code_of.get(value, _NO_STRING))
        return np.equal(self._numbers.view, _number(value))

    def compares(self, compare: Callable[..., object], value: Scalar) -> Mask:
        """The rows whose value is a number before or after this number; or so with strings."""
        match value:
            case str():
                # The last place is where the code of what is no string points.
                holds = [bool(compare(string, value)) for string in self._code_of]
                return np.array([*holds, False])[self._codes.view]
            case None | bool():
                return np.zeros(len(self._kinds.view), np.bool_)
        return np.asarray(compare(self._numbers.view, _number(value)))


class Columns:
    """The columns of an index, made when a filter first asks for a property."""

    def __init__(self) -> None:
        self._columns: OrderedDict[Path, Column] = OrderedDict()

    def missing(self, filter: Filter) -> set[Path]:
        """The properties that `mask` would need and that are not there."""
        return _paths(filter) - self._columns.keys()

    def add(self, made: Mapping[Path, Column], filter: Filter) -> None:
        """Keep columns for a filter, and forget some that were not asked for in a long time."""
        self._columns.update(made)
        self.touch(filter)
        while len(self._columns) > max(MOST_COLUMNS, len(_paths(filter))):
            self._columns.popitem(last=False)

    def extend(self, rows: Sequence[JsonObject]) -> None:
        """Take in the metadata of the next slots."""
        _extend(self._columns, rows)

    def anew(self, rows: Iterable[Sequence[JsonObject]]) -> Columns:
        """The same columns of other rows."""
        other = Columns()
        other._columns.update(columns_of(self._columns, rows))
        return other

    def mask(self, filter: Filter) -> Mask | bool:
        """Which rows a filter lets through; True or False where that does not depend on them."""
        match filter:
            case Compare(path=path, op=op, value=value):
                column = self._columns[path]
                if op == "eq":
                    return column.equals(value)
                if op == "ne":
                    return ~column.equals(value)
                return column.compares(_ORDER[op], value)
            case OneOf(path=path, values=values):
                return _joined(
                    np.logical_or, [self._columns[path].equals(v) for v in values], False
                )
            case Every(of=parts):
                return _joined(np.logical_and, [self.mask(part) for part in parts], True)
            case Either(of=parts):
                return _joined(np.logical_or, [self.mask(part) for part in parts], False)
            case Not(of=part):
                inner = self.mask(part)
                return (not inner) if isinstance(inner, bool) else ~inner
            case _:
                assert_never(filter)

    def touch(self, filter: Filter) -> None:
        """Count the filter's properties as asked for."""
        for path in _paths(filter):
            self._columns.move_to_end(path)


def columns_of(paths: Iterable[Path], rows: Iterable[Sequence[JsonObject]]) -> dict[Path, Column]:
    """Make columns of these properties from all the rows, slot by slot."""
    made = {path: Column() for path in paths}
    for block in rows:
        _extend(made, block)
    return made


def _number(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer beyond any float
        return float("inf") if value > 0 else float("-inf")


def _paths(filter: Filter) -> set[Path]:
    match filter:
        case Compare(path=path) | OneOf(path=path):
            return {path}
        case Every(of=parts) | Either(of=parts):
            return set().union(*(_paths(part) for part in parts))
        case Not(of=part):
            return _paths(part)
        case _:
            assert_never(filter)


def _joined(join: Callable[..., Mask], parts: Sequence[Mask | bool], empty: bool) -> Mask | bool:
    joined: Mask | bool = empty
    for part in parts:
        joined = bool(join(joined, part)) if _both_plain(joined, part) else join(joined, part)
    return joined


def _both_plain(one: Mask | bool, other: Mask | bool) -> bool:
    return isinstance(one, bool) and isinstance(other, bool)


def _extend(columns: Mapping[Path, Column], rows: Sequence[JsonObject]) -> None:
    for path, column in columns.items():
        column.extend([_value(row, path) for row in rows])


def _value(row: JsonObject, path: Path) -> JsonValue:
    value: JsonValue = row
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value
