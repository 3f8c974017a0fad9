"""How many threads compute a model, where nobody says."""

from __future__ import annotations

import os

SMALL_MODEL_BYTES = 64 << 20
"""Under this size a model lies in the caches: a second thread costs more in waiting than it
computes (measured: 0.1 ms a step on one thread, and 230 ms on two when another process wants a
core), and fewer bits win nothing."""


def default_threads(size_bytes: int) -> int:
    """How many threads decode fastest: one for tiny models, otherwise one for each core."""
    return 1 if size_bytes < SMALL_MODEL_BYTES else _cores()


def _cores() -> int:
    """The cores that this process may use; where the system does not tell, all of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
