"""Builds, runs and asks `upstream.c`, which stands in for a provider."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gateway.processes import LOAD_CORE, free_port, running, wait_for_port

EVENTS_PER_STREAM = 66


@dataclass(frozen=True, slots=True)
class Upstream:
    """A provider that runs."""

    port: int
    pid: int

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def stats(self) -> dict[str, int]:
        """Return what it has counted."""
        url = f"http://127.0.0.1:{self.port}/stats"
        with urllib.request.urlopen(url, timeout=10) as answer:
            found: dict[str, int] = json.load(answer)
        return found


@contextmanager
def open_upstream(folder: Path) -> Iterator[Upstream]:
    """Compile it into a folder and run it.

    Raises:
        RuntimeError: There is no C compiler.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise RuntimeError("The upstream needs a C compiler: apt-get install gcc libc6-dev")
    program, source = folder / "upstream", Path(__file__).with_name("upstream.c")
    subprocess.run([compiler, "-O2", "-o", str(program), str(source)], check=True)
    port = free_port()
    with running([str(program), str(port)], core=LOAD_CORE, log=folder / "upstream.log") as process:
        wait_for_port(process, port)
        yield Upstream(port=port, pid=process.pid)
