"""Vectors are kept, found, filtered and listed alike by every index of them."""

from __future__ import annotations

import asyncio
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
from array import array
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openworks.core.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    StorageError,
)
from openworks.core.json import JsonObject
from openworks.ports.vectors import (
    Compare,
    Either,
    Every,
    Filter,
    Floats,
    IndexId,
    IndexSpec,
    Match,
    Metric,
    Mutation,
    Not,
    OneOf,
    Scalar,
    Search,
    VectorIndex,
    VectorRow,
)
from openworks.storage.vectors.index import SealConfig
from openworks.storage.vectors.store import LocalVectorIndexes, VectorsConfig
from tests.contract import vector_writer
from tests.fakes import FakeClock
from tests.memory_vectors import MemoryVectorIndex

NAME = IndexId("idx-1")
SMALL = VectorsConfig(threads=2, seal=SealConfig(rows=64))
"""Seals and vacuums after a few rows, so that small tests see what large indexes do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An index that is there, of four dimensions, and the clock beside it."""

    index: VectorIndex
    clock: FakeClock


@pytest.fixture(params=["memory", "embedded"])
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opened]:
    clock = FakeClock()
    if request.param == "memory":
        memory = MemoryVectorIndex()
        await memory.create(NAME, IndexSpec(width=4, metric="cosine"))
        yield Opened(index=memory, clock=clock)
        return
    embedded = LocalVectorIndexes(tmp_path / "vectors", SMALL, clock)
    await embedded.open()
    await embedded.create(NAME, IndexSpec(width=4, metric="cosine"))
    yield Opened(index=embedded, clock=clock)
    await embedded.close()


@pytest.fixture
def index(opened: Opened) -> VectorIndex:
    return opened.index


def floats(*values: float) -> Floats:
    return array("f", values)


def row(row_id: str, *values: float, **metadata: object) -> VectorRow:
    return VectorRow(
        id=row_id,
        values=floats(*(values or (1.0, 0.0, 0.0, 0.0))),
        metadata=dict(metadata),  # type: ignore[arg-type]  # the tests' own plain values
    )


def mutation(name: str = "m-1") -> Mutation:
    return Mutation(id=name, at_s=1.0)


def ids(matches: list[Match]) -> list[str]:
    return [match.id for match in matches]


async def found(index: VectorIndex, filter: Filter | None = None, **more: object) -> set[str]:
    search = Search(count=1000, vector=floats(1, 0, 0, 0), filter=filter, **more)  # type: ignore[arg-type]
    return set(ids(await index.search(NAME, search)))


async def test_the_nearest_come_first_with_cosine_scores(index: VectorIndex) -> None:
    rows = [row("far", 0, 1, 0, 0), row("near", 2, 0.1, 0, 0), row("same", 5, 0, 0, 0)]
    await index.upsert(NAME, rows, mutation())
    matches = await index.search(NAME, Search(count=2, vector=floats(1, 0, 0, 0)))
    assert ids(matches) == ["same", "near"]
    assert matches[0].score == pytest.approx(1.0)
    assert matches[1].score == pytest.approx(2 / math.hypot(2, 0.1))


@pytest.mark.parametrize(
    ("metric", "order", "best"),
    [("dot-product", ["long", "short"], 9.0), ("euclidean", ["short", "long"], 0.5)],
)
async def test_other_metrics_have_their_own_order(
    index: VectorIndex, metric: Metric, order: list[str], best: float
) -> None:
    other = IndexId("idx-2")
    await index.create(other, IndexSpec(width=2, metric=metric))
    rows = [
        VectorRow(id="long", values=floats(9, 0)),
        VectorRow(id="short", values=floats(1, 0.5)),
    ]
    await index.upsert(other, rows, mutation())
    matches = await index.search(other, Search(count=2, vector=floats(1, 0)))
    assert ids(matches) == order
    assert matches[0].score == pytest.approx(best)


