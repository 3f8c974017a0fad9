"""Vectors with structure, the filters over them, and the exact answers."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

BUCKETS = 1000
"""A row's `bucket` is 0..999 at random, so that `bucket < n` matches n in a thousand rows."""

SELECTIVITIES = {"none": BUCKETS, "50%": 500, "10%": 100, "1%": 10, "0.1%": 1}
TOP_K = 10

_HEADER_BYTES = 128  # of a .npy file


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """What every candidate is given, and what it should answer."""

    path: Path  # of the vectors: [rows, width], each of length one
    buckets: Ints  # [rows]
    queries: Floats  # [queries, width]
    truth: dict[str, Ints]  # [queries, TOP_K] rows for each selectivity; -1 where fewer exist

    def rows(self, start: int, stop: int) -> Floats:
        """Read some vectors; a map of them all would count as the candidate's memory."""
        width = self.queries.shape[1]
        count = (stop - start) * width
        offset = _HEADER_BYTES + start * width * 4
        return np.fromfile(self.path, np.float32, count, offset=offset).reshape(-1, width)


def generate(
    folder: Path, *, rows: int, width: int, queries: int = 500, noise: float = 1.0, seed: int = 7
) -> Corpus:
    """The corpus of this size, from `folder` where it was generated before."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{rows}x{width}" if noise == 1 else f"{rows}x{width}-noise-{noise}"
    path = folder / f"{stem}.npy"
    rng = np.random.default_rng(seed)
    world = _World(rng, width, noise)
    buckets = rng.integers(0, BUCKETS, rows)
    asked = world.draw(rng, queries)
    if not path.exists():
        stored = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, width))
        for start in range(0, rows, 20_000):
            stop = min(start + 20_000, rows)
            stored[start:stop] = world.draw(rng, stop - start)
        stored.flush()
    truth_path = folder / f"{stem}-truth.npz"
    if not truth_path.exists():
        vectors = np.load(path, mmap_mode="r")
        answers = _nearest(vectors, buckets, asked)
        np.savez(truth_path, allow_pickle=False, **answers)
    truth = dict(np.load(truth_path))
    return Corpus(path=path, buckets=buckets, queries=asked, truth=truth)


class _World:
    """2,000 topics of uneven size; each spreads along 24 of its own directions, then in all."""

    def __init__(self, rng: np.random.Generator, width: int, noise: float) -> None:
        self._noise = noise
        spectrum = (1 / np.sqrt(1 + np.arange(width) / 16)).astype(np.float32)
        self._centres = rng.standard_normal((2000, width), dtype=np.float32) * spectrum
        self._directions = rng.standard_normal((64, 24, width), dtype=np.float32) * spectrum
        weights = 1 / (1 + np.arange(2000)) ** 0.5
        self._weights = weights / weights.sum()

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        topics = rng.choice(2000, count, p=self._weights)
        along = rng.standard_normal((count, 24), dtype=np.float32) * 0.15 * self._noise
        out = self._centres[topics] * 0.8
        for family in range(64):
            members = np.flatnonzero(topics % 64 == family)
            out[members] += along[members] @ self._directions[family]
        out += 0.12 * self._noise * rng.standard_normal(out.shape, dtype=np.float32)
        out /= np.linalg.norm(out, axis=1, keepdims=True)
        return out.astype(np.float32)


def _nearest(vectors: Floats, buckets: Ints, queries: Floats) -> dict[str, Ints]:
    best = {
        name: (np.full((len(queries), TOP_K), -np.inf), np.full((len(queries), TOP_K), -1))
        for name in SELECTIVITIES
    }
    for start in range(0, len(vectors), 20_000):
        part = np.asarray(vectors[start : start + 20_000])
        scores = queries @ part.T
        for name, limit in SELECTIVITIES.items():
            rows = np.flatnonzero(buckets[start : start + len(part)] < limit)
            if not len(rows):
                continue
            old_scores, old_rows = best[name]
            all_scores = np.hstack([old_scores, scores[:, rows]])
            all_rows = np.hstack(
                [old_rows, np.broadcast_to(rows + start, (len(queries), len(rows)))]
            )
            order = np.argsort(-all_scores, axis=1)[:, :TOP_K]
            best[name] = (
                np.take_along_axis(all_scores, order, 1),
                np.take_along_axis(all_rows, order, 1),
            )
    return {name: rows.astype(np.int64) for name, (_, rows) in best.items()}
