"""Durable work, and the events that it tells; threads in the order of their creation."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("subject_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("due_at_s", sa.Double(), nullable=False),
        sa.Column("worker", sa.String(), nullable=True),
        sa.Column("leased_until_s", sa.Double(), nullable=False),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("is_cancelled", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("subject_id", "kind", name="pk_jobs"),
    )
    op.create_index("ix_jobs_due_at_s", "jobs", ["due_at_s"])
    op.create_table(
        "events",
        sa.Column("stream_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("is_last", sa.Boolean(), nullable=False),
        sa.Column("kept_at_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("stream_id", "number", name="pk_events"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_events_kept_at_s", "events", ["kept_at_s"])
    op.create_index(
        "ix_threads_account_id_created_at_s_id", "threads", ["account_id", "created_at_s", "id"]
    )


def downgrade() -> None:
    op.drop_index("ix_threads_account_id_created_at_s_id", "threads")
    op.drop_table("events")
    op.drop_table("jobs")
