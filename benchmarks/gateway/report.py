"""Results as Markdown: figures, ratios within rounds, goals."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

from benchmarks.gateway.results import FaultPart, Head, LoadPart, Results, Round, SoakPart

_OURS = "openworks"
_PEERS = ("litellm", "portkey", "nginx")


def render(results: Results) -> str:
    """Return the whole page."""
    parts = ["# The AI Gateway under load and under faults", *results.notes]
    if results.load is not None:
        parts += [_head("Load", results.load.head), *_load(results.load)]
    if results.faults is not None:
        parts += [_head("Faults", results.faults.head), *_faults(results.faults)]
    if results.soak is not None:
        parts += [_head("Soak", results.soak.head), *_soak(results.soak)]
    return "\n\n".join(parts) + "\n"


def _head(title: str, head: Head) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in head.versions.items())
    lines = [f"## {title}", "", "```", head.machine, head.command, versions, "```"]
    lines += [f"\nLeft out: {name} (get it: {how})" for name, how in head.missing.items()]
    return "\n".join(lines)


_Pick = Callable[[Round], float | None]


def _figure(phase: str, name: str) -> _Pick:
    def pick(one: Round) -> float | None:
        figures = one.phases.get(phase)
        value: float | None = None if figures is None else getattr(figures, name)
        return value

    return pick


def _load(part: LoadPart) -> Iterator[str]:
    names = list(dict.fromkeys(one.target for one in part.rounds))
    yield (
        "Medians over the rounds. c1, c64: 1 and 64 connections, each request a body of its own. "
        "Streams: 128 at once, 66 events 5 ms apart; the first byte is that of further streams "
        "meanwhile. Most streams: 512 at once. Added: over the bare upstream. Core: the share of "
        "its core that a target used; where it is well under 1, the load generator was the limit. "
        "Others: the most that processes apart from all this used of a core in any phase."
    )
    yield _table(
        ("", "req/s", "core", "CPU µs/req", "added p50/p99 ms, c1", "p50/p99 ms, c64",
         "added p50/p99 ms, c64"),
        [_throughput(part, name) for name in names],
    )  # fmt: skip
    yield _table(
        ("", "most streams/s", "core", "CPU µs/event", "first byte p50/p99 ms", "peak MiB",
         "of it log writer", "failed", "others"),
        [_streams(part, name) for name in names],
    )  # fmt: skip
    many = [name for name in names if _values(part, name, _figure("2,000 streams", "per_s"))]
    if many:
        yield "2,000 streams at once, events 150 ms apart (at most 202 end each second):"
        yield _table(
            ("", "streams/s", "core", "first byte p50/p99 ms", "timed", "failed"),
            [_many(part, name) for name in many],
        )
    yield _ratios(part)
    yield _logged(part)
    yield from _goals(part)


def _throughput(part: LoadPart, name: str) -> list[str]:
    def median(phase: str, figure: str) -> str:
        return _number(_median(part, name, _figure(phase, figure)))

    return [
        name,
        median("c64", "per_s"),
        median("c64", "core_share"),
        median("c64", "cpu_us"),
        f"{_number(_added(part, name, 'c1', 'p50_ms'))} / "
        f"{_number(_added(part, name, 'c1', 'p99_ms'))}",
        f"{median('c64', 'p50_ms')} / {median('c64', 'p99_ms')}",
        f"{_number(_added(part, name, 'c64', 'p50_ms'))} / "
        f"{_number(_added(part, name, 'c64', 'p99_ms'))}",
    ]


def _streams(part: LoadPart, name: str) -> list[str]:
    def median(phase: str, figure: str) -> str:
        return _number(_median(part, name, _figure(phase, figure)))

    phases = [
        figures for one in part.rounds if one.target == name for figures in one.phases.values()
    ]
    return [
        name,
        median("most streams", "per_s"),
        median("most streams", "core_share"),
        median("streams", "cpu_us"),
        f"{median('streams', 'first_byte_p50_ms')} / {median('streams', 'first_byte_p99_ms')}",
        _number(_median(part, name, lambda one: one.memory.total_mib)),
        _number(_median(part, name, lambda one: one.memory.writer_mib)),
        f"{sum(figures.errors + figures.bad for figures in phases)}",
        f"{max((figures.others_share for figures in phases), default=0):.0%}",
    ]


def _many(part: LoadPart, name: str) -> list[str]:
    def median(figure: str) -> str:
        return _number(_median(part, name, _figure("2,000 streams", figure)))

    failed = sum(
        one.phases["2,000 streams"].errors + one.phases["2,000 streams"].bad
        for one in part.rounds
        if one.target == name and "2,000 streams" in one.phases
    )
    first = f"{median('first_byte_p50_ms')} / {median('first_byte_p99_ms')}"
    return [name, median("per_s"), median("core_share"), first, median("probes"), str(failed)]


def _ratios(part: LoadPart) -> str:
    rows = []
    for peer in _PEERS:
        found = [
            _ratio(part, peer, _figure(phase, figure))
            for phase, figure in (("c64", "per_s"), ("most streams", "per_s"), ("c64", "cpu_us"))
        ]
        if any(found):
            rows.append([peer, *(_number(ratio) for ratio in found)])
    return (
        "openworks against each, as medians of the ratios within rounds:\n\n"
        + _table(("", "req/s, times", "streams/s, times", "CPU per request, times"), rows)
    )  # fmt: skip


def _logged(part: LoadPart) -> str:
    lines = []
    for one in part.rounds:
        if one.logged is not None and one.target != "openworks, no logs":
            share = one.logged.calls / max(one.asked, 1)
            lines.append(
                f"- {one.target}, round {one.number}: {one.logged.calls:,} "
                f"of at least {one.asked:,} calls ({share:.2%}), {one.logged.cost_usd:,.4f} USD"
            )
    return "Calls in the database after the end of the server:\n\n" + "\n".join(lines)


def _goals(part: LoadPart) -> Iterator[str]:
    def ours(phase: str, figure: str) -> float | None:
        return _median(part, _OURS, _figure(phase, figure))

    streams_us, memory = (
        ours("streams", "cpu_us"),
        _median(part, _OURS, lambda one: one.memory.total_mib),
    )
    hits = _median(part, "openworks, cache hits", _figure("c64", "per_s"))
    many_ms = ours("2,000 streams", "first_byte_p99_ms")
    rows = [
        _goal("requests per second on one core, logs on", ours("c64", "per_s"), 12_000, least=True),
        _goal("times litellm", _ratio(part, "litellm", _figure("c64", "per_s")), 100, least=True),
        _goal("times Portkey", _ratio(part, "portkey", _figure("c64", "per_s")), 12, least=True),
        _goal("times nginx", _ratio(part, "nginx", _figure("c64", "per_s")), 0.25, least=True),
        _goal("requests per second from the cache", hits, 25_000, least=True),
        _goal("added p50 ms, 1 connection", _added(part, _OURS, "c1", "p50_ms"), 0.3),
        _goal("added p99 ms, 1 connection", _added(part, _OURS, "c1", "p99_ms"), 2),
        _goal("µs of CPU per event", streams_us, 40),
        _goal("first byte p99 ms, 2,000 streams", many_ms, 50),
        _goal("peak MiB", memory, 150),
    ]
    yield _table(("goal", "wanted", "measured", ""), rows)


def _goal(name: str, value: float | None, bound: float, *, least: bool = False) -> list[str]:
    if value is None:
        return [name, f"{bound:,}", "not measured", ""]
    is_met = value >= bound if least else value <= bound
    wanted = f"{'≥' if least else '≤'} {bound:,}"
    return [name, wanted, _number(value), "met" if is_met else "missed"]


_VERDICTS = {"right": "right", "wrong": "**wrong**", "not its job": "-"}


def _faults(part: FaultPart) -> Iterator[str]:
    names = list(part.cases)
    cases = part.cases[names[0]]
    rows = []
    for place, case in enumerate(cases):
        seen = [part.cases[name][place] for name in names]
        rows.append([case.name, case.expected, *(_VERDICTS[one.verdict] for one in seen)])
    right = [sum(case.verdict == "right" for case in part.cases[name]) for name in names]
    theirs = [sum(case.verdict != "not its job" for case in part.cases[name]) for name in names]
    rows.append(["right", "", *(f"{a} of {b}" for a, b in zip(right, theirs, strict=True))])
    yield _table(("case", "expected", *names), rows)
    wrong = [
        f"- {name}, {case.name}: `{case.seen.replace('`', ' ')}`"
        for name in names
        for case in part.cases[name]
        if case.verdict == "wrong"
    ]
    if wrong:
        yield "What was seen where it is wrong:"
        yield "\n".join(wrong)


def _soak(part: SoakPart) -> Iterator[str]:
    soak = part.soak
    yield (
        f"{part.target}, {soak.samples[-1].at_s / 60:.0f} minutes: {soak.plain.requests:,} plain "
        f"calls on 32 connections ({soak.plain.per_s:,.0f}/s), {soak.streams.requests:,} streams "
        f"on 64 ({soak.streams.per_s:,.0f}/s), {soak.left:,} streams left by their clients, "
        f"{soak.faults:,} calls broken by the provider; failed: "
        f"{soak.plain.errors + soak.plain.bad + soak.streams.errors + soak.streams.bad}. "
        f"Peak {soak.peak_mib:.0f} MiB; after the first quarter, memory grew by "
        f"{soak.growth_mib_per_min:+.2f} MiB a minute."
    )
    every = max(1, len(soak.samples) // 20)
    yield _table(
        ("second", "server MiB", "log writer MiB"),
        [
            [f"{one.at_s:.0f}", f"{one.server_mib:.0f}", f"{one.writer_mib:.0f}"]
            for one in soak.samples[::every]
        ],
    )


def _values(part: LoadPart, name: str, pick: _Pick) -> dict[int, float]:
    """Return a target's figure by round."""
    return {
        one.number: value
        for one in part.rounds
        if one.target == name and (value := pick(one)) is not None
    }


def _median(part: LoadPart, name: str, pick: _Pick) -> float | None:
    values = _values(part, name, pick)
    return statistics.median(values.values()) if values else None


def _added(part: LoadPart, name: str, phase: str, figure: str) -> float | None:
    """Return how much later than the bare upstream a target answers, within rounds."""
    pick = _figure(phase, figure)
    theirs, bare = _values(part, name, pick), _values(part, "direct", pick)
    added = [theirs[number] - bare[number] for number in theirs.keys() & bare.keys()]
    return statistics.median(added) if added else None


def _ratio(part: LoadPart, peer: str, pick: _Pick) -> float | None:
    ours, theirs = _values(part, _OURS, pick), _values(part, peer, pick)
    ratios = [
        ours[number] / theirs[number] for number in ours.keys() & theirs.keys() if theirs[number]
    ]
    return statistics.median(ratios) if ratios else None


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _table(titles: tuple[str, ...], rows: list[list[str]]) -> str:
    rule = ["---", *["--:"] * (len(titles) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (list(titles), rule, *rows))