async def test_rows_come_back_as_they_were_written(index: VectorIndex) -> None:
    written = VectorRow(
        id="a",
        values=floats(0.1, -2, 3e-5, 4),
        namespace="n",
        metadata={"x": {"y": [1, None, "z"]}, "é": True},
        text="Some text.",
    )
    await index.upsert(NAME, [written], mutation())
    assert await index.get(NAME, ["missing", "a", "a"]) == [written]
    [match] = await index.search(NAME, Search(count=1, vector=floats(1, 0, 0, 0), with_values=True))
    assert match.values == written.values
    assert (match.namespace, match.metadata, match.text) == ("n", written.metadata, "Some text.")


async def test_values_are_left_out_unless_asked_for(index: VectorIndex) -> None:
    await index.upsert(NAME, [row("a")], mutation())
    [match] = await index.search(NAME, Search(count=1, vector=floats(1, 0, 0, 0)))
    assert match.values is None


async def test_insert_keeps_what_was_first(index: VectorIndex) -> None:
    assert await index.insert(NAME, [row("a", n=1), row("a", n=2)], mutation()) == 1
    assert await index.insert(NAME, [row("a", n=3), row("b", n=4)], mutation()) == 1
    assert [one.metadata for one in await index.get(NAME, ["a", "b"])] == [{"n": 1}, {"n": 4}]


async def test_upsert_puts_the_whole_row_in_its_place(index: VectorIndex) -> None:
    await index.upsert(NAME, [row("a", n=1, old=True)], mutation())
    await index.upsert(NAME, [row("a", n=2), row("a", n=3)], mutation())
    assert [one.metadata for one in await index.get(NAME, ["a"])] == [{"n": 3}]
    assert (await index.info(NAME)).count == 1
    assert not await found(index, Compare(path=("old",), op="eq", value=True))


async def test_what_was_deleted_is_not_found(index: VectorIndex) -> None:
    await index.upsert(NAME, [row("a"), row("b")], mutation())
    assert await index.delete(NAME, ["a", "a", "missing"], mutation()) == 1
    assert await found(index) == {"b"}
    assert await index.get(NAME, ["a"]) == []


async def test_a_row_can_come_back_after_it_was_deleted(index: VectorIndex) -> None:
    await index.upsert(NAME, [row("a", n=1)], mutation())
    await index.delete(NAME, ["a"], mutation())
    assert await index.insert(NAME, [row("a", n=2)], mutation()) == 1
    assert [one.metadata for one in await index.get(NAME, ["a"])] == [{"n": 2}]


async def test_the_last_mutation_is_named(index: VectorIndex) -> None:
    assert (await index.info(NAME)).last_mutation is None
    await index.upsert(NAME, [row("a")], Mutation(id="m-1", at_s=1.5))
    await index.delete(NAME, [], Mutation(id="m-2", at_s=2.5))
    info = await index.info(NAME)
    assert (info.count, info.last_mutation) == (1, Mutation(id="m-2", at_s=2.5))
    assert info.spec == IndexSpec(width=4, metric="cosine")


@pytest.mark.parametrize(
    "bad", [floats(1, 2, 3), floats(1, 2, 3, math.nan), floats(1, math.inf, 0, 0)]
)
async def test_a_vector_of_another_kind_changes_nothing(index: VectorIndex, bad: Floats) -> None:
    rows = [row("good"), VectorRow(id="bad", values=bad)]
    for write in (index.insert, index.upsert):
        with pytest.raises(InvalidRequestError, match="bad"):
            await write(NAME, rows, mutation())
    info = await index.info(NAME)
    assert (info.count, info.last_mutation) == (0, None)
    with pytest.raises(InvalidRequestError):
        await index.search(NAME, Search(count=1, vector=bad))


async def test_a_namespace_is_searched_alone(index: VectorIndex) -> None:
    rows = [
        VectorRow(id=name, values=floats(1, 0, 0, 0), namespace=space)
        for name, space in (("a", "one"), ("b", "two"), ("c", None))
    ]
    await index.upsert(NAME, rows, mutation())
    assert await found(index, namespace="one") == {"a"}
    assert await found(index, namespace="three") == set()
    assert await found(index) == {"a", "b", "c"}


