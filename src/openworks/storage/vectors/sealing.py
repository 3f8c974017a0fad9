"""Making the file of a `Sealed`: in this process, or for many rows in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import faiss
import msgspec
import numpy as np

from openworks.ports.vectors import Metric
from openworks.storage.vectors.codes import faiss_metric, prepare
from openworks.storage.vectors.raw import Matrix, RawVectors, Slots

_SAMPLES_PER_LIST = 40
_ASKED_TO_CALIBRATE = 128
_NEIGHBOURS_TO_CALIBRATE = 11  # with itself, as the rows that are asked about are there
_RECALL = 0.985
_RETRAIN_LISTS = 1.5
"""Lists are trained anew when there would be so many times as many of them."""
_NICENESS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class SealJob:
    """Which rows to make lists of, and where."""

    path: str
    """It appears whole or not at all."""
    vectors: str
    """The file that the rows are read from, a block at a time."""
    width: int
    metric: Metric
    start: int
    """The first slot that `grown` does not cover."""
    stop: int
    """The first slot behind the rows."""
    grown: str | None
    """A file of lists to begin with: what is not alive goes, what is behind `start` is added."""
    threads: int


def seal(job: SealJob, alive: Slots) -> None:
    """Write the file over the rows `alive`: ascending slots, at least one."""
    raw = RawVectors(Path(job.vectors), job.width)
    try:
        index = _filled(job, alive, raw)
    finally:
        raw.close()
    unfinished = Path(f"{job.path}.part")
    faiss.write_index(index, str(unfinished))
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    unfinished.rename(job.path)


class SealProcess:
    """`seal` in a process of its own: the memory that it takes goes with it."""

    def __init__(self, job: SealJob, alive: Slots) -> None:
        slots = Path(f"{job.path}.slots.npy")
        np.save(slots, alive)
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, msgspec.json.encode(job).decode()],
            stdin=subprocess.PIPE,  # open as long as this process lives
            stderr=subprocess.PIPE,
            text=True,
        )
        self._slots = slots

    def wait(self) -> None:
        """Return when the file is there.

        Raises:
            OSError: It was stopped, or failed.
        """
        with self._process as process:
            assert process.stderr is not None
            said = process.stderr.read()
        self._slots.unlink(missing_ok=True)
        if process.returncode:
            raise OSError(f"The lists were not made: {said.strip()[-500:]}")

    def kill(self) -> None:
        """Stop it; `wait` raises then."""
        self._process.kill()


def _filled(job: SealJob, alive: Slots, raw: RawVectors) -> faiss.IndexIVF:
    index = None if job.grown is None else faiss.read_index(job.grown)
    lists = _lists_for(len(alive))
    if index is None or lists >= _RETRAIN_LISTS * index.nlist:
        index = _trained(job, _sample(job, alive, raw, lists * _SAMPLES_PER_LIST), lists)
        _add(index, job, alive, raw)
    else:
        index.remove_ids(faiss.IDSelectorNot(faiss.IDSelectorBatch(alive[alive < job.start])))
        _add(index, job, alive[alive >= job.start], raw)
    index.nprobe = _probes_that_find(index, _sample(job, alive, raw, _ASKED_TO_CALIBRATE))
    return index


def _sample(job: SealJob, alive: Slots, raw: RawVectors, count: int) -> Matrix:
    chosen = np.random.default_rng(0).permutation(len(alive))[:count]
    return prepare(raw.read(alive[np.sort(chosen)]), job.metric)


def _trained(job: SealJob, sample: Matrix, lists: int) -> faiss.IndexIVF:
    metric = faiss_metric(job.metric)
    quantizer = faiss.IndexFlat(job.width, metric)
    index = faiss.IndexIVFScalarQuantizer(
        quantizer, job.width, lists, faiss.ScalarQuantizer.QT_8bit, metric, False
    )
    index.cp.niter = 8
    index.train(sample)
    return index


def _lists_for(count: int) -> int:
    return max(1, min(int(2 * count**0.5), count // _SAMPLES_PER_LIST))


def _add(index: faiss.IndexIVF, job: SealJob, slots: Slots, raw: RawVectors) -> None:
    if not len(slots):
        return
    start = int(slots[0])
    wanted = np.zeros(job.stop - start, np.bool_)
    wanted[slots - start] = True
    for first, rows in raw.blocks(start, job.stop):
        here = np.flatnonzero(wanted[first - start :][: len(rows)])
        if len(here):
            index.add_with_ids(prepare(rows[here], job.metric), here + first)


def _probes_that_find(index: faiss.IndexIVF, asked: Matrix) -> int:
    """How many lists must be looked at to find the neighbours that all of them hold."""
    count = min(_NEIGHBOURS_TO_CALIBRATE, int(index.ntotal))
    _, truth = index.search(asked, count, params=faiss.SearchParametersIVF(nprobe=index.nlist))
    probes = max(4, index.nlist // 64)
    while probes < index.nlist:
        _, found = index.search(asked, count, params=faiss.SearchParametersIVF(nprobe=probes))
        if _recall(truth, found) >= _RECALL:
            break
        probes = int(np.ceil(probes * 1.3))
    return min(int(np.ceil(probes * 1.2)), int(index.nlist))


def _recall(truth: Slots, found: Slots) -> float:
    pairs: Iterable[tuple[Slots, Slots]] = zip(truth, found, strict=True)
    return float(np.mean([np.isin(true, got).mean() for true, got in pairs]))


def _main(text: str) -> None:
    job = msgspec.json.decode(text, type=SealJob)
    os.nice(_NICENESS)  # searches go before it
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    faiss.omp_set_num_threads(job.threads)
    seal(job, np.load(f"{job.path}.slots.npy"))


def _leave_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    _main(sys.argv[1])
