"""Small documents of the control plane: gateways, routes, credentials, datasets, ..."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from openworks.core.ids import AccountId
from openworks.core.json import JsonObject

DocumentKind: TypeAlias = Literal[
    "gateway",
    "provider_config",
    "custom_provider",
    "route",
    "route_version",
    "route_deployment",
    "dataset",
    "evaluation",
    "finetune",
    "finetune_asset",
    "public_finetune",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One noun of the control plane, with its body as JSON."""

    kind: DocumentKind
    account_id: AccountId
    parent: str
    """What it belongs to, such as a gateway's id; empty for the account itself."""
    id: str
    """Unique by kind, account and parent."""
    body: JsonObject
    created_at_s: float
    modified_at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One change: who did what to which document, without any secret."""

    at_s: float
    account_id: AccountId
    actor: str
    """A key's id, or `token` for the access token, or `anonymous` on an open server."""
    action: Literal["create", "update", "delete"]
    kind: str
    target: str
    """`parent/id`."""
    changed: tuple[str, ...] = ()
    """The names of the fields that changed; never their values."""


class DocumentStore(Protocol):
    """Keeps documents. Every write leaves its audit entry in the same transaction."""

    async def insert(self, document: Document, entry: AuditEntry) -> None:
        """Keep a new document.

        Raises:
            ConflictError: Its id is taken.
        """
        ...

    async def replace(self, document: Document, entry: AuditEntry) -> bool:
        """Put a document in the place of the one with its id; False when there is none."""
        ...

    async def get(
        self, kind: DocumentKind, account_id: AccountId, parent: str, document_id: str
    ) -> Document | None:
        """Return one document."""
        ...

    async def list(
        self, kind: DocumentKind, account_id: AccountId, parent: str
    ) -> Sequence[Document]:
        """Return all documents of a parent, newest first."""
        ...

    async def delete(
        self,
        kind: DocumentKind,
        account_id: AccountId,
        parent: str,
        document_id: str,
        entry: AuditEntry,
    ) -> bool:
        """Delete one with all whose parent is, or begins with, `id/`; False when there is none."""
        ...

    async def list_audit(
        self, account_id: AccountId, *, limit: int, before_s: float | None = None
    ) -> Sequence[AuditEntry]:
        """Return the latest changes, newest first."""
        ...
