"""Logs of gateways: more of each call, its bodies, and the sums that analytics read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import sqlalchemy as sa
from alembic import op

from openworks.storage.logbook.shapes import (
    BOUNDS_MS,
    DURATION_BUCKETS,
    FAMILIES,
    FIRST_TOKEN_BUCKETS,
    LEVELS_S,
    SUMS,
)

revision = "0002"
down_revision = "0001"

_TOKENS = ("prompt", "completion", "cached", "reasoning")


def upgrade() -> None:
    op.drop_index("ix_call_records_account_id_created_at_s", "call_records")
    with op.batch_alter_table("call_records") as table:
        for column in _new_columns():
            table.add_column(column)
        table.drop_column("day")
    op.create_index(
        "ix_call_records_account_id_gateway_id_created_at_s",
        "call_records",
        ["account_id", "gateway_id", "created_at_s"],
    )
    _make_sums()
    _make_books()
    _add_up()


def _new_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("gateway_id", sa.String(), nullable=False, server_default="default"),
        sa.Column("provider", sa.String(), nullable=False, server_default="workers-ai"),
        sa.Column("endpoint", sa.String(), nullable=False, server_default=""),
        sa.Column("event_id", sa.String()),
        sa.Column("metadata", sa.JSON()),
        sa.Column("cached", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("step", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="1"),
        sa.Column("estimated", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("custom_cost", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("routed_by", sa.String()),
        sa.Column("guard_findings", sa.JSON()),
        sa.Column("pack_id", sa.String()),
        sa.Column("block_offset", sa.BigInteger()),
        sa.Column("block_bytes", sa.BigInteger()),
        sa.Column("body_offset", sa.BigInteger()),
        sa.Column("request_bytes", sa.BigInteger()),
        sa.Column("response_bytes", sa.BigInteger()),
        sa.Column("request_type", sa.String()),
        sa.Column("response_type", sa.String()),
        sa.Column("is_partial", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("feedback", sa.Integer()),
        sa.Column("score", sa.Double()),
    ]


def _make_sums() -> None:
    op.create_table(
        "call_rollups",
        sa.Column("family", sa.String(), nullable=False),
        *_dimensions(),
        *_sums(),
        *(
            sa.Column(name, sa.Integer(), nullable=False)
            for name in (*DURATION_BUCKETS, *FIRST_TOKEN_BUCKETS)
        ),
        sa.PrimaryKeyConstraint(
            "family", *(column.name for column in _dimensions()), name="pk_call_rollups"
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "call_sums",
        *_dimensions(),
        *_sums(),
        sa.PrimaryKeyConstraint(*(column.name for column in _dimensions()), name="pk_call_sums"),
        sqlite_with_rowid=False,
    )


def _make_books() -> None:
    op.create_table(
        "log_counts",
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("gateway_id", sa.String(), nullable=False),
        sa.Column("num_rows", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "gateway_id", name="pk_log_counts"),
    )
    op.create_table(
        "log_packs",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("num_rows", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_log_packs"),
    )
    op.create_index(
        "ix_log_packs_unused",
        "log_packs",
        ["num_rows"],
        sqlite_where=sa.text("num_rows <= 0"),
        postgresql_where=sa.text("num_rows <= 0"),
    )
    op.create_table(
        "log_writers",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("seen_at_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_log_writers"),
    )


def _dimensions() -> list[sa.Column[Any]]:
    return [
        sa.Column("level_s", sa.Integer(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("bucket_s", sa.BigInteger(), nullable=False),
        sa.Column("gateway_id", sa.String(), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("route", sa.String(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("cached", sa.Boolean(), nullable=False),
        sa.Column("stream", sa.Boolean(), nullable=False),
    ]


def _sums() -> list[sa.Column[Any]]:
    return [
        sa.Column(
            name, sa.Double() if name.endswith(("_usd", "_ms")) else sa.BigInteger(), nullable=False
        )
        for name in SUMS
    ]


def _add_up() -> None:
    """Count the calls that are there already, so that sums and rows agree from the start."""
    op.execute(
        "INSERT INTO log_counts (account_id, gateway_id, num_rows) "
        "SELECT account_id, gateway_id, COUNT(*) FROM call_records GROUP BY 1, 2"
    )
    histograms = [*_histogram("d", "duration_ms"), *_histogram("f", "first_token_ms")]
    for level_s in LEVELS_S:
        for family, own in FAMILIES.items():
            op.execute(_insert("call_rollups", level_s, own, histograms, family=f"'{family}'"))
    every = ("provider", "model", "key_id", "route", "status", "cached", "stream")
    for level_s in LEVELS_S:
        op.execute(_insert("call_sums", level_s, every, []))


def _histogram(letter: str, column: str) -> Iterator[tuple[str, str]]:
    ends = [None, *BOUNDS_MS, None]
    for index, (above, upto) in enumerate(pairwise(ends)):
        conditions = [f"{column} IS NOT NULL"]
        if above is not None:
            conditions.append(f"{column} > {above!r}")
        if upto is not None:
            conditions.append(f"{column} <= {upto!r}")
        yield f"{letter}{index:02}", f"SUM(CASE WHEN {' AND '.join(conditions)} THEN 1 ELSE 0 END)"


def _insert(
    table: str,
    level_s: int,
    own: tuple[str, ...],
    histograms: list[tuple[str, str]],
    *,
    family: str | None = None,
) -> str:
    is_sqlite = op.get_context().dialect.name == "sqlite"
    number = f"created_at_s / {level_s}"  # SQLite cuts and Postgres rounds, if only cast
    whole = f"CAST({number} AS INTEGER)" if is_sqlite else f"CAST(FLOOR({number}) AS BIGINT)"
    nothing = {"status": "0", "cached": "false", "stream": "false"}
    columns = {
        **({"family": family} if family else {}),
        "level_s": str(level_s),
        "account_id": "account_id",
        "bucket_s": f"{whole} * {level_s}",
        "gateway_id": "gateway_id",
    }
    for name in ("provider", "model", "key_id", "route", "status", "cached", "stream"):
        own_value = "COALESCE(key_id, '')" if name == "key_id" else name
        columns[name] = own_value if name in own else nothing.get(name, "''")
    groups = ", ".join(str(place) for place in range(1, len(columns) + 1))
    columns |= {
        "requests": "COUNT(*)",
        "errors": "SUM(CASE WHEN outcome = 'error' THEN 1 ELSE 0 END)",
        "cached_calls": "0",
        **{
            name: f"SUM({name})"
            for name in SUMS
            if name.endswith("_tokens") and "first" not in name
        },
        "cost_usd": "SUM(cost_usd)",
        "duration_ms": "SUM(duration_ms)",
        "first_tokens": "COUNT(first_token_ms)",
        "first_token_ms": "COALESCE(SUM(first_token_ms), 0)",
        **dict(histograms),
    }
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) "
        f"SELECT {', '.join(columns.values())} FROM call_records GROUP BY {groups}"
    )


def downgrade() -> None:
    for table in ("log_writers", "log_packs", "log_counts", "call_sums", "call_rollups"):
        op.drop_table(table)
    op.drop_index("ix_call_records_account_id_gateway_id_created_at_s", "call_records")
    with op.batch_alter_table("call_records") as changed:
        for column in _new_columns():
            changed.drop_column(column.name)
        changed.add_column(sa.Column("day", sa.String(), nullable=False, server_default=""))
    op.create_index(
        "ix_call_records_account_id_created_at_s", "call_records", ["account_id", "created_at_s"]
    )
