"""The tables, as SQLAlchemy Core sees them; `migrations/` brings a database to this state."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
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
    # The UTC date of created_at_s: no two databases spell that function alike.
    Column("day", String, nullable=False),
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
    Index(None, "created_at_s"),
    Index(None, "account_id", "created_at_s"),
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
