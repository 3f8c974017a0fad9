"""`openworks doctor`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from openworks.app.cli.options import ConfigOption, DataDirOption, JsonOption
from openworks.app.cli.terminal import hide_logs, print_json, stdout

if TYPE_CHECKING:
    from rich.console import Console

    from openworks.app.cli.machine import Finding

_MARKS = {"ok": ("✓", "green"), "off": ("–", "yellow"), "bad": ("✗", "red")}  # noqa: RUF001 # en dash
_ASCII = {"ok": "+", "off": "-", "bad": "x"}
_NAME_WIDTH = 16


def doctor(
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A model to try, as `serve` takes it; repeatable. Nothing is fetched.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Say what works on this machine, and why the rest does not.

    The exit status is 1 only if serving is impossible.
    """
    from openworks.app.cli.checks import examine

    hide_logs()
    found: list[Finding] = []
    console = stdout()

    def report(finding: Finding) -> None:
        found.append(finding)
        if not as_json:
            _print(console, finding)

    asyncio.run(examine(report, config=config, data_dir=data_dir, models=model))
    fatal = [finding for finding in found if finding.is_fatal]
    if as_json:
        print_json(
            [
                {"name": f.name, "mark": f.mark, "reason": f.reason, "remedy": f.remedy}
                for f in found
            ]
        )
    elif fatal:
        console.print(f"\n[bold red]openworks cannot serve[/]: see {fatal[0].name} above.")
    else:
        console.print("\n[bold green]openworks can serve.[/]  Start it with: openworks serve")
    if fatal:
        raise typer.Exit(1)


def _print(console: Console, finding: Finding) -> None:
    from rich.padding import Padding
    from rich.text import Text

    can_draw = console.encoding.startswith("utf")
    mark, color = _MARKS[finding.mark]
    head = Text.assemble((mark if can_draw else _ASCII[finding.mark], color), " ")
    head.append(f"{finding.name:<{_NAME_WIDTH}}", "bold")
    remedy = Text(f"{'→' if can_draw else '>'} {finding.remedy}", "cyan")
    if not console.is_terminal:
        console.print(head, finding.reason, *([remedy] if finding.remedy else []), markup=False)
        return
    indent = len(head.plain)
    lines = Text(finding.reason).wrap(console, max(console.width - indent, 20))
    if finding.remedy:
        lines.extend(remedy.wrap(console, max(console.width - indent, 20)))
    console.print(head + lines[0])
    for line in lines[1:]:
        console.print(Padding(line, (0, 0, 0, indent)))
