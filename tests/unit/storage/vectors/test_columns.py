"""Columns are made as filters ask for them, and do not become ever more."""

from __future__ import annotations

from openworks.ports.vectors import Compare, Every, Filter
from openworks.storage.vectors.columns import MOST_COLUMNS, Columns, columns_of


def asking(*names: str) -> Filter:
    return Every(of=tuple(Compare(path=(name,), op="eq", value=1) for name in names))


def ask(columns: Columns, filter: Filter) -> None:
    columns.add(columns_of(columns.missing(filter), [[{}]]), filter)


def test_the_property_that_nobody_asked_for_longest_is_forgotten() -> None:
    columns = Columns()
    for number in range(MOST_COLUMNS):
        ask(columns, asking(f"p{number}"))
    columns.touch(asking("p0"))
    ask(columns, asking("new"))
    assert not columns.missing(asking("p0", "p2", "new"))
    assert columns.missing(asking("p1")) == {("p1",)}


def test_one_filter_may_ask_for_more_properties_than_are_kept() -> None:
    columns = Columns()
    ask(columns, asking("old"))
    many = asking(*(f"p{number}" for number in range(MOST_COLUMNS + 5)))
    ask(columns, many)
    assert not columns.missing(many)
    assert columns.missing(asking("old")) == {("old",)}
