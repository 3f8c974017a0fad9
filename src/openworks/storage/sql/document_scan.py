"""Documents of one kind, of all accounts, read from SQL in batches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from sqlalchemy import select, tuple_

from openworks.core.ids import AccountId
from openworks.ports.documents import Document, DocumentKind
from openworks.storage.sql.database import Database
from openworks.storage.sql.tables import documents

_COLUMNS = documents.c
_PLACE = (_COLUMNS.account_id, _COLUMNS.parent, _COLUMNS.id)


class SqlDocumentScan:
    """Walks along the primary key, so that no batch costs more than another."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def scan(
        self, kind: DocumentKind, *, batch: int = 200
    ) -> AsyncIterator[Sequence[Document]]:
        last: Document | None = None
        while True:
            query = select(documents).where(_COLUMNS.kind == kind)
            if last is not None:
                query = query.where(tuple_(*_PLACE) > (last.account_id, last.parent, last.id))
            async with self._database.read() as connection:
                rows = (await connection.execute(query.order_by(*_PLACE).limit(batch))).all()
            found = [
                Document(
                    kind=kind,
                    account_id=AccountId(row.account_id),
                    parent=row.parent,
                    id=row.id,
                    body=row.body,
                    created_at_s=row.created_at_s,
                    modified_at_s=row.modified_at_s,
                )
                for row in rows
            ]
            if found:
                yield found
                last = found[-1]
            if len(found) < batch:
                return