async def test_an_index_that_is_not_there_is_not_found(index: VectorIndex) -> None:
    with pytest.raises(ConflictError):
        await index.create(NAME, IndexSpec(width=3, metric="cosine"))
    assert await index.drop(NAME)
    assert not await index.drop(NAME)
    with pytest.raises(NotFoundError):
        await index.info(NAME)
    await index.create(NAME, IndexSpec(width=3, metric="cosine"))
    assert (await index.info(NAME)).count == 0


async def test_a_search_by_words_ranks_by_how_well_they_fit(index: VectorIndex) -> None:
    texts = {
        "cat": "The cat sat on the mat.",
        "cats": "cat cat cat",
        "dog": "A dog barked at the moon.",
        "none": None,
    }
    rows = [
        VectorRow(id=name, values=floats(1, 0, 0, 0), text=text) for name, text in texts.items()
    ]
    await index.upsert(NAME, rows, mutation())
    assert ids(await index.search(NAME, Search(count=9, words="cat"))) == ["cats", "cat"]
    assert ids(await index.search(NAME, Search(count=9, words='("moon* NEAR'))) == ["dog"]
    assert await index.search(NAME, Search(count=9, words="?!")) == []


async def test_a_search_by_words_obeys_filters_and_deletions(index: VectorIndex) -> None:
    rows = [
        VectorRow(id=f"r{n}", values=floats(1, 0, 0, 0), text="word " * (n + 1), metadata={"n": n})
        for n in range(30)
    ]
    await index.upsert(NAME, rows, mutation())
    await index.delete(NAME, ["r3"], mutation())
    below = Compare(path=("n",), op="lt", value=5)
    matches = await index.search(NAME, Search(count=4, words="word", filter=below))
    assert set(ids(matches)) == {"r0", "r1", "r2", "r4"}


async def test_words_and_vector_together_prefer_what_both_find(index: VectorIndex) -> None:
    rows = [
        VectorRow(id="near", values=floats(1, 0, 0, 0), text="nothing"),
        VectorRow(id="both", values=floats(1, 0.2, 0, 0), text="needle"),
        VectorRow(id="said", values=floats(-1, 0, 0, 0), text="needle needle"),
        VectorRow(id="far", values=floats(-1, 1, 0, 0), text="hay"),
    ]
    await index.upsert(NAME, rows, mutation())
    search = Search(count=4, vector=floats(1, 0, 0, 0), words="needle")
    matches = await index.search(NAME, search)
    assert ids(matches)[0] == "both"
    assert set(ids(matches)) == {"near", "both", "said", "far"}


async def test_a_list_goes_on_as_it_began(index: VectorIndex) -> None:
    await index.upsert(NAME, [row(f"r{n:02}") for n in range(10)], mutation())
    first = await index.list_ids(NAME, count=4)
    assert (first.ids, first.total_count) == (("r00", "r01", "r02", "r03"), 10)
    await index.delete(NAME, ["r05", "r09"], mutation())
    await index.upsert(NAME, [row("r06", n=2), row("r055"), row("r99")], mutation())
    second = await index.list_ids(NAME, count=4, cursor=first.cursor)
    assert (second.ids, second.total_count) == (("r04", "r05", "r06", "r07"), 10)
    third = await index.list_ids(NAME, count=4, cursor=second.cursor)
    assert (third.ids, third.cursor) == (("r08", "r09"), None)
    assert (await index.list_ids(NAME, count=100)).total_count == 10


async def test_a_cursor_that_is_none_is_refused(index: VectorIndex) -> None:
    for cursor in ("", "x", "e30="):
        with pytest.raises(InvalidRequestError):
            await index.list_ids(NAME, count=1, cursor=cursor)


