"""Many adapters in one batch, in one run on one machine: openworks, llama.cpp, PEFT.

    python -m benchmarks.adapters                  # a 1.1B shape; an hour on two cores
    python -m benchmarks.adapters --preset tiny    # a look at whether it runs

Weights are random: speed is real, text is not. Each contestant is a process that runs alone, in
interleaved rounds; figures are medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch

from benchmarks import machine
from benchmarks.adapters.rounds import Figures, Round
from benchmarks.hf_folder import write_random_adapter, write_random_folder
from benchmarks.random_model import PRESETS, write_random_llama

NUM_ADAPTERS = 100
RANK = 8
STREAMS = (1, 8, 16, 32)

QUALITIES = (
    ("torch", "float32"),
    ("torch", "bfloat16"),
    ("torch", "int8"),
    ("openvino", "int8"),
    ("openvino", "int4"),
)

Results: TypeAlias = Mapping[tuple[int, bool], Figures]
"""By number of streams, and by whether each had an adapter of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """How a contestant is started."""

    label: str
    name: str
    make: Callable[[], Path]
    """Writes the model, unless it is there."""
    precision: str
    with_adapters: bool
    most_streams: int = 1024


@dataclass(frozen=True, slots=True)
class Bench:
    """What all rounds have in common."""

    adapters: Path
    streams: Sequence[int]
    rounds: int
    tokens: int

    @contextmanager
    def started(self, entrant: Entrant) -> Iterator[tuple[subprocess.Popen[str], str]]:
        """Start a contestant; yield it with what it says of itself."""
        slots = str(max(self.streams))
        command = [
            *(sys.executable, "-m", "benchmarks.adapters.contestant", entrant.name),
            *(str(entrant.make()), "--adapters", str(self.adapters), "--slots", slots),
            *("--count", slots if entrant.with_adapters else "0"),
            *("--precision", entrant.precision),
        ]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())["description"]
            process.kill()

    def measure(self, entrant: Entrant) -> tuple[str, float, Results]:
        """Return what a contestant is, its peak memory in MiB, and its figures."""
        found: dict[tuple[int, bool], list[Figures]] = {}
        with self.started(entrant) as (process, description):
            for number in range(self.rounds + 1):
                for streams, adapted in self._kinds(entrant):
                    names = tuple(range(streams)) if adapted else (None,) * streams
                    round_ = Round(streams=streams, tokens=self.tokens, adapters=names, seed=number)
                    figures = run(process, round_)
                    if number:  # the first is the warm-up
                        found.setdefault((streams, adapted), []).append(figures)
            memory_mib = machine.peak_memory_mib(machine.family(process.pid))
        return description, memory_mib, {key: _median(each) for key, each in found.items()}

    def _kinds(self, entrant: Entrant) -> Iterator[tuple[int, bool]]:
        for streams in self.streams:
            if streams <= entrant.most_streams:
                yield streams, False
                if entrant.with_adapters:
                    yield streams, True


