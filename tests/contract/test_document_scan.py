"""Every document of a kind is found, whatever its account, and however many there are."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from openworks.core.ids import AccountId
from openworks.ports.documents import AuditEntry, Document, DocumentKind
from openworks.storage.sql.database import Database
from openworks.storage.sql.document_scan import SqlDocumentScan
from openworks.storage.sql.documents import SqlDocumentStore
from tests.contract.conftest import ADAPTERS, OpenDatabase


@pytest.fixture(params=[adapter for adapter in ADAPTERS if adapter != "memory"])
async def database(
    request: pytest.FixtureRequest, open_database: OpenDatabase
) -> AsyncIterator[Database]:
    async with open_database(request.param) as opened:
        yield opened


def document(account: str, parent: str, name: str, kind: DocumentKind = "dataset") -> Document:
    return Document(
        kind=kind,
        account_id=AccountId(account),
        parent=parent,
        id=name,
        body={"name": name},
        created_at_s=1.0,
        modified_at_s=2.0,
    )


async def test_scan_finds_each_document_of_its_kind_once(database: Database) -> None:
    store, scan = SqlDocumentStore(database), SqlDocumentScan(database)
    wanted = [
        document(account, parent, name)
        for account in ("a", "b")
        for parent in ("gw", "other")
        for name in ("1", "2", "3")
    ]
    for item in [*reversed(wanted), document("a", "gw", "1", "evaluation")]:
        entry = AuditEntry(
            at_s=0, account_id=item.account_id, actor="t", action="create", kind="k", target="t"
        )
        await store.insert(item, entry)

    batches = [batch async for batch in scan.scan("dataset", batch=5)]

    assert [len(batch) for batch in batches] == [5, 5, 2]
    assert [item for batch in batches for item in batch] == wanted
    assert [batch async for batch in scan.scan("route")] == []
