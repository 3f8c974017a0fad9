"""Adds a batch of calls up, by minute, hour and day, for `call_rollups` and `call_sums`."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeAlias

from openworks.ports.calls import CallRecord
from openworks.storage.logbook.shapes import (
    BOUNDS_MS,
    HOUR_S,
    LEVELS_S,
    MINUTE_S,
    NUM_BUCKETS,
    SUMS,
)

Key: TypeAlias = tuple[Any, ...]
"""Account, minute, gateway, provider, model, key, route, status, cached, stream; for a rollup with
the family before them."""

_NUM_SUMS: Final = len(SUMS)
_ROLLUP_WIDTH: Final = _NUM_SUMS + 2 * NUM_BUCKETS
_FIRST_TOKEN_AT: Final = _NUM_SUMS + NUM_BUCKETS
_MAX_NAME: Final = 200
_MAX_MODELS: Final = 500
_MAX_SCOPES: Final = 1000

OTHER_MODELS: Final = "(other)"
"""Stands for the models beyond the bound: callers choose the names, and may make up any number."""


class ModelNames:
    """Bounds how many models one gateway can bring into the sums of an hour: 500, then others."""

    def __init__(self) -> None:
        self._hour_s = 0
        self._seen: dict[tuple[str, str], set[str]] = {}

    def bounded(self, record: CallRecord) -> str:
        """Return the name under which a call's model is added up."""
        hour_s = int(record.created_at_s) // HOUR_S
        if hour_s > self._hour_s or len(self._seen) > _MAX_SCOPES:
            self._hour_s = hour_s
            self._seen.clear()
        name = record.model[:_MAX_NAME]
        seen = self._seen.get((record.account_id, record.gateway_id))
        if seen is None:
            seen = self._seen[record.account_id, record.gateway_id] = set()
        if name not in seen:
            if len(seen) >= _MAX_MODELS:
                return OTHER_MODELS
            seen.add(name)
        return name


class Totals:
    """The sums of one batch."""

    def __init__(self, names: ModelNames) -> None:
        self._names = names
        self._cells: dict[Key, list[Any]] = {}

    def add(self, record: CallRecord) -> None:
        """Count one call."""
        key = (
            record.account_id,
            int(record.created_at_s) // MINUTE_S * MINUTE_S,
            record.gateway_id,
            record.provider,
            self._names.bounded(record),
            record.key_id or "",
            record.route[:_MAX_NAME],
            record.status,
            record.cached,
            record.stream,
        )
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = [0] * _ROLLUP_WIDTH
        usage, first_ms = record.usage, record.first_token_ms
        cell[0] += 1
        if record.outcome == "error":
            cell[1] += 1
        if record.cached:
            cell[2] += 1
        cell[3] += usage.prompt_tokens
        cell[4] += usage.completion_tokens
        cell[5] += usage.cached_tokens
        cell[6] += usage.reasoning_tokens
        cell[7] += record.cost_usd
        cell[8] += record.duration_ms
        cell[_NUM_SUMS + bisect_left(BOUNDS_MS, record.duration_ms)] += 1
        if first_ms is not None:
            cell[9] += 1
            cell[10] += first_ms
            cell[_FIRST_TOKEN_AT + bisect_left(BOUNDS_MS, first_ms)] += 1

    def rollup_rows(self) -> Iterator[list[Any]]:
        """Yield rows for `ROLLUP_KEY` and `ROLLUP_VALUES`."""
        rollups = self._rollups()
        for level_s in LEVELS_S:
            for key, cell in _at_level(rollups.items(), 2, level_s):
                yield [key[0], level_s, *key[1:], *cell]

    def _rollups(self) -> dict[Key, list[Any]]:
        """Add the cells up by family: a batch has far fewer of them than calls."""
        rollups: dict[Key, list[Any]] = {}
        for key, cell in self._cells.items():
            account, minute_s, gateway, provider, model, key_id, route, status, cached, stream = key
            for name in (
                ("route", account, minute_s, gateway, "", "", "", route, 0, False, False),
                ("model", account, minute_s, gateway, provider, model, "", "", 0, False, False),
                ("key", account, minute_s, gateway, "", "", key_id, "", 0, False, False),
                ("status", account, minute_s, gateway, "", "", "", "", status, cached, stream),
            ):
                before = rollups.get(name)
                rollups[name] = cell if before is None else _added(before, cell)
        return rollups

    def sum_rows(self) -> Iterator[list[Any]]:
        """Yield rows for `SUMS_KEY` and `SUMS`."""
        for level_s in LEVELS_S:
            for key, cell in _at_level(self._cells.items(), 1, level_s):
                yield [level_s, *key, *cell[:_NUM_SUMS]]


def _added(one: list[Any], other: list[Any]) -> list[Any]:
    return [left + right for left, right in zip(one, other, strict=True)]


def _at_level(
    cells: Iterable[tuple[Key, list[Any]]], time_at: int, level_s: int
) -> Iterable[tuple[Key, list[Any]]]:
    if level_s == MINUTE_S:
        return cells
    merged: dict[Key, list[Any]] = {}
    for key, cell in cells:
        bucket_s = key[time_at] // level_s * level_s
        longer = (*key[:time_at], bucket_s, *key[time_at + 1 :])
        before = merged.get(longer)
        if before is None:
            merged[longer] = cell  # mostly the batch is of one minute, and nothing to merge
        else:
            merged[longer] = _added(before, cell)
    return merged.items()
