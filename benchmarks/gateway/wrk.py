"""Runs wrk, the load generator of every phase."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gateway.processes import LOAD_CORE
from benchmarks.gateway.request import Address, request_bytes, unrepeated

_SCRIPT = Path(__file__).with_name("load.lua")
_RESULT = "RESULT "


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What wrk saw."""

    requests: int
    took_s: float
    p50_ms: float
    p99_ms: float
    errors: int
    """Connections that failed or broke, and answers that never came."""
    bad: int
    """Answers with a status over 399."""

    @property
    def per_s(self) -> float:
        return self.requests / self.took_s


def run_wrk(address: Address, body: bytes, *, connections: int, duration_s: float) -> Load:
    """Ask as fast as answers come, on every connection.

    Raises:
        RuntimeError: wrk failed.
    """
    with tempfile.NamedTemporaryFile() as file:
        file.write(request_bytes(address, unrepeated(body)))
        file.flush()
        done = subprocess.run(
            [
                *("taskset", "-c", str(LOAD_CORE)),
                *("wrk", "--threads", "1", "--connections", str(connections)),
                *("--duration", f"{duration_s:.0f}s", "--timeout", "120s", "--latency"),
                *("--script", str(_SCRIPT), address.url),
            ],
            env={**os.environ, "BENCH_REQUEST": file.name},
            capture_output=True,
            text=True,
            check=False,
        )
    for line in done.stdout.splitlines():
        if line.startswith(_RESULT):
            return Load(**json.loads(line.removeprefix(_RESULT)))
    raise RuntimeError(f"wrk failed: {done.stdout[-500:]}{done.stderr[-500:]}")
