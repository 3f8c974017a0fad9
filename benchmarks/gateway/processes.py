"""Processes on a core of their own, what they use of it, and what others use meanwhile."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import family

TARGET_CORE = 0
LOAD_CORE = 1
"""Of the upstream, wrk and this process."""
QUIET_SHARE = 0.08
"""Of one core: what others may use while something is measured."""
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pids: Sequence[int]) -> float:
    """Return the time that processes have run, in the kernel too; those that are gone count 0."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS_PER_S


def living(pid: int) -> list[int]:
    """Return a process and its descendants; empty once it is gone."""
    try:
        return family(pid)
    except OSError:
        return []


def command_of(pid: int) -> str:
    """Return a process's command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def memory_mib(pids: Sequence[int], *, peak: bool) -> float:
    """Return the sum of the resident sets, at their greatest or now."""
    wanted = "VmHWM" if peak else "VmRSS"
    total_kib = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            continue
        total_kib += sum(int(line.split()[1]) for line in lines if line.startswith(wanted))
    return total_kib / 1024


def machine_busy_s() -> float:
    """Return how long all cores together have worked."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()
    return sum(int(fields[place]) for place in (1, 2, 3, 6, 7)) / _TICKS_PER_S


def wait_for_quiet(patience_s: float) -> None:
    """Return once the machine idles, or when patience ends."""
    ends_s = time.monotonic() + patience_s
    while time.monotonic() < ends_s:
        before_s = machine_busy_s()
        time.sleep(0.5)
        if (machine_busy_s() - before_s) / 0.5 < QUIET_SHARE:
            return


@dataclass(slots=True)
class Usage:
    """What was used while a block ran; filled when it ends."""

    took_s: float = 0.0
    target_s: float = 0.0
    """By the target and its descendants."""
    others_share: float = 0.0
    """Of one core: by processes that have nothing to do with this."""


@contextmanager
def measured(target: int, upstream: int) -> Iterator[Usage]:
    """Measure what a block uses, on the whole machine."""
    usage = Usage()
    pids = living(target)
    started_s, busy_s = time.monotonic(), machine_busy_s()
    before_s, own_s = cpu_s(pids), _own_s(upstream)
    yield usage
    usage.took_s = time.monotonic() - started_s
    usage.target_s = max(0.0, cpu_s(living(target)) - before_s)
    own_s = _own_s(upstream) - own_s + (usage.target_s if target != upstream else 0.0)
    usage.others_share = max(0.0, machine_busy_s() - busy_s - own_s) / usage.took_s


def _own_s(upstream: int) -> float:
    """What this process, the wrk runs that it waited for and the upstream have used."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime + cpu_s([upstream])


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def running(
    command: Sequence[str],
    *,
    core: int,
    log: Path,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command, its children with it, on one core; it is ended with the block."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # what it left behind
    process.wait()


def wait_for_port(process: subprocess.Popen[bytes], port: int, *, patience_s: float = 90) -> None:
    """Return when a process listens.

    Raises:
        RuntimeError: It ended, or never did.
    """
    ends_s = time.monotonic() + patience_s
    while time.monotonic() < ends_s:
        if process.poll() is not None:
            raise RuntimeError(f"It ended with status {process.returncode}.")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"Nobody listens on port {port} after {patience_s:.0f} s.")
