"""`openworks usage`: what the ledger of calls adds up to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from openworks.app.cli.options import (
    ConfigOption,
    DataDirOption,
    JsonOption,
    make_folder,
    read_settings,
)
from openworks.app.cli.terminal import print_json, print_table, stdout, table
from openworks.core.clock import SystemClock
from openworks.ports.calls import UsageGroup, UsageRow

if TYPE_CHECKING:
    from openworks.app.settings import Settings
    from openworks.core.json import JsonObject

_NUMBERS = ("CALLS", "ERRORS", "PROMPT", "CACHED", "COMPLETION", "COST", "FIRST TOKEN", "DURATION")


def usage(
    by: Annotated[UsageGroup, typer.Option(help="What to add up by.")] = "model",
    since: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN",
            help="Back 24h or 7d, or from a date such as 2026-01-01 (UTC).  \\[default: all]",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Add up calls, tokens and costs."""
    from openworks.app.cli.durations import parse_past

    since_s = None if since is None else parse_past(since, SystemClock().now_s())
    settings = read_settings(config, data_dir)
    make_folder(settings)
    rows = asyncio.run(_rows(settings, by, since_s))
    if as_json:
        print_json([_fields(by, row) for row in rows])
    elif not rows:
        stdout().print("No calls yet." if since is None else f"No calls since {since}.")
    else:
        _print(by, rows)


async def _rows(settings: Settings, by: UsageGroup, since_s: float | None) -> Sequence[UsageRow]:
    from openworks.app.state import open_state

    async with open_state(settings) as state:
        return await state.records.summarise(group=by, since_s=since_s)


def _print(by: UsageGroup, rows: Sequence[UsageRow]) -> None:
    made = table(by.upper(), *_NUMBERS, right=_NUMBERS)
    for row in rows:
        made.add_row(
            row.group or "-",
            *_counts([row]),
            "-" if row.mean_first_token_ms is None else f"{row.mean_first_token_ms:,.0f} ms",
            f"{row.mean_duration_ms:,.0f} ms",
        )
    if len(rows) > 1:
        made.add_row("total", *_counts(rows), style="bold")
    print_table(made)


def _counts(rows: Sequence[UsageRow]) -> list[str]:
    numbers = (
        sum(row.calls for row in rows),
        sum(row.errors for row in rows),
        sum(row.usage.prompt_tokens for row in rows),
        sum(row.usage.cached_tokens for row in rows),
        sum(row.usage.completion_tokens for row in rows),
    )
    return [*(f"{number:,}" for number in numbers), f"${sum(row.cost_usd for row in rows):.4f}"]


def _fields(by: UsageGroup, row: UsageRow) -> JsonObject:
    return {
        by: row.group,
        "calls": row.calls,
        "errors": row.errors,
        "prompt_tokens": row.usage.prompt_tokens,
        "cached_tokens": row.usage.cached_tokens,
        "completion_tokens": row.usage.completion_tokens,
        "reasoning_tokens": row.usage.reasoning_tokens,
        "cost_usd": row.cost_usd,
        "mean_first_token_ms": row.mean_first_token_ms,
        "mean_duration_ms": row.mean_duration_ms,
    }
