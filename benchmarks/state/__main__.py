"""Run a part of the benchmark of the stateful API, and print it as Markdown."""

from __future__ import annotations

import argparse
import asyncio
import sys

from benchmarks import machine
from benchmarks.state import faults, speed


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True, dest="command")
    commands.add_parser("speed", help="starts of runs, lists, many runs, many listeners")
    command = commands.add_parser("faults", help="kill servers, take databases away")
    command.add_argument("--kills", type=int, default=50)
    command.add_argument(
        "--only", choices=["kills", "pair", "gone", "locked", "full"], action="append"
    )
    options = parser.parse_args()
    print(f"`python -m benchmarks.state {' '.join(sys.argv[1:])}`\n")
    if options.command == "speed":
        speed.print_table(asyncio.run(speed.measure()))
        return
    print(f"{machine.describe()}\n")
    cases = {
        "kills": lambda: faults.kills(options.kills),
        "pair": lambda: faults.pair(max(2, options.kills // 5)),
        "gone": lambda: faults.gone(60.0),
        "locked": lambda: faults.locked(2),
        "full": lambda: faults.full(2),
    }
    failed = False
    for name in options.only or cases:
        outcome = asyncio.run(cases[name]())
        failed = failed or bool(outcome.found.faults)
        print("\n".join(outcome.lines()), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
