"""A `VectorIndex` in plain Python that looks at every row: what the others are held to."""

from __future__ import annotations

import math
import operator
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from openworks.core.errors import ConflictError, InvalidRequestError, NotFoundError
from openworks.core.json import JsonObject, JsonValue
from openworks.ports.vectors import (
    Compare,
    Either,
    Every,
    Filter,
    Floats,
    IdPage,
    IndexId,
    IndexInfo,
    IndexSpec,
    Match,
    Metric,
    Mutation,
    Not,
    OneOf,
    Scalar,
    Search,
    VectorRow,
)

_ORDER = {"lt": operator.lt, "lte": operator.le, "gt": operator.gt, "gte": operator.ge}


@dataclass
class _Index:
    spec: IndexSpec
    rows: dict[str, VectorRow] = field(default_factory=dict)
    last_mutation: Mutation | None = None


class MemoryVectorIndex:
    """Lists of its own that were begun are kept whole, under their cursors."""

    def __init__(self) -> None:
        self._indexes: dict[IndexId, _Index] = {}
        self._lists: dict[str, tuple[list[str], int]] = {}

    async def create(self, index: IndexId, spec: IndexSpec) -> None:
        if index in self._indexes:
            raise ConflictError(f"There is an index '{index}' already.")
        self._indexes[index] = _Index(spec)

    async def drop(self, index: IndexId) -> bool:
        return self._indexes.pop(index, None) is not None

    async def insert(self, index: IndexId, rows: Sequence[VectorRow], mutation: Mutation) -> int:
        there = self._checked(index, rows)
        before = len(there.rows)
        for row in rows:
            there.rows.setdefault(row.id, row)
        there.last_mutation = mutation
        return len(there.rows) - before

    async def upsert(self, index: IndexId, rows: Sequence[VectorRow], mutation: Mutation) -> None:
        there = self._checked(index, rows)
        there.rows.update({row.id: row for row in rows})
        there.last_mutation = mutation

    async def delete(self, index: IndexId, ids: Sequence[str], mutation: Mutation) -> int:
        there = self._checked(index, [])
        there.last_mutation = mutation
        return sum(there.rows.pop(row_id, None) is not None for row_id in ids)

    async def get(self, index: IndexId, ids: Sequence[str]) -> list[VectorRow]:
        rows = self._checked(index, []).rows
        return [rows[row_id] for row_id in dict.fromkeys(ids) if row_id in rows]

    async def search(self, index: IndexId, search: Search) -> list[Match]:
        there = self._checked(index, [])
        if search.vector is not None:
            self._checked(index, [VectorRow(id="query", values=search.vector)])
        rows = [row for row in there.rows.values() if _may_match(row, search)]
        if search.vector is None:
            ranked = _by_words(rows, there.rows.values(), search.words or "")
        else:
            ranked = _by_nearness(rows, search.vector, there.spec.metric)
            if search.words is not None:
                ranked = _fused(ranked, _by_words(rows, there.rows.values(), search.words))
        return [
            Match(
                id=row.id,
                score=score,
                namespace=row.namespace,
                metadata=row.metadata,
                text=row.text,
                values=row.values if search.with_values else None,
            )
            for row, score in ranked[: search.count]
        ]

    async def list_ids(self, index: IndexId, *, count: int, cursor: str | None = None) -> IdPage:
        there = self._checked(index, [])
        if cursor is None:
            ids, total = sorted(there.rows), len(there.rows)
        elif cursor in self._lists:
            ids, total = self._lists[cursor]
        else:
            raise InvalidRequestError(f"'{cursor}' is not a cursor.", param="cursor")
        if len(ids) <= count:
            return IdPage(ids=tuple(ids), total_count=total, cursor=None, expires_at_s=None)
        following = f"cursor-{len(self._lists)}"
        self._lists[following] = (ids[count:], total)
        return IdPage(
            ids=tuple(ids[:count]), total_count=total, cursor=following, expires_at_s=math.inf
        )

    async def info(self, index: IndexId) -> IndexInfo:
        there = self._checked(index, [])
        return IndexInfo(spec=there.spec, count=len(there.rows), last_mutation=there.last_mutation)

    def _checked(self, index: IndexId, rows: Sequence[VectorRow]) -> _Index:
        there = self._indexes.get(index)
        if there is None:
            raise NotFoundError(f"No index found with id '{index}'.")
        for row in rows:
            if len(row.values) != there.spec.width or not all(map(math.isfinite, row.values)):
                raise InvalidRequestError(f"The vector '{row.id}' is none.", param="values")
        return there


