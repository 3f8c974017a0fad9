"""Figures over all calls, from the sums that the log writer keeps by minute, hour and day."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Select, String, Table, cast, func, literal, select

from openworks.core.clock import Clock
from openworks.core.errors import InvalidRequestError
from openworks.core.ids import AccountId
from openworks.ports.calls import Usage
from openworks.ports.logs import (
    AnalyticsQuery,
    Dimension,
    Figures,
    Metric,
    Quantiles,
    SpendKey,
    Spent,
)
from openworks.storage.logbook.shapes import (
    DURATION_BUCKETS,
    FAMILIES,
    FIRST_TOKEN_BUCKETS,
    HOUR_S,
    LEVELS_S,
    MINUTE_S,
    MINUTES_KEPT_S,
    NUM_BUCKETS,
    SUMS,
    quantiles_ms,
)
from openworks.storage.sql.database import Database
from openworks.storage.sql.tables import call_records, call_rollups, call_sums

_MAX_BUCKETS: Final = 10_000
_COLUMN_OF: Final[dict[Dimension, str]] = {"gateway": "gateway_id", "key": "key_id"}
_SHARES: Final = (0.5, 0.95, 0.99)
_METADATA: Final = "metadata."
_BUCKETS: Final[tuple[tuple[Metric, Sequence[str]], ...]] = (
    ("duration", DURATION_BUCKETS),
    ("first_token", FIRST_TOKEN_BUCKETS),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A part of a time range that is read from sums of one length."""

    level_s: int
    begin_s: int | None
    end_s: int | None