SCALARS: st.SearchStrategy[Scalar] = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([-1, 0, 1, 1.5, 2**60]),
    st.sampled_from(["", "a", "b", "é", "1"]),
)
PATHS = st.sampled_from([("p",), ("q",), ("deep", "er")])
METADATA: st.SearchStrategy[JsonObject] = st.fixed_dictionaries(
    {},
    optional={
        "p": SCALARS | st.just(["a"]),
        "q": SCALARS,
        "deep": SCALARS | st.fixed_dictionaries({"er": SCALARS}),
    },
)
FILTERS: st.SearchStrategy[Filter] = st.recursive(
    st.builds(
        Compare,
        path=PATHS,
        op=st.sampled_from(["eq", "ne", "lt", "lte", "gt", "gte"]),
        value=SCALARS,
    )
    | st.builds(OneOf, path=PATHS, values=st.lists(SCALARS, max_size=3).map(tuple)),
    lambda inner: st.one_of(
        st.builds(Every, of=st.lists(inner, max_size=3).map(tuple)),
        st.builds(Either, of=st.lists(inner, max_size=3).map(tuple)),
        st.builds(Not, of=inner),
    ),
    max_leaves=6,
)
VECTORS = st.lists(
    st.floats(-4, 4, width=16).map(lambda value: value or 0.0), min_size=4, max_size=4
).map(lambda values: floats(*values))
ROWS = st.builds(
    VectorRow,
    id=st.sampled_from([f"r{n}" for n in range(12)]),
    values=VECTORS,
    namespace=st.sampled_from([None, "one", "two"]),
    metadata=METADATA,
)
SEARCHES = st.builds(
    Search,
    count=st.integers(1, 15),
    vector=VECTORS,
    namespace=st.sampled_from([None, None, "one"]),
    filter=st.none() | FILTERS,
)
Change = tuple[Literal["insert", "upsert"], list[VectorRow]] | tuple[Literal["delete"], list[str]]
CHANGES: st.SearchStrategy[Change] = st.one_of(
    st.tuples(st.sampled_from(["insert", "upsert"]), st.lists(ROWS, max_size=6)),
    st.tuples(st.just("delete"), st.lists(st.sampled_from([f"r{n}" for n in range(12)]))),
)


@settings(max_examples=25, deadline=None)
@given(
    changes=st.lists(CHANGES, max_size=8),
    searches=st.lists(SEARCHES, min_size=1, max_size=4),
    metric=st.sampled_from(["cosine", "dot-product", "euclidean"]),
)
def test_it_answers_as_one_that_looks_at_every_row(
    changes: list[Change], searches: list[Search], metric: Metric
) -> None:
    async def compared(folder: Path) -> None:
        memory = MemoryVectorIndex()
        spec = IndexSpec(width=4, metric=metric)
        await memory.create(NAME, spec)
        half = len(changes) // 2
        for is_new, some in ((True, changes[:half]), (False, changes[half:])):
            embedded = LocalVectorIndexes(
                folder, VectorsConfig(threads=1, seal=SealConfig(rows=4)), FakeClock()
            )
            await embedded.open()
            if is_new:
                await embedded.create(NAME, spec)
            for number, change in enumerate(some):
                assert await _made(embedded, change, number) == await _made(memory, change, number)
            for search in searches:
                _same_answers(
                    await embedded.search(NAME, search), await memory.search(NAME, search), metric
                )
            assert await embedded.info(NAME) == await memory.info(NAME)
            assert (await embedded.list_ids(NAME, count=20)).ids == (
                await memory.list_ids(NAME, count=20)
            ).ids
            await embedded.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(compared(Path(folder)))


async def _made(index: VectorIndex, change: Change, number: int) -> int | None:
    name = Mutation(id=f"m-{number}", at_s=number)
    match change:
        case ("insert", rows):
            return await index.insert(NAME, rows, name)
        case ("upsert", rows):
            await index.upsert(NAME, rows, name)
            return None
        case (_, gone):
            return await index.delete(NAME, gone, name)


def _same_answers(got: list[Match], wanted: list[Match], metric: Metric) -> None:
    """Equal scores in the same order; rows that are equally near may change places."""
    assert [one.score for one in got] == pytest.approx([one.score for one in wanted], abs=1e-5)
    assert len({one.id for one in got}) == len(got)
    nearest = {one.id: one for one in wanted}
    for one in got:
        if one.id in nearest:
            assert one.metadata == nearest[one.id].metadata
            assert one.score == pytest.approx(nearest[one.id].score, abs=1e-5)


