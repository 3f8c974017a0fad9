"""What runs leave: kept as JSON, each part with the machine and the command that made it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from benchmarks.gateway.faults import Case
from benchmarks.gateway.openworks import Logged
from benchmarks.gateway.phases import Figures, Memory
from benchmarks.gateway.soak import Soak


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """How a part was made."""

    machine: str
    command: str
    versions: dict[str, str]
    missing: dict[str, str]
    """Targets that were left out, and how to get them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One target, started once."""

    target: str
    number: int
    phases: dict[str, Figures]
    memory: Memory
    asked: int
    """Calls that it should have logged."""
    logged: Logged | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPart:
    """The load phases."""

    head: Head
    rounds: list[Round]


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultPart:
    """The fault cases, by target."""

    head: Head
    cases: dict[str, list[Case]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakPart:
    """The soak."""

    head: Head
    target: str
    soak: Soak


@dataclass(slots=True, kw_only=True)
class Results:
    """The latest of each part."""

    load: LoadPart | None = None
    faults: FaultPart | None = None
    soak: SoakPart | None = None
    notes: list[str] = field(default_factory=list)
    """What a reader must know beside; written by hand, and kept."""


def read_results(path: Path) -> Results:
    """Return what a file holds; nothing when there is none."""
    if not path.exists():
        return Results()
    return msgspec.json.decode(path.read_bytes(), type=Results)


def write_results(path: Path, results: Results) -> None:
    """Write them for people and programs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
