"""The ledger of model calls in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, assert_never

from sqlalchemy import ColumnElement, Row, case, func, literal_column, select

from openworks.core.ids import AccountId
from openworks.ports.calls import CallRecord, Usage, UsageGroup, UsageRow
from openworks.storage.sql.database import Database, insert_or_ignore
from openworks.storage.sql.tables import call_records

_COLUMNS = call_records.c


class SqlRecordStore:
    """Call records in the table `call_records`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert_many(self, records: Sequence[CallRecord]) -> None:
        if not records:
            return
        rows = [_values(record) for record in records]
        async with self._database.write() as connection:
            await connection.execute(insert_or_ignore(connection, call_records), rows)

    async def summarise(
        self,
        *,
        group: UsageGroup,
        since_s: float | None = None,
        account_id: AccountId | None = None,
    ) -> Sequence[UsageRow]:
        # A literal, not a parameter: Postgres would see two expressions here and in GROUP BY.
        key = func.coalesce(_group_column(group), literal_column("''")).label("group")
        calls = func.count().label("calls")
        query = (
            select(
                key,
                calls,
                func.sum(case((_COLUMNS.outcome == "error", 1), else_=0)).label("errors"),
                func.sum(_COLUMNS.prompt_tokens).label("prompt_tokens"),
                func.sum(_COLUMNS.completion_tokens).label("completion_tokens"),
                func.sum(_COLUMNS.cached_tokens).label("cached_tokens"),
                func.sum(_COLUMNS.reasoning_tokens).label("reasoning_tokens"),
                func.sum(_COLUMNS.cost_usd).label("cost_usd"),
                func.avg(_COLUMNS.first_token_ms).label("mean_first_token_ms"),
                func.avg(_COLUMNS.duration_ms).label("mean_duration_ms"),
            )
            .group_by(key)
            .order_by(calls.desc(), key)
        )
        if since_s is not None:
            query = query.where(_COLUMNS.created_at_s >= since_s)
        if account_id is not None:
            query = query.where(_COLUMNS.account_id == account_id)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [_usage_row(row) for row in rows]

    async def list_recent(self, *, limit: int) -> Sequence[CallRecord]:
        query = (
            select(call_records)
            .order_by(_COLUMNS.created_at_s.desc(), _COLUMNS.id.desc())
            .limit(limit)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [_record(row) for row in rows]


def _group_column(group: UsageGroup) -> ColumnElement[str]:
    match group:
        case "model":
            return _COLUMNS.model
        case "account":
            return _COLUMNS.account_id
        case "key":
            return _COLUMNS.key_id
        case "day":
            return _COLUMNS.day
        case "route":
            return _COLUMNS.route
        case _:
            assert_never(group)


def _values(record: CallRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "created_at_s": record.created_at_s,
        "day": datetime.fromtimestamp(record.created_at_s, UTC).date().isoformat(),
        "account_id": record.account_id,
        "key_id": record.key_id,
        "route": record.route,
        "model": record.model,
        "deployment": record.deployment,
        "stream": record.stream,
        "prompt_tokens": record.usage.prompt_tokens,
        "completion_tokens": record.usage.completion_tokens,
        "cached_tokens": record.usage.cached_tokens,
        "reasoning_tokens": record.usage.reasoning_tokens,
        "cost_usd": record.cost_usd,
        "first_token_ms": record.first_token_ms,
        "duration_ms": record.duration_ms,
        "outcome": record.outcome,
        "status": record.status,
        "error_code": record.error_code,
    }


def _record(row: Row[Any]) -> CallRecord:
    return CallRecord(
        id=row.id,
        created_at_s=row.created_at_s,
        account_id=row.account_id,
        key_id=row.key_id,
        route=row.route,
        model=row.model,
        deployment=row.deployment,
        stream=row.stream,
        usage=_usage(row),
        cost_usd=row.cost_usd,
        first_token_ms=row.first_token_ms,
        duration_ms=row.duration_ms,
        outcome=row.outcome,
        status=row.status,
        error_code=row.error_code,
    )


def _usage_row(row: Row[Any]) -> UsageRow:
    return UsageRow(
        group=row.group,
        calls=row.calls,
        errors=row.errors,
        usage=_usage(row),
        cost_usd=row.cost_usd,
        mean_first_token_ms=row.mean_first_token_ms,
        mean_duration_ms=row.mean_duration_ms,
    )


def _usage(row: Row[Any]) -> Usage:
    return Usage(  # int: Postgres adds big integers up to a Decimal
        prompt_tokens=int(row.prompt_tokens),
        completion_tokens=int(row.completion_tokens),
        cached_tokens=int(row.cached_tokens),
        reasoning_tokens=int(row.reasoning_tokens),
    )
