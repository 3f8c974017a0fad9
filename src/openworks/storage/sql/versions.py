"""Which version a database's tables have, and which this package needs."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

MIGRATIONS = Path(__file__).parent / "migrations"


def is_current(connection: Connection) -> bool:
    """Whether no step is missing."""
    if not inspect(connection).has_table("alembic_version"):
        return False
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found == newest()


def newest() -> str:
    """Return the revision of the last step, which its file's name begins with."""
    names = [file.name for file in (MIGRATIONS / "versions").glob("[0-9]*.py")]
    return max(names).partition("_")[0]
