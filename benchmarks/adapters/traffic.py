"""The batched engine while adapters come and go: first uses, and a hundred adapters by popularity.

    python -m benchmarks.adapters.traffic MODEL ADAPTERS

Runs in a process of its own and writes one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.adapters.contestant import OpenWorks
from benchmarks.adapters.rounds import Round, prompts

SLOTS = 32
NEIGHBOURS = 8
FIRST_USES = 10
CLIENTS = 32
REQUESTS_OF_EACH = 6
ANSWER_TOKENS = 24


def first_uses(engine: OpenWorks, cold: Sequence[int], warm: int) -> dict[str, float]:
    """Ask with adapters that were never used, beside streams that go on all the while.

    Returns:
        Milliseconds to the first token, cold and warm, and between the neighbours' tokens.
    """
    cold_ms, warm_ms = [], []
    quiet_ms: list[float] = []
    with _Neighbours(engine) as neighbours:
        for adapter in cold:
            warm_ms.append(_first_token_ms(engine, warm))
            cold_ms.append(_first_token_ms(engine, adapter))
    busy_ms = neighbours.gaps_ms
    with _Neighbours(engine) as neighbours:
        for _ in cold:  # the same arrivals without anything to load
            _first_token_ms(engine, warm)
            _first_token_ms(engine, warm)
    quiet_ms = neighbours.gaps_ms
    return {
        "cold_first_token_ms": statistics.median(cold_ms),
        "warm_first_token_ms": statistics.median(warm_ms),
        "neighbours_p99_loading_ms": _p99(busy_ms),
        "neighbours_p99_quiet_ms": _p99(quiet_ms),
    }


def popularity(engine: OpenWorks, count: int) -> dict[str, float]:
    """Serve clients that choose adapters by Zipf's law, and the same clients with one adapter."""
    weights = [1 / (place + 1) for place in range(count)]
    rng = random.Random(1)
    drawn = [rng.choices(range(count), weights, k=REQUESTS_OF_EACH) for _ in range(CLIENTS)]
    one = [[0] * REQUESTS_OF_EACH for _ in range(CLIENTS)]
    _tokens_per_s(engine, one)  # warm-up
    single, zipf = [], []
    for _ in range(2):
        single.append(_tokens_per_s(engine, one))
        zipf.append(_tokens_per_s(engine, drawn))
    return {
        "adapters": count,
        "different_adapters_asked_for": len({each for row in drawn for each in row}),
        "one_adapter_tokens_per_s": statistics.median(single),
        "zipf_tokens_per_s": statistics.median(zipf),
        "ratio": statistics.median(zipf) / statistics.median(single),
    }


class _Neighbours:
    """Streams of the base model that go on until told otherwise."""

    def __init__(self, engine: OpenWorks) -> None:
        self.gaps_ms: list[float] = []
        self._engine = engine
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._stream, args=(index,)) for index in range(NEIGHBOURS)
        ]

    def __enter__(self) -> _Neighbours:
        for thread in self._threads:
            thread.start()
        time.sleep(1.0)
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _stream(self, seed: int) -> None:
        while not self._over.is_set():
            last: list[float] = []

            def saw(last: list[float] = last) -> None:
                now_s = time.perf_counter()
                if last:
                    self.gaps_ms.append(1000 * (now_s - last[-1]))
                last.append(now_s)

            _ask(self._engine, None, seed, 400, saw)


def _first_token_ms(engine: OpenWorks, adapter: int) -> float:
    started_s = time.perf_counter()
    times: list[float] = []
    _ask(engine, adapter, adapter, 2, lambda: times.append(time.perf_counter() - started_s))
    return 1000 * times[0]


def _tokens_per_s(engine: OpenWorks, choices: Sequence[Sequence[int]]) -> float:
    counted = [0] * len(choices)

    def client(index: int) -> None:
        def saw() -> None:
            counted[index] += 1

        for number, adapter in enumerate(choices[index]):
            _ask(engine, adapter, 1000 * index + number, ANSWER_TOKENS, saw)

    threads = [threading.Thread(target=client, args=(index,)) for index in range(len(choices))]
    started_s = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counted) / (time.perf_counter() - started_s)


def _ask(
    engine: OpenWorks, adapter: int | None, seed: int, tokens: int, saw: Callable[[], None]
) -> None:
    (ids,) = prompts(Round(streams=1, tokens=tokens, adapters=(adapter,), seed=seed))
    engine.ask(ids, tokens, adapter, saw)


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


def main() -> None:
    """Measure both and write them as one object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("adapters", type=Path)
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    folders = sorted(options.adapters.iterdir())
    engine = OpenWorks(options.model, folders, precision=options.precision, slots=SLOTS)
    warm = len(folders) - 1
    _first_token_ms(engine, warm)
    cold = range(SLOTS - FIRST_USES - 1, SLOTS - 1)
    found = {
        "first_use": first_uses(engine, cold, warm),
        "popularity": popularity(engine, len(folders)),
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
