"""Fill one candidate, ask it, and print one JSON line of what was measured."""

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np

from benchmarks.vectors.candidates import BATCH, CANDIDATES, Candidate, empty, size_on_disk
from benchmarks.vectors.corpus import SELECTIVITIES, Corpus, generate


def main() -> None:
    """Measure one candidate; a process for each keeps their memory apart."""
    parser = argparse.ArgumentParser()
    parser.add_argument("candidate", choices=CANDIDATES)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/vectors"))
    parser.add_argument("--noise", type=float, default=1.0, help="how far topics spread")
    options = parser.parse_args()
    corpus = generate(
        options.folder / "corpus", rows=options.rows, width=options.width, noise=options.noise
    )
    place = options.folder / "index"
    empty(place)
    index = CANDIDATES[options.candidate](place, options.width)
    measured: dict[str, object] = {
        "candidate": options.candidate,
        "rows": options.rows,
        "width": options.width,
        "noise": options.noise,
        "rss_before_mib": _resident_mib(),
    }
    began = time.perf_counter()
    for start in range(0, options.rows, BATCH):
        part = corpus.rows(start, start + BATCH)
        index.add(start, part, corpus.buckets[start : start + BATCH])
    measured["ingest_s"] = round(time.perf_counter() - began, 1)
    began = time.perf_counter()
    index.seal()
    measured["seal_s"] = round(time.perf_counter() - began, 1)
    measured["disk_mib"] = size_on_disk(place) >> 20
    for name, limit in SELECTIVITIES.items():
        measured[name] = _ask(index, corpus, name, limit, options.queries)
    measured["rss_mib"] = _resident_mib()
    measured["peak_rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    measured |= _forget(index, corpus)
    print(json.dumps(measured), flush=True)


def _ask(index: Candidate, corpus: Corpus, name: str, limit: int, count: int) -> dict[str, float]:
    for query in corpus.queries[:20]:
        index.search(query, limit)
    took, right, wanted, short = [], 0, 0, 0
    busy = time.process_time()
    for query, truth in zip(corpus.queries[:count], corpus.truth[name], strict=False):
        began = time.perf_counter()
        found = index.search(query, limit)
        took.append(time.perf_counter() - began)
        expected = set(truth[truth >= 0].tolist())
        right += len(expected & set(found.tolist()))
        wanted += len(expected)
        short += len(found) < len(expected)
    return {
        "recall": round(right / wanted, 4),
        "short": short,
        "p50_ms": round(float(np.percentile(took, 50)) * 1000, 2),
        "p99_ms": round(float(np.percentile(took, 99)) * 1000, 2),
        "cpu_ms": round((time.process_time() - busy) / len(took) * 1000, 2),
        "qps": round(len(took) / sum(took)),
    }


def _forget(index: Candidate, corpus: Corpus) -> dict[str, object]:
    gone = np.unique(corpus.truth["none"][:200, 0])
    began = time.perf_counter()
    try:
        index.delete(gone)
    except NotImplementedError as error:
        return {"delete": str(error)}
    took = time.perf_counter() - began
    back = sum(
        int(np.isin(index.search(query, 1000), gone).any()) for query in corpus.queries[:200]
    )
    return {"delete_ms": round(took * 1000, 1), "deleted_seen": back}


def _resident_mib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() >> 20


if __name__ == "__main__":
    main()
