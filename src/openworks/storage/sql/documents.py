"""Documents of the control plane in SQL, and the log of who changed them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from openworks.core.ids import AccountId
from openworks.core.json import JsonObject
from openworks.ports.documents import AuditEntry, Document, DocumentKind
from openworks.storage.sql.database import Database
from openworks.storage.sql.tables import audit_log, documents

_COLUMNS = documents.c


class SqlDocumentStore:
    """Documents in the table `documents`, their changes in `audit_log`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, document: Document, entry: AuditEntry) -> None:
        noun = document.kind.replace("_", " ")
        conflict = f"A {noun} with id '{document.id}' exists already."
        async with self._database.write(conflict=conflict) as connection:
            await connection.execute(insert(documents).values(_values(document)))
            await _log(connection, entry)

    async def replace(self, document: Document, entry: AuditEntry) -> bool:
        this = _is(document.kind, document.account_id, document.parent, document.id)
        statement = update(documents).where(this).values(_values(document))
        async with self._database.write() as connection:
            found = (await connection.execute(statement)).rowcount > 0
            if found:
                await _log(connection, entry)
        return found

    async def get(
        self, kind: DocumentKind, account_id: AccountId, parent: str, document_id: str
    ) -> Document | None:
        query = select(documents).where(_is(kind, account_id, parent, document_id))
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else _document(row)

    async def list(
        self, kind: DocumentKind, account_id: AccountId, parent: str
    ) -> Sequence[Document]:
        query = (
            select(documents)
            .where(
                _COLUMNS.kind == kind,
                _COLUMNS.account_id == account_id,
                _COLUMNS.parent == parent,
            )
            .order_by(_COLUMNS.created_at_s.desc(), _COLUMNS.id.desc())
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [_document(row) for row in rows]

    async def delete(
        self,
        kind: DocumentKind,
        account_id: AccountId,
        parent: str,
        document_id: str,
        entry: AuditEntry,
    ) -> bool:
        path = f"{parent}/{document_id}" if parent else document_id
        # Not LIKE, which takes `GW` for `gw` in SQLite.
        start = func.substr(_COLUMNS.parent, 1, len(path) + 1)
        below = or_(_COLUMNS.parent == path, start == f"{path}/")
        async with self._database.write() as connection:
            this = delete(documents).where(_is(kind, account_id, parent, document_id))
            found = (await connection.execute(this)).rowcount > 0
            if found:
                children = delete(documents).where(_COLUMNS.account_id == account_id, below)
                await connection.execute(children)
                await _log(connection, entry)
        return found

    async def list_around(self, account_id: AccountId, gateway_id: str) -> Sequence[Document]:
        gateway = and_(_COLUMNS.kind == "gateway", _COLUMNS.parent == "", _COLUMNS.id == gateway_id)
        inside = and_(
            _COLUMNS.kind.in_(("provider_config", "route")), _COLUMNS.parent == gateway_id
        )
        query = (
            select(documents)
            .where(
                _COLUMNS.account_id == account_id,
                or_(gateway, inside, _COLUMNS.kind == "custom_provider"),
            )
            .order_by(_COLUMNS.created_at_s.desc(), _COLUMNS.id.desc())
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [_document(row) for row in rows]

    async def rewrite(
        self,
        kinds: Sequence[DocumentKind],
        change: Callable[[Document], JsonObject | None],
        entry: AuditEntry,
    ) -> int:
        query = select(documents).where(_COLUMNS.kind.in_(kinds))
        rewritten = 0
        async with self._database.write() as connection:
            for row in (await connection.execute(query)).all():
                document = _document(row)
                body = change(document)
                if body is None:
                    continue
                this = _is(document.kind, document.account_id, document.parent, document.id)
                await connection.execute(update(documents).where(this).values(body=body))
                rewritten += 1
            await _log(connection, entry)
        return rewritten

    async def list_audit(
        self, account_id: AccountId, *, limit: int, before_s: float | None = None
    ) -> Sequence[AuditEntry]:
        query = select(audit_log).where(audit_log.c.account_id == account_id)
        if before_s is not None:
            query = query.where(audit_log.c.at_s < before_s)
        query = query.order_by(audit_log.c.at_s.desc(), audit_log.c.sequence.desc()).limit(limit)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [
            AuditEntry(
                at_s=row.at_s,
                account_id=row.account_id,
                actor=row.actor,
                action=row.action,
                kind=row.kind,
                target=row.target,
                changed=tuple(row.changed),
            )
            for row in rows
        ]


async def _log(connection: AsyncConnection, entry: AuditEntry) -> None:
    await connection.execute(
        insert(audit_log).values(
            at_s=entry.at_s,
            account_id=entry.account_id,
            actor=entry.actor,
            action=entry.action,
            kind=entry.kind,
            target=entry.target,
            changed=list(entry.changed),
        )
    )


def _is(
    kind: DocumentKind, account_id: AccountId, parent: str, document_id: str
) -> ColumnElement[bool]:
    return and_(
        _COLUMNS.kind == kind,
        _COLUMNS.account_id == account_id,
        _COLUMNS.parent == parent,
        _COLUMNS.id == document_id,
    )


def _values(document: Document) -> dict[str, Any]:
    return {
        "kind": document.kind,
        "account_id": document.account_id,
        "parent": document.parent,
        "id": document.id,
        "body": document.body,
        "created_at_s": document.created_at_s,
        "modified_at_s": document.modified_at_s,
    }


def _document(row: Row[Any]) -> Document:
    return Document(
        kind=row.kind,
        account_id=row.account_id,
        parent=row.parent,
        id=row.id,
        body=row.body,
        created_at_s=row.created_at_s,
        modified_at_s=row.modified_at_s,
    )
