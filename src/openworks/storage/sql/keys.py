"""API keys and their accounts in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, func, insert, select, update

from openworks.core.ids import AccountId, KeyId
from openworks.ports.keys import ApiKey
from openworks.storage.sql.database import Database, insert_or_ignore
from openworks.storage.sql.tables import accounts, api_keys


class SqlKeyStore:
    """Keys in the table `api_keys`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, key: ApiKey) -> None:
        account = {"id": key.account_id, "created_at_s": key.created_at_s}
        conflict = f"A key with id '{key.id}' or its hash exists already."
        async with self._database.write(conflict=conflict) as connection:
            await connection.execute(insert_or_ignore(connection, accounts).values(account))
            await connection.execute(insert(api_keys).values(_values(key)))

    async def get_by_hash(self, key_hash: str) -> ApiKey | None:
        async with self._database.read() as connection:
            query = select(api_keys).where(api_keys.c.hash == key_hash)
            row = (await connection.execute(query)).first()
        return None if row is None else _key(row)

    async def list(self, *, account_id: AccountId | None = None) -> Sequence[ApiKey]:
        query = select(api_keys).order_by(api_keys.c.created_at_s, api_keys.c.id)
        if account_id is not None:
            query = query.where(api_keys.c.account_id == account_id)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [_key(row) for row in rows]

    async def revoke(self, key_id: KeyId, *, at_s: float) -> bool:
        # COALESCE keeps the first time, and the row count still says whether there is a key.
        first_s = func.coalesce(api_keys.c.revoked_at_s, at_s)
        statement = update(api_keys).where(api_keys.c.id == key_id).values(revoked_at_s=first_s)
        async with self._database.write() as connection:
            return (await connection.execute(statement)).rowcount > 0

    async def count_unrevoked(self) -> int:
        query = select(func.count()).select_from(api_keys).where(api_keys.c.revoked_at_s.is_(None))
        async with self._database.read() as connection:
            return (await connection.execute(query)).scalar_one()


def _values(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "account_id": key.account_id,
        "name": key.name,
        "hash": key.hash,
        "hint": key.hint,
        "scopes": sorted(key.scopes),
        "allowed_models": None if key.allowed_models is None else sorted(key.allowed_models),
        "created_at_s": key.created_at_s,
        "expires_at_s": key.expires_at_s,
        "revoked_at_s": key.revoked_at_s,
    }


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        account_id=row.account_id,
        name=row.name,
        hash=row.hash,
        hint=row.hint,
        scopes=frozenset(row.scopes),
        allowed_models=None if row.allowed_models is None else frozenset(row.allowed_models),
        created_at_s=row.created_at_s,
        expires_at_s=row.expires_at_s,
        revoked_at_s=row.revoked_at_s,
    )
