"""Documents in memory, held to the same contract as those in SQL."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

from openworks.core.errors import ConflictError, StorageError
from openworks.core.ids import AccountId
from openworks.core.json import JsonObject
from openworks.ports.documents import AuditEntry, Document, DocumentKind

_Key: TypeAlias = tuple[str, str, str, str]


class MemoryDocumentStore:
    """Documents in a dict; `is_away` makes it fail, `reads` counts what was asked."""

    def __init__(self) -> None:
        self._documents: dict[_Key, Document] = {}
        self.audit: list[AuditEntry] = []
        self.is_away = False
        self.reads = 0

    @property
    def documents(self) -> list[Document]:
        return list(self._documents.values())

    async def insert(self, document: Document, entry: AuditEntry) -> None:
        self._check()
        if _key(document) in self._documents:
            noun = document.kind.replace("_", " ")
            raise ConflictError(f"A {noun} with id '{document.id}' exists already.")
        self._documents[_key(document)] = copy.deepcopy(document)
        self.audit.append(entry)

    async def replace(self, document: Document, entry: AuditEntry) -> bool:
        self._check()
        if _key(document) not in self._documents:
            return False
        self._documents[_key(document)] = copy.deepcopy(document)
        self.audit.append(entry)
        return True

    async def get(
        self, kind: DocumentKind, account_id: AccountId, parent: str, document_id: str
    ) -> Document | None:
        self._check()
        return copy.deepcopy(self._documents.get((kind, account_id, parent, document_id)))

    async def list(
        self, kind: DocumentKind, account_id: AccountId, parent: str
    ) -> Sequence[Document]:
        self._check()
        return self._newest_first(
            lambda item: (item.kind, item.account_id, item.parent) == (kind, account_id, parent)
        )

    async def delete(
        self,
        kind: DocumentKind,
        account_id: AccountId,
        parent: str,
        document_id: str,
        entry: AuditEntry,
    ) -> bool:
        self._check()
        if self._documents.pop((kind, account_id, parent, document_id), None) is None:
            return False
        path = f"{parent}/{document_id}" if parent else document_id
        for key in list(self._documents):
            if key[1] == account_id and f"{key[2]}/".startswith(f"{path}/"):
                del self._documents[key]
        self.audit.append(entry)
        return True

    async def list_around(self, account_id: AccountId, gateway_id: str) -> Sequence[Document]:
        self._check()
        self.reads += 1

        def belongs(item: Document) -> bool:
            if item.kind == "gateway":
                return item.id == gateway_id
            if item.kind in ("provider_config", "route"):
                return item.parent == gateway_id
            return item.kind == "custom_provider"

        return self._newest_first(lambda item: item.account_id == account_id and belongs(item))

    async def rewrite(
        self,
        kinds: Sequence[DocumentKind],
        change: Callable[[Document], JsonObject | None],
        entry: AuditEntry,
    ) -> int:
        self._check()
        rewritten = 0
        for key, item in list(self._documents.items()):
            body = change(copy.deepcopy(item)) if item.kind in kinds else None
            if body is not None:
                self._documents[key] = replace(item, body=body)
                rewritten += 1
        self.audit.append(entry)
        return rewritten

    async def list_audit(
        self, account_id: AccountId, *, limit: int, before_s: float | None = None
    ) -> Sequence[AuditEntry]:
        self._check()
        found = [
            entry
            for entry in reversed(self.audit)
            if entry.account_id == account_id and (before_s is None or entry.at_s < before_s)
        ]
        return sorted(found, key=lambda entry: -entry.at_s)[:limit]

    def _newest_first(self, matches: Callable[[Document], bool]) -> Sequence[Document]:
        found = [copy.deepcopy(item) for item in self._documents.values() if matches(item)]
        return sorted(found, key=lambda item: (item.created_at_s, item.id), reverse=True)

    def _check(self) -> None:
        if self.is_away:
            raise StorageError("The database failed: it is away.")


def _key(document: Document) -> _Key:
    return (document.kind, document.account_id, document.parent, document.id)
