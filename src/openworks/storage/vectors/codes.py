"""What searches look at first: 8-bit codes in faiss, in sealed lists and a tail behind them."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import faiss
import numpy as np
from numpy.typing import NDArray

from openworks.ports.vectors import Metric
from openworks.storage.vectors.raw import Matrix, Slots

Bits: TypeAlias = NDArray[np.uint8]
"""One bit for each slot, the lowest first: which ones may be found."""

SCAN_ALL = 20_000
"""Up to so many matching rows, a filtered search looks at all of them."""


class Sealed:
    """Inverted lists over the slots from `start` to `stop`, mapped from a file: nothing is added.

    Its pages are the system's to drop. Rows that were removed later stay, and the bits hide them.
    """

    def __init__(self, path: Path, *, start: int, stop: int) -> None:
        self.path = path
        self.start = start
        self.stop = stop
        self._index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def find(
        self, query: Matrix, count: int, bits: Bits | None, matching: int, share: float
    ) -> Slots:
        """Return up to `count` slots near the query; fewer only where fewer match.

        Args:
            query: [1, width], prepared.
            count: How many.
            bits: None when every row may be found.
            matching: How many of the index's rows the bits let through.
            share: The same as a part of all rows.
        """
        lists = int(self._index.nlist)
        probes = int(self._index.nprobe)
        if bits is not None:
            few = matching <= SCAN_ALL
            # Twice as many as chance asks for: what a filter leaves may lie apart.
            probes = lists if few else min(lists, int(np.ceil(2 * probes / share)))
        found = self._probe(query, count, bits, probes)
        if len(found) < count and probes < lists:
            found = self._probe(query, count, bits, lists)
        return found

    def tail(self, start: int) -> Tail:
        """An empty tail from this slot on, whose codes are made as these."""
        return Tail(_trained_like(self._index), start)

    def _probe(self, query: Matrix, count: int, bits: Bits | None, probes: int) -> Slots:
        selector = None if bits is None else faiss.IDSelectorBitmap(bits)
        parameters = faiss.SearchParametersIVF(nprobe=probes, sel=selector)
        _, slots = self._index.search(query, min(count, len(self)), params=parameters)
        found: Slots = slots[0][slots[0] >= 0]
        return found


class Tail:
    """The rows behind the last sealed one, all of which are looked at."""

    def __init__(self, index: faiss.Index, start: int) -> None:
        self.start = start
        self._index = index

    @classmethod
    def exact(cls, width: int, metric: Metric, start: int) -> Tail:
        """A tail of the vectors themselves, for before there is anything to learn codes from."""
        return cls(faiss.IndexFlat(width, faiss_metric(metric)), start)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, rows: Matrix) -> None:
        """Take in the prepared rows of the next slots."""
        self._index.add(rows)

    def find(self, query: Matrix, count: int, bits: Bits | None) -> Slots:
        """As `Sealed.find`."""
        if not len(self):
            return np.zeros(0, np.int64)
        # `start` is a multiple of eight, so that the bits of the tail begin with a byte.
        own = None if bits is None else np.ascontiguousarray(bits[self.start // 8 :])
        selector = None if own is None else faiss.IDSelectorBitmap(own)
        parameters = faiss.SearchParameters(sel=selector)
        _, places = self._index.search(query, min(count, len(self)), params=parameters)
        found: Slots = places[0][places[0] >= 0] + self.start
        return found


def prepare(rows: Matrix, metric: Metric) -> Matrix:
    """Rows as codes are made of them: of length one where only their direction counts."""
    if metric != "cosine":
        return np.ascontiguousarray(rows, np.float32)
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    return np.ascontiguousarray(rows / lengths, np.float32)


def rank(query: Matrix, rows: Matrix, metric: Metric) -> tuple[Slots, NDArray[np.float64]]:
    """Order rows by nearness, exactly.

    Returns:
        Places in `rows`, nearest first, and the score of each row as `Match` has it, by place.
    """
    exact, asked = rows.astype(np.float64), query[0].astype(np.float64)
    if metric == "euclidean":
        scores = np.linalg.norm(exact - asked, axis=1)
        return np.argsort(scores, kind="stable"), scores
    scores = exact @ asked
    if metric == "cosine":
        lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(asked)
        scores = np.divide(scores, lengths, out=np.zeros_like(scores), where=lengths > 0)
    return np.argsort(-scores, kind="stable"), scores


def faiss_metric(metric: Metric) -> int:
    """What faiss calls a metric; of prepared rows, the cosine is the dot product."""
    chosen = faiss.METRIC_L2 if metric == "euclidean" else faiss.METRIC_INNER_PRODUCT
    return int(chosen)


def _trained_like(index: faiss.IndexIVFScalarQuantizer) -> faiss.Index:
    tail = faiss.IndexScalarQuantizer(index.d, faiss.ScalarQuantizer.QT_8bit, index.metric_type)
    faiss.copy_array_to_vector(faiss.vector_to_array(index.sq.trained), tail.sq.trained)
    tail.is_trained = True
    return tail