def run(process: subprocess.Popen[str], round_: Round) -> Figures:
    """Run one round of a contestant."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(asdict(round_)) + "\n")
    process.stdin.flush()
    return Figures(**json.loads(process.stdout.readline()))


def _median(each: Sequence[Figures]) -> Figures:
    return sorted(each, key=lambda figures: figures.tokens_per_s)[len(each) // 2]


def read_bandwidth_gbs() -> float:
    """What all threads together read from memory, the best of ten passes."""
    data = torch.ones(1 << 28, dtype=torch.float32)  # 1 GiB, past every cache
    best_s = float("inf")
    for _ in range(10):
        started_s = time.perf_counter()
        data.sum()
        best_s = min(best_s, time.perf_counter() - started_s)
    return data.nbytes / best_s / 1e9


def entrants(folder: Path, preset: str) -> list[Entrant]:
    """Say who takes part."""
    shape = PRESETS[preset]

    def safetensors() -> Path:
        path = folder / f"llama-{preset}"
        if not (path / "config.json").exists():
            write_random_folder(path, shape)
        return path

    def gguf(quantization: str) -> Path:
        path = folder / f"llama-{preset}-{quantization}.gguf"
        if not path.exists():
            write_random_llama(path, shape, quantization=quantization)
        return path

    ours = [
        Entrant(
            label=f"openworks, {executor} {precision}",
            name=executor,
            make=safetensors,
            precision=precision,
            with_adapters=True,
        )
        for executor, precision in (
            ("openvino", "int8"),
            ("torch", "int8"),
            ("torch", "bfloat16"),
        )
    ]
    theirs = [
        Entrant(
            label=f"xllamacpp, {quantization}",
            name="llamacpp",
            make=partial(gguf, quantization),
            precision=quantization,
            with_adapters=quantization == "Q8_0",
        )
        for quantization in ("Q4_0", "Q8_0")
    ]
    peft = Entrant(
        label="PEFT, bfloat16",
        name="peft",
        make=safetensors,
        precision="bfloat16",
        with_adapters=True,
        most_streams=8,
    )
    return [*ours, *theirs, peft]


def adapters_of(folder: Path, preset: str) -> Path:
    """Write the adapters: rank 8 on all seven linears, bfloat16."""
    adapters = folder / f"adapters-{preset}"
    for index in range(NUM_ADAPTERS):
        if not (adapters / f"{index:03d}" / "adapter_config.json").exists():
            write_random_adapter(
                adapters / f"{index:03d}",
                PRESETS[preset],
                rank=RANK,
                seed=index,
                dtype=torch.bfloat16,
            )
    return adapters


def table(results: Mapping[str, Results], streams: Sequence[int]) -> Iterator[str]:
    """The lines of the throughput table."""
    heads = [f"{count} base" for count in streams] + [f"{count} adapters" for count in streams]
    yield "| tokens/s while all decode | " + " | ".join(heads) + " |"
    yield "|---|" + "---:|" * len(heads)
    for label, figures in results.items():
        cells = [
            f"{figures[key].tokens_per_s:.1f}" if key in figures else "–"  # noqa: RUF001 # a dash
            for key in [(count, adapted) for adapted in (False, True) for count in streams]
        ]
        yield f"| {label} | " + " | ".join(cells) + " |"


def ratios(results: Mapping[str, Results]) -> Iterator[str]:
    """What was aimed at, beside what came out."""

    def speed(label: str, streams: int, *, adapted: bool = False) -> float:
        return results[label][streams, adapted].tokens_per_s

    def best_peer(streams: int) -> float:
        return max(speed(label, streams) for label in ("xllamacpp, Q4_0", "xllamacpp, Q8_0"))

    ours = "openworks, openvino int8"  # what auto takes
    aims = [
        ("8 streams, to xllamacpp's best", speed(ours, 8) / best_peer(8), 2.4),
        ("32 streams, to xllamacpp's best", speed(ours, 32) / best_peer(32), 3.0),
        ("1 stream, to xllamacpp Q4_0", speed(ours, 1) / speed("xllamacpp, Q4_0", 1), 0.75),
        ("8 adapters, to none", speed(ours, 8, adapted=True) / speed(ours, 8), 0.75),
        ("32 adapters, to none", speed(ours, 32, adapted=True) / speed(ours, 32), 0.8),
        (
            "8 adapters, to xllamacpp Q8_0 with 8",
            speed(ours, 8, adapted=True) / speed("xllamacpp, Q8_0", 8, adapted=True),
            1.0,
        ),
        (
            "8 adapters, to PEFT with 8",
            speed(ours, 8, adapted=True) / speed("PEFT, bfloat16", 8, adapted=True),
            1.0,
        ),
    ]
    yield "| ratio | reached | aim |"
    yield "|---|---:|---:|"
    for what, reached, aim in aims:
        yield f"| {what} | {reached:.2f} | {aim:g} |"


def script(module: str, *arguments: str) -> dict[str, dict[str, float]]:
    """Run a part of the benchmark that writes one JSON object."""
    command = [sys.executable, "-m", f"benchmarks.adapters.{module}", *arguments]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, dict[str, float]] = json.loads(answer.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure everything and print the report as Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", choices=sorted(PRESETS), default="1.1b")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--folder", type=Path, default=Path("build/bench"))
    parser.add_argument("--streams", type=int, nargs="+", default=STREAMS)
    parser.add_argument("--only", help="contestants whose label holds this text")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    adapters = adapters_of(options.folder, options.preset)
    chosen = [
        each
        for each in entrants(options.folder, options.preset)
        if options.only is None or options.only in each.label
    ]

    print(f"`python -m benchmarks.adapters {' '.join(sys.argv[1:])}`".replace(" `", "`"))
    print(f"\n{machine.describe()}; memory is read at {read_bandwidth_gbs():.1f} GB/s\n")
    bench = Bench(adapters, options.streams, options.rounds, options.tokens)
    results: dict[str, Results] = {}
    for entrant in chosen:
        description, memory_mib, results[entrant.label] = bench.measure(entrant)
        print(f"- {entrant.label}: {description}, peak {memory_mib:.0f} MiB", flush=True)
    print("\n" + "\n".join(table(results, options.streams)) + "\n", flush=True)
    if options.only is not None:
        return
    print("\n".join(ratios(results)) + "\n", flush=True)
    model = options.folder / f"llama-{options.preset}"
    traffic = script("traffic", str(model), str(adapters), "--precision", "int8")
    for part, figures in traffic.items():
        print(f"- {part}: " + ", ".join(f"{key} {value:.2f}" for key, value in figures.items()))
    for executor, precision in QUALITIES:
        found = script("quality", executor, precision)
        print(f"- perplexity of tiny-chat, {executor} {precision}: {found['perplexity']:.4f}")


if __name__ == "__main__":
    main()
