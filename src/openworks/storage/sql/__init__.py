"""SQL tables through SQLAlchemy: SQLite by default."""
