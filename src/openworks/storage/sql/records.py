"""The ledger of model calls in SQL: single calls from their rows, sums from the rollups."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, assert_never

from sqlalchemy import Row, select

from openworks.core.clock import Clock
from openworks.core.ids import AccountId
from openworks.ports.calls import CallRecord, Usage, UsageGroup, UsageRow
from openworks.storage.logbook.shapes import DAY_S, LEVELS_S, SUMS
from openworks.storage.sql.database import Database
from openworks.storage.sql.rollups import add_up, source_for, spans, usage_of
from openworks.storage.sql.tables import call_records

_COLUMNS = call_records.c


class SqlRecordStore:
    """Call records in the table `call_records`, and their sums in `call_rollups`."""

    def __init__(self, database: Database, *, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def summarise(
        self,
        *,
        group: UsageGroup,
        since_s: float | None = None,
        account_id: AccountId | None = None,
    ) -> Sequence[UsageRow]:
        name = _group_column(group)
        source = source_for({name} - {"bucket_s"})
        columns = source.table.c
        found = await add_up(
            self._database,
            source,
            list(spans(since_s, None, levels_s=LEVELS_S, now_s=self._clock.now_s())),
            keys=[columns[name]],
            where=[] if account_id is None else [columns.account_id == account_id],
            values=SUMS,
        )
        sums: dict[str, list[Any]] = {}
        for (value,), cells in found.items():
            named = _day(value) if group == "day" else value
            before = sums.get(named, [0] * len(cells))
            sums[named] = [one + other for one, other in zip(before, cells, strict=True)]
        rows = [_usage_row(named, cells) for named, cells in sums.items()]
        return sorted(rows, key=lambda row: (-row.calls, row.group))

    async def list_recent(self, *, limit: int) -> Sequence[CallRecord]:
        query = (
            select(call_records)
            .order_by(_COLUMNS.created_at_s.desc(), _COLUMNS.id.desc())
            .limit(limit)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [record_of(row) for row in rows]


def _group_column(group: UsageGroup) -> str:
    match group:
        case "model" | "route":
            return group
        case "account":
            return "account_id"
        case "key":
            return "key_id"
        case "day":
            return "bucket_s"
        case _:
            assert_never(group)


def _day(bucket_s: int) -> str:
    return datetime.fromtimestamp(bucket_s // DAY_S * DAY_S, UTC).date().isoformat()


def _usage_row(group: str, cells: list[Any]) -> UsageRow:
    values = dict(zip(SUMS, cells, strict=True))
    calls, first_tokens = int(values["requests"]), int(values["first_tokens"])
    return UsageRow(
        group=group,
        calls=calls,
        errors=int(values["errors"]),
        usage=usage_of(values),
        cost_usd=values["cost_usd"],
        mean_first_token_ms=values["first_token_ms"] / first_tokens if first_tokens else None,
        mean_duration_ms=values["duration_ms"] / calls,
    )


def record_of(row: Row[Any]) -> CallRecord:
    """Make a record of a row of `call_records`."""
    return CallRecord(
        id=row.id,
        created_at_s=row.created_at_s,
        account_id=row.account_id,
        key_id=row.key_id,
        route=row.route,
        model=row.model,
        deployment=row.deployment,
        stream=row.stream,
        usage=Usage(
            prompt_tokens=row.prompt_tokens,
            completion_tokens=row.completion_tokens,
            cached_tokens=row.cached_tokens,
            reasoning_tokens=row.reasoning_tokens,
        ),
        cost_usd=row.cost_usd,
        first_token_ms=row.first_token_ms,
        duration_ms=row.duration_ms,
        outcome=row.outcome,
        status=row.status,
        error_code=row.error_code,
        gateway_id=row.gateway_id,
        provider=row.provider,
        endpoint=row.endpoint,
        event_id=row.event_id,
        metadata=row.metadata or {},
        cached=row.cached,
        step=row.step,
        attempts=row.attempts,
        estimated=row.estimated,
        custom_cost=row.custom_cost,
        routed_by=row.routed_by,
        guard_findings=tuple(row.guard_findings or ()),
    )
