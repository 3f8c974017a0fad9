"""The AI Gateway under load, under faults and over time, beside litellm, Portkey and nginx.

    python -m benchmarks.gateway install     # the peers, into build/peers; nginx and wrk: apt-get
    python -m benchmarks.gateway load        # make bench-gateway runs load and faults
    python -m benchmarks.gateway faults
    python -m benchmarks.gateway soak        # make soak

A target runs alone, with its children, on core 0; the upstream, wrk and this process run on core 1.
Targets are interleaved in rounds, and compared within them. A phase in which other processes used
more than 8 % of a core is measured again. Each part replaces its former self in the results.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import machine
from benchmarks.gateway import openworks, phases, targets
from benchmarks.gateway.faults import Case, run_faults
from benchmarks.gateway.processes import LOAD_CORE, measured
from benchmarks.gateway.report import render
from benchmarks.gateway.results import (
    FaultPart,
    Head,
    LoadPart,
    Results,
    Round,
    SoakPart,
    read_results,
    write_results,
)
from benchmarks.gateway.soak import run_soak
from benchmarks.gateway.targets import NotInstalledError, Places, open_target
from benchmarks.gateway.upstream import Upstream, open_upstream

_OPEN_FILES = 32_768


def load(options: argparse.Namespace, places: Places, results: Results) -> None:
    """Measure every target in every phase."""
    patience = phases.Patience(
        attempts=options.attempts, quiet_s=options.quiet, duration_s=options.duration
    )
    rounds: list[Round] = []
    missing: dict[str, str] = {}
    for number in range(1, options.rounds + 1):
        # Every other round goes backwards, so that nobody always follows the same one.
        for name in options.only[:: 1 if number % 2 else -1]:
            kinds = [*phases.USUAL, *(["2,000 streams"] if name in options.many else [])]
            try:
                rounds.append(_round(name, number, kinds, places, patience))
            except NotInstalledError as exc:
                missing[name] = str(exc)
            except RuntimeError as exc:
                missing[name] = f"it failed: {exc}"
                print(f"# {name}: {exc}", file=sys.stderr)
    results.load = LoadPart(head=_head(options, missing), rounds=rounds)


def _round(
    name: str, number: int, kinds: list[str], places: Places, patience: phases.Patience
) -> Round:
    upstream = places.upstream
    done: dict[str, phases.Figures] = {}
    before = upstream.stats()["requests"]
    with open_target(name, places) as target:
        warmed = phases.warm_up(target)
        for kind in kinds:
            figures = phases.run_phase(target, upstream, phases.KINDS[kind], patience)
            done[kind] = figures
            print(f"# round {number}, {name}, {kind}: {_shown(figures)}", flush=True)
        memory = phases.peak_memory(target)
    asked = upstream.stats()["requests"] - before
    if target.repeats:
        asked = warmed + sum(figures.requests for figures in done.values())
    return Round(
        target=name,
        number=number,
        phases=done,
        memory=memory,
        asked=asked,
        logged=None if target.data is None else openworks.read_logged(target.data),
    )


def _shown(figures: phases.Figures) -> str:
    first = figures.first_byte_p99_ms
    return (
        f"{figures.per_s:,.1f}/s, p50 {figures.p50_ms:.2f} p99 {figures.p99_ms:.2f} ms, "
        f"core {figures.core_share:.2f}, {figures.cpu_us:.1f} µs"
        + ("" if first is None else f", first byte p99 {first:.1f} ms")
        + ("" if figures.errors + figures.bad == 0 else f", {figures.errors} broken")
        + ("" if figures.bad == 0 else f", {figures.bad} bad")
        + (f", DISTURBED ({figures.others_share:.2f})" if figures.is_disturbed else "")
    )


def faults(options: argparse.Namespace, places: Places, results: Results) -> None:
    """Run the fault cases against every target but the bare upstream."""
    cases: dict[str, list[Case]] = {}
    missing: dict[str, str] = {}
    for name in options.only:
        if name in ("direct", "openworks, cache hits"):
            continue
        try:
            with open_target(name, places) as target:
                phases.warm_up(target)
                cases[name] = []
                for case in run_faults(target.address, places.upstream, target.not_its_job):
                    cases[name].append(case)
                    print(f"# {name}, {case.name}: {case.verdict}: {case.seen}", flush=True)
        except NotInstalledError as exc:
            missing[name] = str(exc)
    results.faults = FaultPart(head=_head(options, missing), cases=cases)


def soak(options: argparse.Namespace, places: Places, results: Results) -> None:
    """Load openworks for ten minutes."""
    name = "openworks, DLP"
    with open_target(name, places) as target:
        phases.warm_up(target)
        with measured(target.pid, places.upstream.pid) as usage:
            found = run_soak(target, duration_s=options.minutes * 60)
    print(f"# peak {found.peak_mib:.0f} MiB, others used {usage.others_share:.2f} of a core")
    results.soak = SoakPart(head=_head(options, {}), target=name, soak=found)


def _head(options: argparse.Namespace, missing: dict[str, str]) -> Head:
    return Head(
        machine=options.machine,
        command=" ".join(["python -m benchmarks.gateway", *sys.argv[1:]]),
        versions=targets.versions(options.peers),
        missing=missing,
    )


_PARTS = {"load": load, "faults": faults, "soak": soak}


@contextmanager
def _places(options: argparse.Namespace) -> Iterator[Places]:
    folder = Path(tempfile.mkdtemp(prefix="openworks-gateway-bench-"))
    try:
        with open_upstream(folder) as upstream:
            yield Places(
                upstream=upstream,
                folder=folder,
                peers=options.peers.absolute(),
                prepared=_prepared(options, folder, upstream),
            )
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


def _prepared(
    options: argparse.Namespace, folder: Path, upstream: Upstream
) -> openworks.Prepared | None:
    if not any(name.startswith("openworks") for name in options.only):
        return None
    return openworks.prepare(folder, upstream)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gateway", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("parts", nargs="+", choices=["install", *_PARTS])
    parser.add_argument("--only", help="targets, separated by semicolons; all but one otherwise")
    parser.add_argument(
        "--many", default="nginx;litellm;portkey;openworks", help="those that get 2,000 streams"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--duration", type=float, default=5, help="seconds for each phase")
    parser.add_argument("--attempts", type=int, default=6, help="for a disturbed phase, at most")
    parser.add_argument("--quiet", type=float, default=60, help="seconds to wait for quiet")
    parser.add_argument("--minutes", type=float, default=10, help="of the soak")
    parser.add_argument("--peers", type=Path, default=Path("build/peers"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/gateway.json"))
    parser.add_argument("--keep", action="store_true", help="leave databases and logs for a look")
    options = parser.parse_args()
    options.only = options.only.split(";") if options.only else list(targets.USUAL)
    options.many = options.many.split(";") if options.many else []
    unknown = [name for name in options.only if name not in targets.OPENERS]
    if unknown:
        parser.error(f"no target {unknown[0]!r}; there are: {'; '.join(targets.OPENERS)}")
    return options


def main() -> None:
    """Run the parts in order, and write down each when it is done."""
    options = _options()
    for tool in ("wrk", "taskset"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is not installed: apt-get install wrk util-linux")
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("Two cores are needed: one for the target, one for the load.")
    hardest = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = _OPEN_FILES if hardest == resource.RLIM_INFINITY else min(_OPEN_FILES, hardest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hardest))
    options.machine = machine.describe()
    os.sched_setaffinity(0, {LOAD_CORE})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    if "install" in options.parts:
        targets.install(options.peers)
    parts = [part for part in options.parts if part in _PARTS]
    if not parts:
        return
    with _places(options) as places:
        for part in parts:
            results = read_results(options.results)
            _PARTS[part](options, places, results)
            write_results(options.results, results)
            options.results.with_suffix(".md").write_text(render(results))
    print(options.results.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
