"""Vectors with their metadata, found by nearness, by words, or by both, and filtered exactly."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NewType, Protocol, TypeAlias

from openworks.core.json import JsonObject

IndexId = NewType("IndexId", str)
Metric = Literal["cosine", "dot-product", "euclidean"]

Floats: TypeAlias = "array[float]"
"""The coordinates of one vector: an `array("f")`, all of them finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSpec:
    """What is fixed when an index is made."""

    width: int
    """How many coordinates each of its vectors has."""
    metric: Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorRow:
    """A vector and what belongs to it. Ids are unique in an index, whatever the namespace."""

    id: str
    values: Floats
    namespace: str | None = None
    metadata: JsonObject = field(default_factory=dict)
    text: str | None = None
    """What a search by words looks at; rows without it are found by their vectors alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """A change of an index, named by the one who asks for it."""

    id: str
    at_s: float


Scalar: TypeAlias = str | float | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compare:
    """One property of the metadata beside one value.

    Values of different types are different: `1` is `1.0`, but neither `"1"` nor `true`. null and
    a property that is not there are the same. What is not a string, number, boolean or null equals
    nothing.
    """

    path: tuple[str, ...]
    """Keys from the outside in; one element for a property that is not nested."""
    op: Literal["eq", "ne", "lt", "lte", "gt", "gte"]
    """`ne` is whatever `eq` is not. The others hold between two numbers, or between two strings,
    whose order is that of their code points."""
    value: Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class OneOf:
    """One property equals one of the values, as `Compare` has it."""

    path: tuple[str, ...]
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Every:
    """All of them hold; so do none."""

    of: tuple[Filter, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Either:
    """At least one of them holds."""

    of: tuple[Filter, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Not:
    """It does not hold."""

    of: Filter


Filter: TypeAlias = Compare | OneOf | Every | Either | Not


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A question. With a vector and words, both are asked and their ranks are fused."""

    count: int
    vector: Floats | None = None
    words: str | None = None
    """Any of its words may occur; BM25 says how well. Its punctuation means nothing."""
    namespace: str | None = None
    """None looks at all of them."""
    filter: Filter | None = None
    with_values: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A row that was found."""

    id: str
    score: float
    """Cosine or dot product, where more is nearer; Euclidean distance, where less is; BM25 for a
    search by words, and the sum of reciprocal ranks for both, where more is better."""
    namespace: str | None
    metadata: JsonObject
    text: str | None
    values: Floats | None
    """As they were written; None unless asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexInfo:
    """How an index stands."""

    spec: IndexSpec
    count: int
    last_mutation: Mutation | None
    """The last one, visible to every search; it never goes back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdPage:
    """Some of an index's ids, as they were when its first page was asked for."""

    ids: tuple[str, ...]
    total_count: int
    """Of the whole list, then."""
    cursor: str | None
    """Asks for the next page; None on the last."""
    expires_at_s: float | None


class VectorIndex(Protocol):
    """Indexes by id. A mutation is on disk and visible to every search when its call returns.

    Mutations of one index happen one after another, wholly or not at all. A search sees the index
    before or after a mutation, never in between. Every method but `create` and `drop` raises
    `NotFoundError` when there is no such index, and each raises `StorageError` when the disk
    refuses.
    """

    async def create(self, index: IndexId, spec: IndexSpec) -> None:
        """Make an empty index.

        Raises:
            ConflictError: It is there already.
        """
        ...

    async def drop(self, index: IndexId) -> bool:
        """Remove an index and all that is in it; False when there is none."""
        ...

    async def insert(self, index: IndexId, rows: Sequence[VectorRow], mutation: Mutation) -> int:
        """Add the rows whose ids are not there, and return how many; of two alike, the first.

        Raises:
            InvalidRequestError: A vector has another width, or a coordinate that is not finite;
                nothing is changed then.
        """
        ...

    async def upsert(self, index: IndexId, rows: Sequence[VectorRow], mutation: Mutation) -> None:
        """Put the rows in the place of what had their ids; of two alike, the last. As `insert`."""
        ...

    async def delete(self, index: IndexId, ids: Sequence[str], mutation: Mutation) -> int:
        """Remove the rows with these ids, and return how many there were."""
        ...

    async def get(self, index: IndexId, ids: Sequence[str]) -> list[VectorRow]:
        """Return those that are there, each once, in the order of `ids`."""
        ...

    async def search(self, index: IndexId, search: Search) -> list[Match]:
        """Return the best `count`, best first; fewer only where fewer match.

        Nearness is approximate in large indexes as to which rows are found; their scores and
        order are exact, and so is the filter.

        Raises:
            InvalidRequestError: The vector has another width or is not finite.
        """
        ...

    async def list_ids(self, index: IndexId, *, count: int, cursor: str | None = None) -> IdPage:
        """Return ids, ordered; later pages of a list do not see later mutations.

        Raises:
            InvalidRequestError: The cursor is not one of this index's, or has expired.
        """
        ...

    async def info(self, index: IndexId) -> IndexInfo:
        """Return how it stands."""
        ...
