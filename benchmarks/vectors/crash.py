"""Fill a candidate from a process that is killed, open what it left, and count what is missing."""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.vectors.candidates import CANDIDATES, empty

_BATCH = 500
_WIDTH = 64


def main() -> None:
    """Kill it three times for each library, after different numbers of batches."""
    parser = argparse.ArgumentParser()
    parser.add_argument("candidate", choices=["LanceDB", "qdrant-edge", "zvec"])
    parser.add_argument("--folder", type=Path, default=Path("/tmp/vectors/crash"))
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--count", action="store_true")
    options = parser.parse_args()
    if options.write:
        _write(options.candidate, options.folder)
    elif options.count:
        print(_count(options.candidate, options.folder))
    else:
        for batches in (3, 11, 29):
            print(options.candidate, _killed(options.candidate, options.folder, batches))


def _killed(candidate: str, folder: Path, batches: int) -> str:
    empty(folder)
    own = [sys.executable, "-m", "benchmarks.vectors.crash", candidate, "--folder", str(folder)]
    with subprocess.Popen([*own, "--write"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(batches)]
        os.kill(process.pid, signal.SIGKILL)
        said += [line for line in process.stdout if line.endswith("\n")]
    acknowledged = len(said) * _BATCH
    counted = subprocess.run([*own, "--count"], capture_output=True, text=True, check=False)
    if counted.returncode:
        return f"{acknowledged} acknowledged; does not open: {counted.stderr.strip()[-200:]}"
    return f"{acknowledged} acknowledged, {counted.stdout.strip()} there"


def _write(candidate: str, folder: Path) -> None:
    index = CANDIDATES[candidate](folder, _WIDTH)
    rng = np.random.default_rng(0)
    start = 0
    while True:
        vectors = rng.standard_normal((_BATCH, _WIDTH), dtype=np.float32)
        index.add(start, vectors, np.arange(start, start + _BATCH))
        start += _BATCH
        print(start, flush=True)


def _count(candidate: str, folder: Path) -> int:
    match candidate:
        case "LanceDB":
            import lancedb

            return int(lancedb.connect(folder).open_table("v").count_rows())
        case "qdrant-edge":
            import qdrant_edge

            shard = qdrant_edge.EdgeShard.load(str(folder / "shard"))
            return int(shard.count(qdrant_edge.CountRequest(exact=True)))
        case _:
            import zvec

            return int(zvec.open(str(folder / "z")).stats.doc_count)


if __name__ == "__main__":
    main()
