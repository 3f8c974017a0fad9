"""Ten minutes of everything at once, and the memory meanwhile."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from benchmarks.gateway.client import ask, read_until, send
from benchmarks.gateway.processes import command_of, memory_mib
from benchmarks.gateway.request import Address, chat_body, unrepeated
from benchmarks.gateway.targets import WRITER, Target
from benchmarks.gateway.wrk import Load, run_wrk

SAMPLE_EVERY_S = 5.0
_SETTLED_SHARE = 0.25
"""Of the time, in which caches and pools may still fill."""
_FAULTS = ("-x503", "-x429", "-k1", "-k10-c2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The memory of one moment."""

    at_s: float
    server_mib: float
    writer_mib: float
    """Of the process that writes logs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Soak:
    """What a soak showed."""

    samples: list[Sample]
    plain: Load
    streams: Load
    left: int
    """Streams that were left by their client."""
    faults: int
    """Calls that the provider broke."""
    peak_mib: float

    @property
    def growth_mib_per_min(self) -> float:
        """How fast memory grew once settled: the slope of a line through the samples."""
        settled = self.samples[int(len(self.samples) * _SETTLED_SHARE) :]
        if len(settled) < 3:
            return 0.0
        line = statistics.linear_regression(
            [sample.at_s / 60 for sample in settled],
            [sample.server_mib + sample.writer_mib for sample in settled],
        )
        return line.slope


def run_soak(target: Target, *, duration_s: float) -> Soak:
    """Load a target with plain calls, streams, clients that leave and providers that break."""
    loads: dict[str, Load] = {}
    counts = {"left": 0, "faults": 0}

    def load(name: str, connections: int, body: bytes) -> None:
        loads[name] = run_wrk(target.address, body, connections=connections, duration_s=duration_s)

    wrks = [
        threading.Thread(target=load, args=("plain", 32, chat_body())),
        threading.Thread(target=load, args=("streams", 64, chat_body(order="-c20", stream=True))),
    ]
    for wrk in wrks:
        wrk.start()
    with (
        _repeated(lambda: _leave(target.address, counts)),
        _repeated(lambda: _fail(target.address, counts)),
    ):
        samples = list(_samples(target, duration_s))
    for wrk in wrks:
        wrk.join()
    return Soak(
        samples=samples,
        plain=loads["plain"],
        streams=loads["streams"],
        left=counts["left"],
        faults=counts["faults"],
        peak_mib=memory_mib(target.gateway_pids(), peak=True),
    )


def _samples(target: Target, duration_s: float) -> Iterator[Sample]:
    started_s = time.monotonic()
    while (at_s := time.monotonic() - started_s) < duration_s:
        pids = target.gateway_pids()
        writers = [pid for pid in pids if WRITER in command_of(pid)]
        yield Sample(
            at_s=round(at_s, 1),
            server_mib=memory_mib([pid for pid in pids if pid not in writers], peak=False),
            writer_mib=memory_mib(writers, peak=False),
        )
        time.sleep(min(SAMPLE_EVERY_S, max(0.0, duration_s - at_s)))


@contextmanager
def _repeated(act: Callable[[], None]) -> Iterator[None]:
    """Do something ten times a second for as long as the block lasts."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(0.1):
            with suppress(OSError):  # a full queue of connections is part of the load
                act()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _leave(address: Address, counts: dict[str, int]) -> None:
    body = unrepeated(chat_body(order="-c20", stream=True))
    with send(address, body) as connection:
        read_until(connection, b"data:")
    counts["left"] += 1


def _fail(address: Address, counts: dict[str, int]) -> None:
    order = _FAULTS[counts["faults"] % len(_FAULTS)]
    ask(address, unrepeated(chat_body(order=order, stream="-c" in order)))
    counts["faults"] += 1
