"""One target under one load after the other, each on an otherwise quiet machine."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from benchmarks.gateway.client import read_until, send, wait_until_ready
from benchmarks.gateway.processes import (
    QUIET_SHARE,
    Usage,
    command_of,
    measured,
    memory_mib,
    wait_for_quiet,
)
from benchmarks.gateway.request import Address, chat_body, unrepeated
from benchmarks.gateway.targets import WRITER, Target
from benchmarks.gateway.upstream import EVENTS_PER_STREAM, Upstream
from benchmarks.gateway.wrk import Load, run_wrk

_WARM_UP_S = 2
_PROBE_EVERY_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadKind:
    """One phase."""

    name: str
    connections: int
    order: str = ""
    """What the upstream is told; a gap makes it a stream."""
    duration_factor: float = 1.0
    probes: bool = False
    """Whether the first byte of further streams is timed meanwhile."""

    @property
    def is_stream(self) -> bool:
        return bool(self.order)


KINDS = {
    kind.name: kind
    for kind in (
        LoadKind(name="c1", connections=1),
        LoadKind(name="c64", connections=64),
        LoadKind(name="streams", connections=128, order="-c5", probes=True),
        LoadKind(name="most streams", connections=512, order="-c5"),
        # Two rounds of streams of 10 s each, and what the start takes.
        LoadKind(
            name="2,000 streams", connections=2000, order="-c150", duration_factor=6, probes=True
        ),
    )
}
USUAL = ("c1", "c64", "streams", "most streams")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One phase of one target."""

    per_s: float
    """Answers; for streams, those that came to their end."""
    p50_ms: float
    p99_ms: float
    requests: int
    errors: int
    bad: int
    core_share: float
    """Of its core that the target used; near 1 when it was the limit."""
    cpu_us: float
    """For each request, or for each event of a stream."""
    first_byte_p50_ms: float | None
    first_byte_p99_ms: float | None
    probes: int
    others_share: float
    """Of a core, used by processes that have nothing to do with this."""

    @property
    def is_disturbed(self) -> bool:
        return self.others_share > QUIET_SHARE


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """What is done about other processes."""

    attempts: int
    """How often a disturbed phase is measured at most; the least disturbed one counts."""
    quiet_s: float
    """How long to wait for a quiet machine before each."""
    duration_s: float


def warm_up(target: Target) -> int:
    """Wait until the target answers, let it open its connections; return how often it answered."""
    body = _body(target, KINDS["c64"])
    wait_until_ready(target.address, unrepeated(body))
    return 1 + run_wrk(target.address, body, connections=64, duration_s=_WARM_UP_S).requests


def run_phase(target: Target, upstream: Upstream, kind: LoadKind, patience: Patience) -> Figures:
    """Measure one phase, again when it was disturbed."""
    best: Figures | None = None
    for _ in range(patience.attempts):
        wait_for_quiet(patience.quiet_s)
        factor = kind.duration_factor * (target.stream_factor if kind.is_stream else 1)
        figures = _measure(target, upstream, kind, patience.duration_s * factor)
        if best is None or figures.others_share < best.others_share:
            best = figures
        if not best.is_disturbed:
            break
    assert best is not None
    return best


def _measure(target: Target, upstream: Upstream, kind: LoadKind, duration_s: float) -> Figures:
    body = _body(target, kind)
    firsts_s: list[float] = []
    prober = threading.Thread(
        target=_probe,
        args=(target.address, body, time.monotonic() + duration_s, firsts_s),
    )
    events = upstream.stats()["events"]
    with measured(target.pid, upstream.pid) as usage:
        if kind.probes:
            prober.start()
        load = run_wrk(target.address, body, connections=kind.connections, duration_s=duration_s)
        if kind.probes:
            prober.join()
    events = upstream.stats()["events"] - events
    if target.repeats:
        events = load.requests * EVENTS_PER_STREAM
    units = events if kind.is_stream else load.requests
    return _figures(load, firsts_s, cpu_us=usage.target_s / max(units, 1) * 1e6, usage=usage)


def _figures(load: Load, firsts_s: list[float], *, cpu_us: float, usage: Usage) -> Figures:
    first_ms = sorted(first_s * 1000 for first_s in firsts_s)
    return Figures(
        per_s=load.per_s,
        p50_ms=load.p50_ms,
        p99_ms=load.p99_ms,
        requests=load.requests,
        errors=load.errors,
        bad=load.bad,
        core_share=usage.target_s / usage.took_s,
        cpu_us=cpu_us,
        first_byte_p50_ms=first_ms[len(first_ms) // 2] if first_ms else None,
        first_byte_p99_ms=first_ms[int(len(first_ms) * 0.99)] if first_ms else None,
        probes=len(first_ms),
        others_share=usage.others_share,
    )


def _probe(address: Address, body: bytes, until_s: float, firsts_s: list[float]) -> None:
    """Time the first byte of one stream after the other; each is left after it."""
    while time.monotonic() < until_s:
        started_s = time.perf_counter()
        try:
            with send(address, unrepeated(body), timeout_s=20) as connection:
                if b"data:" in read_until(connection, b"data:"):
                    firsts_s.append(time.perf_counter() - started_s)
        except OSError:
            pass  # what does not answer within the timeout shows as too few probes
        time.sleep(_PROBE_EVERY_S)


def _body(target: Target, kind: LoadKind) -> bytes:
    body = chat_body(order=kind.order, stream=kind.is_stream)
    return body if not target.repeats else body.replace(b"%number%", b"00000000")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a gateway's processes held at their greatest."""

    server_mib: float
    writer_mib: float
    """Of the process that writes openworks' logs."""

    @property
    def total_mib(self) -> float:
        return self.server_mib + self.writer_mib


def peak_memory(target: Target) -> Memory:
    """Return it for the time since the target's start."""
    pids = target.gateway_pids()
    writers = [pid for pid in pids if WRITER in command_of(pid)]
    servers = [pid for pid in pids if pid not in writers]
    return Memory(
        server_mib=memory_mib(servers, peak=True), writer_mib=memory_mib(writers, peak=True)
    )