def spans(
    since_s: float | None, until_s: float | None, *, levels_s: Sequence[int], now_s: float
) -> Iterator[Span]:
    """Split a range into the fewest sums: fine ones at its ends, coarse ones in between.

    The ends are widened to whole minutes; to whole hours where sums by the minute are gone.
    """
    minutes_from_s = now_s - MINUTES_KEPT_S + HOUR_S
    begin_s = end_s = None
    if since_s is not None:
        length_s = MINUTE_S if since_s >= minutes_from_s else HOUR_S
        begin_s = int(since_s // length_s * length_s)
    if until_s is not None:
        length_s = MINUTE_S if until_s >= minutes_from_s else HOUR_S
        end_s = int(-(-until_s // length_s) * length_s)
    if begin_s is None or end_s is None or begin_s < end_s:
        yield from _split(begin_s, end_s, sorted(levels_s))


def _split(begin_s: int | None, end_s: int | None, levels_s: Sequence[int]) -> Iterator[Span]:
    level_s, *coarser = levels_s
    if not coarser:
        yield Span(level_s=level_s, begin_s=begin_s, end_s=end_s)
        return
    first_s = None if begin_s is None else -(-begin_s // coarser[0]) * coarser[0]
    last_s = None if end_s is None else end_s // coarser[0] * coarser[0]
    if first_s is not None and last_s is not None and first_s >= last_s:
        yield Span(level_s=level_s, begin_s=begin_s, end_s=end_s)
        return
    if first_s != begin_s:
        yield Span(level_s=level_s, begin_s=begin_s, end_s=first_s)
    yield from _split(first_s, last_s, coarser)
    if last_s != end_s:
        yield Span(level_s=level_s, begin_s=last_s, end_s=end_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Which sums answer a question, and what they can be asked for."""

    table: Table
    family: str | None

    def buckets(self, metrics: frozenset[Metric]) -> list[tuple[Metric, Sequence[str]]]:
        """The columns of the histograms that are asked for, where there are any."""
        if self.family is None:
            return []
        return [(metric, names) for metric, names in _BUCKETS if metric in metrics]

    def conditions(self, span: Span) -> list[ColumnElement[bool]]:
        """Which rows are of this family and span."""
        columns = self.table.c
        found = [columns.level_s == span.level_s]
        if self.family is not None:
            found.append(columns.family == self.family)
        if span.begin_s is not None:
            found.append(columns.bucket_s >= span.begin_s)
        if span.end_s is not None:
            found.append(columns.bucket_s < span.end_s)
        return found


def source_for(columns: set[str]) -> Source:
    """Choose the smallest sums that know these properties."""
    for family, known in FAMILIES.items():
        if columns <= {*known, "gateway_id", "account_id"}:
            return Source(table=call_rollups, family=family)
    return Source(table=call_sums, family=None)


async def add_up(
    database: Database,
    source: Source,
    parts: Sequence[Span],
    *,
    keys: Sequence[ColumnElement[Any]],
    where: Sequence[ColumnElement[bool]],
    values: Sequence[str],
) -> dict[tuple[Any, ...], list[Any]]:
    """Add `values` up over all parts, by the `keys`."""
    found: dict[tuple[Any, ...], list[Any]] = {}
    sums = [func.sum(source.table.c[name]) for name in values]
    width = len(keys)
    async with database.read() as connection:
        for part in parts:
            query = select(*keys, *sums).where(*source.conditions(part), *where)
            if keys:
                query = query.group_by(*keys)
            for row in (await connection.execute(query)).all():
                key, cells = tuple(row[:width]), row[width:]
                if cells[0] is None:  # no rows at all, and nothing to group by
                    continue
                before = found.get(key)
                found[key] = (
                    list(cells)
                    if before is None
                    else [one + other for one, other in zip(before, cells, strict=True)]
                )
    return found


class SqlAnalytics:
    """Analytics over `call_rollups` and `call_sums`."""

    def __init__(self, database: Database, *, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def query(self, query: AnalyticsQuery) -> Sequence[Figures]:
        asked = {_column(name) for name in (*query.group_by, *query.where)}
        source = source_for(asked)
        levels_s = self._levels(query)
        columns = source.table.c
        keys = [
            *_times(columns.bucket_s, query.step_s),
            *(columns[_column(name)] for name in query.group_by),
        ]
        where = [
            columns.account_id == query.account_id,
            *(columns[_column(name)] == value for name, value in query.where.items()),
        ]
        if query.gateway_id is not None:
            where.append(columns.gateway_id == query.gateway_id)
        parts = list(
            spans(query.since_s, query.until_s, levels_s=levels_s, now_s=self._clock.now_s())
        )
        histograms = source.buckets(query.metrics)
        values = [*SUMS, *(name for _, names in histograms for name in names)]
        found = await add_up(self._database, source, parts, keys=keys, where=where, values=values)
        rows = sorted(found.items(), key=lambda item: (_time_of(query, item[0]), -item[1][0]))
        shown = [metric for metric, _ in histograms]
        return [_figures(query, shown, key, cells) for key, cells in rows[: query.limit]]

    def _levels(self, query: AnalyticsQuery) -> Sequence[int]:
        step_s = query.step_s
        if step_s is None:
            return LEVELS_S
        if step_s <= 0 or step_s % MINUTE_S:
            raise InvalidRequestError(
                f"step_s must be a whole number of minutes, got {step_s}.", param="step_s"
            )
        if (query.until_s - query.since_s) / step_s > _MAX_BUCKETS:
            raise InvalidRequestError(
                f"step_s must give at most {_MAX_BUCKETS} buckets, got {step_s}.", param="step_s"
            )
        oldest_s = self._clock.now_s() - MINUTES_KEPT_S + HOUR_S
        if step_s % HOUR_S and query.since_s < oldest_s:
            raise InvalidRequestError(
                f"step_s must be whole hours for times days ago, got {step_s}.", param="step_s"
            )
        return [level_s for level_s in LEVELS_S if step_s % level_s == 0]

    async def spent(
        self,
        account_id: AccountId,
        gateway_id: str,
        *,
        since_s: float,
        by: tuple[SpendKey, ...] = (),
    ) -> Sequence[Spent]:
        if any(name.startswith(_METADATA) for name in by):
            return await self._spent_by_metadata(account_id, gateway_id, since_s, by)
        names = ["key_id" if name == "key" else name for name in by]
        source = source_for(set(names))
        columns = source.table.c
        found = await add_up(
            self._database,
            source,
            list(spans(since_s, None, levels_s=LEVELS_S, now_s=self._clock.now_s())),
            keys=[columns[name] for name in names],
            where=[columns.account_id == account_id, columns.gateway_id == gateway_id],
            values=("requests", "prompt_tokens", "completion_tokens", "cost_usd"),
        )
        return [
            Spent(
                values=key,
                requests=int(requests),
                tokens=int(prompt) + int(completion),
                cost_usd=cost,
            )
            for key, (requests, prompt, completion, cost) in found.items()
        ]

    async def _spent_by_metadata(
        self, account_id: AccountId, gateway_id: str, since_s: float, by: tuple[SpendKey, ...]
    ) -> Sequence[Spent]:
        """Add rows up by everything that they say of themselves, then by what is asked for."""
        columns = call_records.c
        keys: list[Any] = [
            cast(columns.metadata, String),
            columns.provider,
            columns.model,
            func.coalesce(columns.key_id, literal("", literal_execute=True)),
        ]
        tokens = func.sum(columns.prompt_tokens + columns.completion_tokens)
        query: Select[Any] = (
            select(*keys, func.count(), tokens, func.sum(columns.cost_usd))
            .where(
                columns.account_id == account_id,
                columns.gateway_id == gateway_id,
                columns.created_at_s >= since_s // MINUTE_S * MINUTE_S,
            )
            .group_by(*keys)
        )
        sums: dict[tuple[str, ...], list[Any]] = {}
        async with self._database.read() as connection:
            for metadata, provider, model, key, *cells in (await connection.execute(query)).all():
                said = json.loads(metadata) if metadata else {}
                own = {"provider": provider, "model": model, "key": key}
                values = tuple(_spend_value(name, own, said) for name in by)
                before = sums.setdefault(values, [0, 0, 0.0])
                sums[values] = [one + other for one, other in zip(before, cells, strict=True)]
        return [
            Spent(values=values, requests=int(requests), tokens=int(tokens), cost_usd=cost)
            for values, (requests, tokens, cost) in sums.items()
        ]


def _spend_value(name: SpendKey, own: Mapping[str, str], said: Mapping[str, object]) -> str:
    if name in own:
        return own[name]
    value = said.get(name.removeprefix(_METADATA), "")
    return str(value).lower() if isinstance(value, bool) else str(value)


def _column(name: Dimension) -> str:
    return _COLUMN_OF.get(name, name)


def _times(bucket_s: Column[Any], step_s: int | None) -> list[ColumnElement[Any]]:
    if step_s is None:
        return []
    step = literal(step_s, literal_execute=True)  # Postgres: one expression, also in GROUP BY
    return [(bucket_s - bucket_s % step).label("time_s")]


def _time_of(query: AnalyticsQuery, key: tuple[Any, ...]) -> int:
    return 0 if query.step_s is None else int(key[0])


def _figures(
    query: AnalyticsQuery, shown: Sequence[Metric], key: tuple[Any, ...], cells: list[Any]
) -> Figures:
    values = dict(zip(SUMS, cells, strict=False))
    group = key if query.step_s is None else key[1:]
    quantiles: dict[Metric, Quantiles | None] = {}
    begin = len(SUMS)
    for metric in shown:
        quantiles[metric] = _quantiles(cells[begin : begin + NUM_BUCKETS])
        begin += NUM_BUCKETS
    requests, first_tokens = int(values["requests"]), int(values["first_tokens"])
    return Figures(
        bucket_s=None if query.step_s is None else int(key[0]),
        group=dict(zip(query.group_by, group, strict=True)),
        requests=requests,
        errors=int(values["errors"]),
        cached=int(values["cached_calls"]),
        usage=usage_of(values),
        cost_usd=values["cost_usd"],
        mean_duration_ms=values["duration_ms"] / requests,
        mean_first_token_ms=values["first_token_ms"] / first_tokens if first_tokens else None,
        duration=quantiles.get("duration"),
        first_token=quantiles.get("first_token"),
    )


def usage_of(values: Mapping[str, Any]) -> Usage:
    """Make a Usage of sums; int, as Postgres adds big integers up to a Decimal."""
    return Usage(
        prompt_tokens=int(values["prompt_tokens"]),
        completion_tokens=int(values["completion_tokens"]),
        cached_tokens=int(values["cached_tokens"]),
        reasoning_tokens=int(values["reasoning_tokens"]),
    )


def _quantiles(counts: Sequence[int]) -> Quantiles | None:
    found = quantiles_ms(counts, _SHARES)
    return None if found is None else Quantiles(p50_ms=found[0], p95_ms=found[1], p99_ms=found[2])