async def test_what_was_acknowledged_outlives_a_kill(tmp_path: Path) -> None:
    folder = tmp_path / "vectors"
    chance = random.Random(7)
    most = 0
    for _ in range(6):
        acknowledged = _killed(folder, after_lines=chance.randrange(5, 60))
        most = max(most, acknowledged)
        index = LocalVectorIndexes(folder, vector_writer.CONFIG, FakeClock())
        await index.open()
        last = (await index.info(NAME)).last_mutation
        assert last is not None
        # One more may have been made that nobody was told of.
        assert int(last.id) in (most, most + 1)
        most = int(last.id)
        await _holds_exactly(index, vector_writer.state_after(most + 1))
        await index.close()


def _killed(folder: Path, *, after_lines: int) -> int:
    """Let a process write until it has said so many lines; the last mutation that it said."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.contract.vector_writer", str(folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process, process.stdout as lines:
        said = [lines.readline().strip() for _ in range(after_lines)]
        os.kill(process.pid, signal.SIGKILL)
        said += [line.strip() for line in lines if line.endswith("\n")]
    assert said[0] == "ready"
    return int(said[-1])


async def _holds_exactly(index: VectorIndex, wanted: dict[str, int]) -> None:
    assert (await index.info(NAME)).count == len(wanted)
    assert set((await index.list_ids(NAME, count=100_000)).ids) == set(wanted)
    written = {
        row.id: row for number in set(wanted.values()) for row in vector_writer.rows_of(number)
    }
    there = await index.get(NAME, list(wanted))
    assert {one.id: one.metadata for one in there} == {
        row_id: {"number": number} for row_id, number in wanted.items()
    }
    assert all(one.values[0] == one.metadata["number"] for one in there)
    assert written.keys() >= wanted.keys()
    by_vector = Search(count=100_000, vector=array("f", [1.0] * vector_writer.WIDTH))
    assert set(ids(await index.search(NAME, by_vector))) == set(wanted)
    by_words = Search(count=100_000, words="number")
    assert set(ids(await index.search(NAME, by_words))) == set(wanted)


async def test_a_search_sees_a_mutation_wholly_or_not_at_all(tmp_path: Path) -> None:
    index = LocalVectorIndexes(tmp_path / "vectors", SMALL, FakeClock())
    await index.open()
    await index.create(NAME, IndexSpec(width=4, metric="cosine"))
    rng = random.Random(3)

    def batch(version: int) -> list[VectorRow]:
        return [
            VectorRow(
                id=f"r{n}",
                values=floats(*(rng.uniform(-1, 1) for _ in range(4))),
                metadata={"version": version},
                text=f"version {version}",
            )
            for n in range(50)
        ]

    await index.upsert(NAME, batch(0), mutation())
    is_over = asyncio.Event()

    async def write() -> None:
        for version in range(1, 40):
            await index.upsert(NAME, batch(version), Mutation(id=str(version), at_s=0))
        is_over.set()

    async def read(search: Search) -> int:
        times = 0
        while not is_over.is_set():
            matches = await index.search(NAME, search)
            assert len(matches) == 50
            assert len({str(match.metadata["version"]) for match in matches}) == 1
            times += 1
        return times

    there = Compare(path=("version",), op="gte", value=0)
    searches = [
        Search(count=60, vector=floats(1, 0, 0, 0)),
        Search(count=60, vector=floats(1, 0, 0, 0), filter=there),
        Search(count=60, words="version"),
    ]
    *times, _ = await asyncio.gather(*(read(search) for search in searches), write())
    await index.close()
    assert all(times)


@pytest.fixture(scope="module")
def clustered() -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    rng = np.random.default_rng(5)
    centres = rng.standard_normal((200, 32))
    spread = 0.3 * rng.standard_normal((6000, 32))
    return (centres[rng.integers(0, 200, 6000)] + spread).astype(np.float32)


@pytest.mark.parametrize("metric", ["cosine", "dot-product", "euclidean"])
async def test_large_indexes_find_nearly_all_of_the_nearest(
    tmp_path: Path, clustered: np.ndarray[tuple[int, int], np.dtype[np.float32]], metric: Metric
) -> None:
    config = VectorsConfig(seal=SealConfig(rows=1500, process_rows=4000))
    index = LocalVectorIndexes(tmp_path / "vectors", config, FakeClock())
    await index.open()
    await index.create(NAME, IndexSpec(width=32, metric=metric))
    for start in range(0, len(clustered), 1000):
        rows = [
            VectorRow(
                id=str(n), values=array("f", clustered[n].tobytes()), metadata={"n": n % 1000}
            )
            for n in range(start, start + 1000)
        ]
        await index.upsert(NAME, rows, Mutation(id=str(start), at_s=0))
    await index.settle()
    gone = [str(n) for n in range(7, len(clustered), 20)]
    await index.delete(NAME, gone, mutation())
    asked = clustered[::300] + np.float32(0.05)
    for limit in (1000, 500, 100, 10, 1):
        below = Compare(path=("n",), op="lt", value=limit)
        right = wanted = 0
        for query in asked:
            search = Search(count=10, vector=array("f", query.tobytes()), filter=below)
            matches = await index.search(NAME, search)
            truth = _nearest(clustered, query, metric, limit, set(gone))
            assert not set(gone) & set(ids(matches))
            assert len(matches) == len(truth)
            right += len(truth & set(ids(matches)))
            wanted += len(truth)
        assert right / wanted >= 0.95, limit
    await index.close()


def _nearest(
    rows: np.ndarray[tuple[int, int], np.dtype[np.float32]],
    query: np.ndarray[tuple[int], np.dtype[np.float32]],
    metric: Metric,
    limit: int,
    gone: set[str],
) -> set[str]:
    if metric == "euclidean":
        distance = np.linalg.norm(rows - query, axis=1)
    else:
        lengths = np.linalg.norm(rows, axis=1) if metric == "cosine" else 1
        distance = -(rows @ query) / lengths
    distance[np.arange(len(rows)) % 1000 >= limit] = np.inf
    distance[[int(n) for n in gone]] = np.inf
    order = np.argsort(distance)[:10]
    return {str(n) for n in order if np.isfinite(distance[n])}


async def test_two_processes_cannot_use_one_folder(tmp_path: Path) -> None:
    first = LocalVectorIndexes(tmp_path, SMALL, FakeClock())
    second = LocalVectorIndexes(tmp_path, SMALL, FakeClock())
    await first.open()
    with pytest.raises(StorageError, match="Another process"):
        await second.open()
    await first.close()
    await second.open()
    await second.close()


async def test_a_list_ends_with_its_hour_and_outlives_a_vacuum(tmp_path: Path) -> None:
    clock = FakeClock()
    index = LocalVectorIndexes(tmp_path, SMALL, clock)
    await index.open()
    await index.create(NAME, IndexSpec(width=4, metric="cosine"))
    await index.upsert(NAME, [row(f"r{n:03}") for n in range(100)], mutation())
    first = await index.list_ids(NAME, count=10)
    for version in range(10):
        rows = [row(f"r{n:03}", version=version) for n in range(50)]
        await index.upsert(NAME, rows, mutation())
    await index.delete(NAME, [f"r{n:03}" for n in range(100)], mutation())
    await index.settle()
    rest = await index.list_ids(NAME, count=1000, cursor=first.cursor)
    assert rest.ids == tuple(f"r{n:03}" for n in range(10, 100))
    clock.advance(3601)
    with pytest.raises(InvalidRequestError, match="expired"):
        await index.list_ids(NAME, count=1000, cursor=first.cursor)
    await index.close()


async def test_what_is_replaced_again_and_again_does_not_fill_the_disk(tmp_path: Path) -> None:
    clock = FakeClock()
    index = LocalVectorIndexes(tmp_path, SMALL, clock)
    await index.open()
    await index.create(NAME, IndexSpec(width=4, metric="cosine"))
    for version in range(200):
        rows = [row(f"r{n}", 1, n, version, 0, version=version) for n in range(50)]
        await index.upsert(NAME, rows, mutation())
        clock.advance(600)
    await index.close()
    files = list((tmp_path / NAME).glob("vectors-*"))
    assert sum(file.stat().st_size for file in files) < 200 * 50 * 16 / 4
    reopened = LocalVectorIndexes(tmp_path, SMALL, clock)
    await reopened.open()
    matches = await reopened.search(NAME, Search(count=100, vector=floats(1, 0, 0, 0)))
    assert {match.metadata["version"] for match in matches} == {199}
    assert len(matches) == 50
    await reopened.close()
