"""What Alembic runs around the steps: the connection is ours, and so is its transaction."""

from __future__ import annotations

from alembic import context

from openworks.storage.sql.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
)
with context.begin_transaction():
    context.run_migrations()