def holds(filter: Filter, metadata: JsonObject) -> bool:
    """Whether a filter lets this metadata through."""
    match filter:
        case Compare(path=path, op="eq", value=value):
            return _same(_value(metadata, path), value)
        case Compare(path=path, op="ne", value=value):
            return not _same(_value(metadata, path), value)
        case Compare(path=path, op=op, value=value):
            own = _value(metadata, path)
            if _kind(own) != _kind(value) or _kind(value) not in ("number", "string"):
                return False
            return bool(_ORDER[op](own, value))  # type: ignore[arg-type]  # both of one kind
        case OneOf(path=path, values=values):
            return any(_same(_value(metadata, path), value) for value in values)
        case Every(of=parts):
            return all(holds(part, metadata) for part in parts)
        case Either(of=parts):
            return any(holds(part, metadata) for part in parts)
        case Not(of=part):
            return not holds(part, metadata)
        case _:
            assert_never(filter)


def _same(one: JsonValue, other: Scalar) -> bool:
    return _kind(one) == _kind(other) != "other" and one == other


def _kind(value: JsonValue) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
    return "other"


def _value(row: JsonObject, path: tuple[str, ...]) -> JsonValue:
    value: JsonValue = row
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _may_match(row: VectorRow, search: Search) -> bool:
    if search.namespace is not None and row.namespace != search.namespace:
        return False
    return search.filter is None or holds(search.filter, row.metadata)


def _by_nearness(
    rows: Iterable[VectorRow], query: Floats, metric: Metric
) -> list[tuple[VectorRow, float]]:
    scored = [(row, _score(row.values, query, metric)) for row in rows]
    return sorted(scored, key=lambda item: item[1] if metric == "euclidean" else -item[1])


def _score(one: Floats, other: Floats, metric: Metric) -> float:
    if metric == "euclidean":
        return math.dist(one, other)
    product = math.fsum(a * b for a, b in zip(one, other, strict=True))
    if metric == "dot-product":
        return product
    lengths = math.hypot(*one) * math.hypot(*other)
    return product / lengths if lengths else 0.0


def _by_words(
    rows: Sequence[VectorRow], everything: Iterable[VectorRow], words: str
) -> list[tuple[VectorRow, float]]:
    counts = {row.id: Counter(_words(row.text)) for row in everything if row.text is not None}
    mean = sum(sum(one.values()) for one in counts.values()) / max(1, len(counts))
    scores: defaultdict[str, float] = defaultdict(float)
    for word in _words(words):
        having = [row_id for row_id, one in counts.items() if one[word]]
        weight = math.log(1 + (len(counts) - len(having) + 0.5) / (len(having) + 0.5))
        for row_id in having:
            often, long = counts[row_id][word], sum(counts[row_id].values()) / mean
            scores[row_id] += weight * often * 2.2 / (often + 1.2 * (0.25 + 0.75 * long))
    found = [(row, scores[row.id]) for row in rows if row.id in scores]
    return sorted(found, key=lambda item: -item[1])


def _words(text: str | None) -> list[str]:
    return re.findall(r"\w+", (text or "").lower())


def _fused(*lists: list[tuple[VectorRow, float]]) -> list[tuple[VectorRow, float]]:
    scores: defaultdict[str, float] = defaultdict(float)
    rows: dict[str, VectorRow] = {}
    for ranked in lists:
        for place, (row, _) in enumerate(ranked, start=1):
            rows[row.id] = row
            scores[row.id] += 1 / (60 + place)
    found = [(rows[row_id], score) for row_id, score in scores.items()]
    return sorted(found, key=lambda item: -item[1])
