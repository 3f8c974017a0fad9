"""The tables, as SQLAlchemy Core sees them; `migrations/` brings a database to this state."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    false,
    text,
)

from openworks.storage.logbook.shapes import (
    DURATION_BUCKETS,
    FIRST_TOKEN_BUCKETS,
    SUMS,
)

# Every constraint has a name, so that a later migration can drop it on any database.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

accounts = Table(
    "accounts",
    metadata,
    Column("id", String, primary_key=True),
    Column("created_at_s", Double, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("account_id", String, ForeignKey("accounts.id"), nullable=False, index=True),
    Column("name", String, nullable=False),
    Column("hash", String, nullable=False, unique=True),
    Column("hint", String, nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("allowed_models", JSON(none_as_null=True)),
    Column("created_at_s", Double, nullable=False),
    Column("expires_at_s", Double),
    Column("revoked_at_s", Double),
)

call_records = Table(
    "call_records",
    metadata,
    Column("id", String, primary_key=True),
    Column("created_at_s", Double, nullable=False),
    # No foreign keys: the ledger outlives keys and accounts, and an open server has neither.
    Column("account_id", String, nullable=False),
    Column("key_id", String),
    Column("route", String, nullable=False),
    Column("model", String, nullable=False),
    Column("deployment", String),
    Column("stream", Boolean, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("cost_usd", Double, nullable=False),
    Column("first_token_ms", Double),
    Column("duration_ms", Double, nullable=False),
    Column("outcome", String, nullable=False),
    Column("status", Integer, nullable=False),
    Column("error_code", String),
    Column("gateway_id", String, nullable=False, server_default="default"),
    Column("provider", String, nullable=False, server_default="workers-ai"),
    Column("endpoint", String, nullable=False, server_default=""),
    Column("event_id", String),
    Column("metadata", JSON(none_as_null=True)),
    Column("cached", Boolean, nullable=False, server_default=false()),
    Column("step", Integer, nullable=False, server_default="0"),
    Column("attempts", Integer, nullable=False, server_default="1"),
    Column("estimated", Boolean, nullable=False, server_default=false()),
    Column("custom_cost", Boolean, nullable=False, server_default=false()),
    Column("routed_by", String),
    Column("guard_findings", JSON(none_as_null=True)),
    # What was said: in a pack, a compressed block; in the block, the request, then the response.
    Column("pack_id", String),
    Column("block_offset", BigInteger),
    Column("block_bytes", BigInteger),
    Column("body_offset", BigInteger),
    Column("request_bytes", BigInteger),
    Column("response_bytes", BigInteger),
    Column("request_type", String),
    Column("response_type", String),
    Column("is_partial", Boolean, nullable=False, server_default=false()),
    Column("feedback", Integer),
    Column("score", Double),
    Index(None, "created_at_s"),
    Index(None, "account_id", "gateway_id", "created_at_s"),
)

chat_completions = Table(
    "chat_completions",
    metadata,
    Column("id", String, primary_key=True),
    Column("account_id", String, nullable=False),
    Column("created_at_s", BigInteger, nullable=False),
    Column("model", String, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("messages", JSON, nullable=False),
    Column("completion", JSON, nullable=False),
    Index(None, "account_id", "created_at_s", "id"),
)

files = Table(
    "files",
    metadata,
    Column("id", String, primary_key=True),
    Column("account_id", String, nullable=False),
    Column("created_at_s", BigInteger, nullable=False),
    Column("filename", String, nullable=False),
    Column("media_type", String, nullable=False),
    Column("purpose", String, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("expires_at_s", BigInteger, index=True),
    Index(None, "account_id", "created_at_s", "id"),
    Index(None, "account_id", "size_bytes"),  # what an account keeps is added up in the index
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", String, primary_key=True),
    Column("account_id", String, nullable=False),
    Column("created_at_s", BigInteger, nullable=False),
    Column("expires_at_s", BigInteger, nullable=False, index=True),
    Column("filename", String, nullable=False),
    Column("media_type", String, nullable=False),
    Column("purpose", String, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("file_ttl_s", Integer),
    Column("status", String, nullable=False),
    Column("file_id", String),
    Column("part_ids", JSON, nullable=False),
    Column("md5", String),
)

upload_parts = Table(
    "upload_parts",
    metadata,
    Column("id", String, primary_key=True),
    Column("upload_id", String, nullable=False, index=True),
    Column("account_id", String, nullable=False),
    Column("created_at_s", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Index(None, "account_id", "size_bytes"),
)

assistants = Table(
    "assistants",
    metadata,
    Column("id", String, primary_key=True),
    Column("account_id", String, nullable=False),
    Column("created_at_s", Double, nullable=False),
    Column("settings", JSON, nullable=False),
    Index(None, "account_id", "created_at_s", "id"),
)

threads = Table(
    "threads",
    metadata,
    Column("id", String, primary_key=True),
    Column("account_id", String, nullable=False),
    Column("created_at_s", Double, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("tool_resources", JSON, nullable=False),
    # Whoever adds a message changes this row first, and so gets a place that nobody else has.
    Column("next_position", Integer, nullable=False),
    Column("num_messages", Integer, nullable=False),
    Index(None, "account_id", "created_at_s", "id"),
)

messages = Table(
    "messages",
    metadata,
    Column("id", String, primary_key=True),
    Column("thread_id", String, ForeignKey("threads.id", ondelete="CASCADE"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("created_at_s", Double, nullable=False),
    Column("role", String, nullable=False),
    Column("content", JSON, nullable=False),
    Column("attachments", JSON, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("run_id", String),
    Column("assistant_id", String),
    Column("status", String, nullable=False, server_default="completed"),
    # None where callers put it there: it had ended when it came.
    Column("ended_at_s", Double),
    Column("incomplete_reason", String),
    Index("ix_messages_thread_id_position", "thread_id", "position", unique=True),
)

ACTIVE_RUN = "status IN ('queued', 'in_progress', 'requires_action', 'cancelling')"

runs = Table(
    "runs",
    metadata,
    Column("id", String, primary_key=True),
    Column("thread_id", String, ForeignKey("threads.id", ondelete="CASCADE"), nullable=False),
    Column("account_id", String, nullable=False),
    Column("created_at_s", Double, nullable=False),
    Column("expires_at_s", Double, nullable=False),
    Column("key_id", String),
    Column("route", String, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("status", String, nullable=False),
    Column("open_calls", JSON, nullable=False),
    Column("started_at_s", Double),
    Column("ended_at_s", Double),
    Column("num_turns", Integer, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("error", JSON(none_as_null=True)),
    Column("incomplete_reason", String),
    Index(None, "thread_id", "created_at_s", "id"),
    Index(  # one active run locks its thread
        "ix_runs_active",
        "thread_id",
        unique=True,
        sqlite_where=text(ACTIVE_RUN),
        postgresql_where=text(ACTIVE_RUN),
    ),
)

run_steps = Table(
    "run_steps",
    metadata,
    Column("id", String, primary_key=True),
    Column("run_id", String, ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("turn", Integer, nullable=False),
    Column("created_at_s", Double, nullable=False),
    Column("status", String, nullable=False),
    Column("ended_at_s", Double),
    Column("message_id", String),
    Column("tool_calls", JSON, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("error", JSON(none_as_null=True)),
    Index("ix_run_steps_run_id_number", "run_id", "number", unique=True),
)

jobs = Table(
    "jobs",
    metadata,
    Column("subject_id", String, primary_key=True),
    Column("kind", String, primary_key=True),
    Column("account_id", String, nullable=False),
    Column("due_at_s", Double, nullable=False),
    Column("worker", String),
    Column("leased_until_s", Double, nullable=False),
    Column("token", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("is_cancelled", Boolean, nullable=False),
    Index(None, "due_at_s"),
)

events = Table(
    "events",
    metadata,
    Column("stream_id", String, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("name", String, nullable=False),
    Column("data", Text, nullable=False),
    Column("is_last", Boolean, nullable=False),
    Column("kept_at_s", Double, nullable=False),
    Index(None, "kept_at_s"),
    sqlite_with_rowid=False,
)

conversations = Table(
    "conversations",
    metadata,
    Column("id", String, primary_key=True),
    Column("account_id", String, nullable=False),
    Column("created_at_s", Double, nullable=False),
    Column("metadata", JSON, nullable=False),
    # As with threads: whoever adds items changes this row first, and so gets their places.
    Column("next_position", Integer, nullable=False),
    Index(None, "account_id", "created_at_s", "id"),
)

conversation_items = Table(
    "conversation_items",
    metadata,
    Column(
        "conversation_id",
        String,
        ForeignKey("conversations.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("id", String, nullable=False, index=True),
    Column("body", JSON, nullable=False),
)

responses = Table(
    "responses",
    metadata,
    Column("id", String, primary_key=True),
    Column("account_id", String, nullable=False),
    Column("key_id", String),
    Column("route", String, nullable=False),
    Column("created_at_s", Double, nullable=False),
    Column("completed_at_s", Double),
    Column("model", String, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("is_background", Boolean, nullable=False),
    # No foreign keys: what a response goes on from may be deleted before it.
    Column("previous_id", String),
    Column("conversation_id", String),
    Column("conversation_position", Integer),
    Column("seed", BigInteger, nullable=False),
    Column("status", String, nullable=False),
    Column("error", JSON(none_as_null=True)),
    Column("incomplete_reason", String),
    Column("usage", JSON(none_as_null=True)),
)

response_items = Table(
    "response_items",
    metadata,
    Column("response_id", String, ForeignKey("responses.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("id", String, nullable=False, index=True),
    Column("is_output", Boolean, nullable=False),
    Column("body", JSON, nullable=False),
)

batches = Table(
    "batches",
    metadata,
    Column("id", String, primary_key=True),
    Column("account_id", String, nullable=False),
    Column("key_id", String),
    Column("allowed_models", JSON(none_as_null=True)),
    Column("created_at_s", Double, nullable=False),
    Column("expires_at_s", Double, nullable=False),
    Column("endpoint", String, nullable=False),
    Column("input_file_id", String, nullable=False),
    Column("output_ttl_s", Integer),
    Column("metadata", JSON, nullable=False),
    Column("status", String, nullable=False),
    Column("reached_at_s", JSON, nullable=False),
    Column("model", String),
    Column("num_lines", Integer, nullable=False),
    Column("num_completed", Integer, nullable=False),
    Column("num_failed", Integer, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("errors", JSON, nullable=False),
    Column("output_file_id", String),
    Column("error_file_id", String),
    Index(None, "account_id", "created_at_s", "id"),
)

batch_results = Table(
    "batch_results",
    metadata,
    Column("batch_id", String, ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("is_error", Boolean, nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

documents = Table(
    "documents",
    metadata,
    Column("kind", String, primary_key=True),
    Column("account_id", String, primary_key=True),
    Column("parent", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("body", JSON, nullable=False),
    Column("created_at_s", Double, nullable=False),
    Column("modified_at_s", Double, nullable=False),
    Index(None, "account_id", "parent"),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("sequence", Integer, primary_key=True),  # tells entries of one moment apart
    Column("at_s", Double, nullable=False),
    Column("account_id", String, nullable=False),
    Column("actor", String, nullable=False),
    Column("action", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("target", String, nullable=False),
    Column("changed", JSON, nullable=False),
    Index(None, "account_id", "at_s"),
)


def _sums() -> list[Column[Any]]:
    return [
        Column(name, Double if name.endswith(("_usd", "_ms")) else BigInteger, nullable=False)
        for name in SUMS
    ]


def _dimensions() -> list[Column[Any]]:
    return [
        Column("level_s", Integer, primary_key=True, autoincrement=False),
        Column("account_id", String, primary_key=True),
        Column("bucket_s", BigInteger, primary_key=True, autoincrement=False),
        Column("gateway_id", String, primary_key=True),
        Column("provider", String, primary_key=True),
        Column("model", String, primary_key=True),
        Column("key_id", String, primary_key=True),
        Column("route", String, primary_key=True),
        Column("status", Integer, primary_key=True, autoincrement=False),
        Column("cached", Boolean, primary_key=True),
        Column("stream", Boolean, primary_key=True),
    ]


# Read by ranges of their keys, so SQLite keeps the rows in the index itself.
call_rollups = Table(
    "call_rollups",
    metadata,
    Column("family", String, primary_key=True),
    *_dimensions(),
    *_sums(),
    *(Column(name, Integer, nullable=False) for name in (*DURATION_BUCKETS, *FIRST_TOKEN_BUCKETS)),
    sqlite_with_rowid=False,
)

call_sums = Table("call_sums", metadata, *_dimensions(), *_sums(), sqlite_with_rowid=False)

log_counts = Table(
    "log_counts",
    metadata,
    Column("account_id", String, primary_key=True),
    Column("gateway_id", String, primary_key=True),
    Column("num_rows", BigInteger, nullable=False),
)

log_packs = Table(
    "log_packs",
    metadata,
    Column("id", String, primary_key=True),
    Column("num_rows", Integer, nullable=False),
    Index(
        "ix_log_packs_unused",
        "num_rows",
        sqlite_where=text("num_rows <= 0"),
        postgresql_where=text("num_rows <= 0"),
    ),
)

# The last batch of each writer: what was sent twice is written once.
log_writers = Table(
    "log_writers",
    metadata,
    Column("id", String, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("seen_at_s", Double, nullable=False),
)
