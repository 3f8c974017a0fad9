"""Each library behind the same four verbs, opened the way its documentation suggests."""

import asyncio
import shutil
from array import array
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from benchmarks.vectors.corpus import BUCKETS, Floats, Ints

Result = TypeVar("Result")

BATCH = 5_000


class Candidate(Protocol):
    """An index over rows numbered from 0, each with a vector and a bucket."""

    def __init__(self, folder: Path, width: int) -> None: ...

    def add(self, start: int, vectors: Floats, buckets: Ints) -> None:
        """Take rows in; durable when this returns, where the library knows durability."""

    def seal(self) -> None:
        """Build whatever makes searches fast."""

    def search(self, query: Floats, limit: int) -> Ints:
        """Row numbers of the ten nearest with `bucket < limit`; BUCKETS means no filter."""

    def delete(self, rows: Ints) -> None:
        """Forget these rows."""


class FaissIvf:
    """Bare faiss: inverted lists of 8-bit codes, exact rerank from the vectors kept beside them."""

    def __init__(self, folder: Path, width: int) -> None:
        import faiss

        self._faiss = faiss
        self._folder = folder
        self._width = width
        self._parts: list[Floats] = []
        self._buckets = np.zeros(0, np.int64)
        faiss.omp_set_num_threads(1)

    def add(self, start: int, vectors: Floats, buckets: Ints) -> None:
        self._parts.append(np.array(vectors))
        self._buckets = np.append(self._buckets, buckets)

    def seal(self) -> None:
        faiss = self._faiss
        raw = np.concatenate(self._parts)
        self._parts = []
        np.save(self._folder / "raw.npy", raw)
        lists = int(4 * np.sqrt(len(raw)))
        self._lists = lists
        quantizer = faiss.IndexFlatIP(self._width)
        self._index = faiss.IndexIVFScalarQuantizer(
            quantizer, self._width, lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        )
        self._index.cp.niter = 8
        sample = raw[np.random.default_rng(1).permutation(len(raw))[: lists * 40]]
        self._index.train(sample)
        self._index.add(raw)
        del raw
        faiss.write_index(self._index, str(self._folder / "ivf.faiss"))
        self._raw = np.load(self._folder / "raw.npy", mmap_mode="r")

    def search(self, query: Floats, limit: int) -> Ints:
        faiss = self._faiss
        probes = max(8, self._lists // 40)
        params = faiss.SearchParametersIVF(nprobe=probes)
        if limit < BUCKETS:
            mask = np.packbits(self._buckets < limit, bitorder="little")
            selector = faiss.IDSelectorBitmap(mask)
            matching = limit / BUCKETS * len(self._buckets)
            few = matching <= 100_000
            probes = self._lists if few else min(self._lists, int(probes * BUCKETS / limit))
            params = faiss.SearchParametersIVF(nprobe=probes, sel=selector)
        _, rows = self._index.search(query[None], 40, params=params)
        found: Ints = rows[0][rows[0] >= 0]
        return found[np.argsort(-(self._raw[found] @ query))[:10]]

    def delete(self, rows: Ints) -> None:
        self._index.remove_ids(self._faiss.IDSelectorBatch(rows))


class FaissHnsw:
    """Bare faiss: a graph over 8-bit codes, the filter given as a bitmap."""

    def __init__(self, folder: Path, width: int) -> None:
        import faiss

        self._faiss = faiss
        self._folder = folder
        self._width = width
        self._parts: list[Floats] = []
        self._buckets = np.zeros(0, np.int64)

    def add(self, start: int, vectors: Floats, buckets: Ints) -> None:
        self._parts.append(np.array(vectors))
        self._buckets = np.append(self._buckets, buckets)

    def seal(self) -> None:
        faiss = self._faiss
        raw = np.concatenate(self._parts)
        self._parts = []
        faiss.omp_set_num_threads(2)
        self._index = faiss.IndexHNSWSQ(
            self._width, faiss.ScalarQuantizer.QT_8bit, 16, faiss.METRIC_INNER_PRODUCT
        )
        self._index.hnsw.efConstruction = 100
        self._index.train(raw[:50_000])
        self._index.add(raw)
        faiss.write_index(self._index, str(self._folder / "hnsw.faiss"))
        faiss.omp_set_num_threads(1)

    def search(self, query: Floats, limit: int) -> Ints:
        faiss = self._faiss
        params = faiss.SearchParametersHNSW(efSearch=128)
        if limit < BUCKETS:
            mask = np.packbits(self._buckets < limit, bitorder="little")
            selector = faiss.IDSelectorBitmap(mask)
            params = faiss.SearchParametersHNSW(efSearch=128, sel=selector)
        _, rows = self._index.search(query[None], 10, params=params)
        found: Ints = rows[0]
        return found

    def delete(self, rows: Ints) -> None:
        raise NotImplementedError("a faiss graph cannot forget")


class Usearch:
    """Bare usearch: a graph over 8-bit codes; more are asked for than pass the filter."""

    def __init__(self, folder: Path, width: int) -> None:
        from usearch.index import Index

        self._folder = folder
        self._index = Index(
            ndim=width,
            metric="ip",
            dtype="i8",
            connectivity=16,
            expansion_add=100,
            expansion_search=128,
        )
        self._buckets = np.zeros(0, np.int64)

    def add(self, start: int, vectors: Floats, buckets: Ints) -> None:
        self._index.add(np.arange(start, start + len(vectors)), vectors, threads=2)
        self._buckets = np.append(self._buckets, buckets)

    def seal(self) -> None:
        self._index.save(str(self._folder / "graph.usearch"))

    def search(self, query: Floats, limit: int) -> Ints:
        count = min(2_000, 10 * BUCKETS // limit * 2) if limit < BUCKETS else 10
        keys: Ints = self._index.search(query, count, threads=1).keys.astype(np.int64)
        return keys[self._buckets[keys] < limit][:10] if limit < BUCKETS else keys

    def delete(self, rows: Ints) -> None:
        self._index.remove(rows)


class SqliteVec:
    """sqlite-vec: exact search by scanning, a metadata column for the filter.

    Through apsw, because Python's own sqlite3 is often built without extensions.
    """

    def __init__(self, folder: Path, width: int) -> None:
        import apsw
        import sqlite_vec

        self._db = apsw.Connection(str(folder / "vec.db"))
        self._db.enable_load_extension(True)
        self._db.load_extension(sqlite_vec.loadable_path())
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(
            f"CREATE VIRTUAL TABLE v USING vec0("
            f"embedding float[{width}] distance_metric=cosine, bucket int)"
        )

    def add(self, start: int, vectors: Floats, buckets: Ints) -> None:
        with self._db:
            self._db.executemany(
                "INSERT INTO v(rowid, embedding, bucket) VALUES (?, ?, ?)",
                (
                    (start + row, vector.tobytes(), int(bucket))
                    for row, (vector, bucket) in enumerate(zip(vectors, buckets, strict=True))
                ),
            )

    def seal(self) -> None:
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def search(self, query: Floats, limit: int) -> Ints:
        clause = "" if limit == BUCKETS else f"AND bucket < {limit}"
        rows = self._db.execute(
            f"SELECT rowid FROM v WHERE embedding MATCH ? AND k = 10 {clause}",
            (query.tobytes(),),
        )
        return np.array([row for (row,) in rows], np.int64)

    def delete(self, rows: Ints) -> None:
        with self._db:
            self._db.executemany("DELETE FROM v WHERE rowid = ?", [(int(row),) for row in rows])


class Lance:
    """LanceDB: inverted lists of graphs over 8-bit codes, refined; a B-tree on the bucket."""

    def __init__(self, folder: Path, width: int) -> None:
        import lancedb
        import pyarrow as pa  # type: ignore[import-untyped]  # ships no types

        self._pa = pa
        self._width = width
        schema = pa.schema(
            [
                pa.field("row", pa.int64()),
                pa.field("bucket", pa.int64()),
                pa.field("vector", pa.list_(pa.float32(), width)),
            ]
        )
        self._table = lancedb.connect(folder).create_table("v", schema=schema)

    def add(self, start: int, vectors: Floats, buckets: Ints) -> None:
        pa = self._pa
        values = pa.FixedSizeListArray.from_arrays(pa.array(np.ravel(vectors)), self._width)
        rows = pa.array(np.arange(start, start + len(vectors)))
        columns = [rows, pa.array(buckets), values]
        self._table.add(pa.table(columns, names=["row", "bucket", "vector"]))

    def seal(self) -> None:
        self._table.optimize()
        self._table.create_scalar_index("bucket", index_type="BTREE")
        self._table.create_scalar_index("row", index_type="BTREE")
        self._table.create_index(
            metric="cosine",
            vector_column_name="vector",
            index_type="IVF_HNSW_SQ",
            m=16,
            ef_construction=100,
        )

    def search(self, query: Floats, limit: int) -> Ints:
        asked = (
            self._table.search(query).nprobes(8).ef(128).refine_factor(2).select(["row"]).limit(10)
        )
        if limit < BUCKETS:
            asked = asked.where(f"bucket < {limit}", prefilter=True)
        found: Ints = asked.to_arrow()["row"].to_numpy()
        return found

    def delete(self, rows: Ints) -> None:
        self._table.delete(f"row in ({','.join(map(str, rows))})")


class QdrantEdge:
    """Qdrant's shard in the process: log, segments, a graph that knows the filter, 8-bit codes."""

    def __init__(self, folder: Path, width: int) -> None:
        import qdrant_edge as q

        self._q = q
        where = folder / "shard"
        where.mkdir()
        self._shard = q.EdgeShard.create(
            str(where),
            q.EdgeConfig(
                vectors=q.EdgeVectorParams(
                    size=width,
                    distance=q.Distance.Cosine,
                    memory=q.Memory.Cold,
                    quantization_config=q.ScalarQuantizationConfig(
                        q.ScalarType.Int8, quantile=0.99
                    ),
                    hnsw_config=q.HnswIndexConfig(
                        m=16, ef_construct=100, full_scan_threshold=10_000
                    ),
                ),
                optimizers=q.EdgeOptimizersConfig(default_segment_number=1),
            ),
        )
        self._shard.update(
            q.UpdateOperation.create_field_index("bucket", q.PayloadSchemaType.Integer)
        )

    def add(self, start: int, vectors: Floats, buckets: Ints) -> None:
        q = self._q
        points = [
            q.Point(start + row, vector.tolist(), {"bucket": int(bucket)})
            for row, (vector, bucket) in enumerate(zip(vectors, buckets, strict=True))
        ]
        self._shard.update(q.UpdateOperation.upsert_points(points))

    def seal(self) -> None:
        self._shard.optimize()
        self._shard.flush()

    def search(self, query: Floats, limit: int) -> Ints:
        q = self._q
        wanted = None
        if limit < BUCKETS:
            wanted = q.Filter(
                must=[q.FieldCondition("bucket", range=q.RangeFloat(lt=float(limit)))]
            )
        found = self._shard.query(
            q.QueryRequest(
                limit=10,
                query=q.Query.Nearest(query.tolist()),
                filter=wanted,
                params=q.SearchParams(
                    hnsw_ef=128,
                    quantization=q.QuantizationSearchParams(rescore=True, oversampling=2.0),
                ),
            )
        )
        return np.array([point.id for point in found], np.int64)

    def delete(self, rows: Ints) -> None:
        self._shard.update(self._q.UpdateOperation.delete_points(rows.tolist()))


class Zvec:
    """zvec: a graph over 8-bit codes with refinement; an inverted index on the bucket."""

    def __init__(self, folder: Path, width: int) -> None:
        import zvec

        self._z = zvec
        zvec.init(log_level=zvec.LogLevel.WARN)
        schema = zvec.CollectionSchema(
            name="v",
            fields=[
                zvec.FieldSchema(
                    "bucket",
                    zvec.DataType.INT64,
                    index_param=zvec.InvertIndexParam(enable_range_optimization=True),
                )
            ],
            vectors=[
                zvec.VectorSchema(
                    "e",
                    zvec.DataType.VECTOR_FP32,
                    width,
                    index_param=zvec.HnswIndexParam(
                        zvec.MetricType.COSINE,
                        m=16,
                        ef_construction=100,
                        quantize_type=zvec.QuantizeType.INT8,
                    ),
                )
            ],
        )
        self._collection = zvec.create_and_open(str(folder / "z"), schema)

    def add(self, start: int, vectors: Floats, buckets: Ints) -> None:
        z = self._z
        for begin in range(0, len(vectors), 1000):
            self._collection.insert(
                [
                    z.Doc(
                        id=str(start + row),
                        vectors={"e": vectors[row]},
                        fields={"bucket": int(buckets[row])},
                    )
                    for row in range(begin, min(begin + 1000, len(vectors)))
                ]
            )

    def seal(self) -> None:
        self._collection.optimize()

    def search(self, query: Floats, limit: int) -> Ints:
        z = self._z
        asked: dict[str, Any] = {} if limit == BUCKETS else {"filter": f"bucket < {limit}"}
        found = self._collection.query(
            z.Query("e", vector=query, param=z.HnswQueryParam(ef=128, is_using_refiner=True)),
            topk=10,
            **asked,
        )
        return np.array([int(doc.id) for doc in found], np.int64)

    def delete(self, rows: Ints) -> None:
        self._collection.delete([str(row) for row in rows])


class Openworks:
    """Our own layer over faiss and SQLite: `openworks.storage.vectors`."""

    def __init__(self, folder: Path, width: int) -> None:
        from openworks.core.clock import SystemClock
        from openworks.ports.vectors import IndexId, IndexSpec
        from openworks.storage.vectors.store import LocalVectorIndexes, VectorsConfig

        self._loop = asyncio.new_event_loop()
        self._index = LocalVectorIndexes(folder, VectorsConfig(), SystemClock())
        self._name = IndexId("bench")
        self._run(self._index.open())
        self._run(self._index.create(self._name, IndexSpec(width=width, metric="cosine")))

    def add(self, start: int, vectors: Floats, buckets: Ints) -> None:
        from openworks.ports.vectors import Mutation, VectorRow

        rows = [
            VectorRow(
                id=str(start + row),
                values=array("f", vector.tobytes()),
                metadata={"bucket": int(bucket)},
            )
            for row, (vector, bucket) in enumerate(zip(vectors, buckets, strict=True))
        ]
        self._run(self._index.insert(self._name, rows, Mutation(id=str(start), at_s=0)))

    def seal(self) -> None:
        self._run(self._index.settle())

    def search(self, query: Floats, limit: int) -> Ints:
        from openworks.ports.vectors import Compare, Search

        below = Compare(path=("bucket",), op="lt", value=limit)
        search = Search(
            count=10,
            vector=array("f", query.tobytes()),
            filter=None if limit == BUCKETS else below,
        )
        found = self._run(self._index.search(self._name, search))
        return np.array([int(match.id) for match in found], np.int64)

    def delete(self, rows: Ints) -> None:
        from openworks.ports.vectors import Mutation

        ids = [str(row) for row in rows]
        self._run(self._index.delete(self._name, ids, Mutation(id="delete", at_s=0)))

    def _run(self, call: Coroutine[Any, Any, Result]) -> Result:
        return self._loop.run_until_complete(call)


CANDIDATES: dict[str, type[Candidate]] = {
    "faiss IVF, SQ8": FaissIvf,
    "faiss HNSW, SQ8": FaissHnsw,
    "usearch": Usearch,
    "sqlite-vec": SqliteVec,
    "LanceDB": Lance,
    "qdrant-edge": QdrantEdge,
    "zvec": Zvec,
    "openworks": Openworks,
}


def size_on_disk(folder: Path) -> int:
    """Bytes that the files in `folder` occupy."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def empty(folder: Path) -> None:
    """Make `folder` new and empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
