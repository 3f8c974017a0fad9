"""Brings a database's tables to this version; the only module that imports Alembic."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection

from openworks.core.errors import StorageError
from openworks.storage.sql.versions import MIGRATIONS


def upgrade(connection: Connection) -> None:
    """Take every step that is missing.

    Raises:
        StorageError: The database was written by a newer version.
    """
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StorageError(f"The database could not be migrated: {error}.") from error
