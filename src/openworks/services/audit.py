"""Who changed what: makes the entry that each change leaves, and lists them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from openworks.core.clock import Clock
from openworks.core.ids import AccountId
from openworks.core.json import JsonObject
from openworks.ports.documents import AuditEntry, Document, DocumentStore

Action: TypeAlias = Literal["create", "update", "delete"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who changes something, and in which account."""

    account_id: AccountId
    name: str
    """A key's id, `token`, `anonymous`, or `system` for what the server does by itself."""


class Audit:
    """The log of changes."""

    def __init__(self, store: DocumentStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def created(self, actor: Actor, document: Document) -> AuditEntry:
        """Return the entry for a new document."""
        fields = (key for key, value in document.body.items() if value not in (None, [], {}))
        return self._entry(actor, "create", document, fields)

    def updated(self, actor: Actor, document: Document, before: JsonObject) -> AuditEntry:
        """Return the entry for a change of a document that was `before`."""
        fields = set(before) | set(document.body)
        changed = (name for name in fields if before.get(name) != document.body.get(name))
        return self._entry(actor, "update", document, changed)

    def deleted(self, actor: Actor, document: Document) -> AuditEntry:
        """Return the entry for the end of a document."""
        return self._entry(actor, "delete", document, ())

    def rotated(self, actor: Actor, key_id: str) -> AuditEntry:
        """Return the entry for secrets that were sealed anew."""
        return AuditEntry(
            at_s=self._now_s(),
            account_id=actor.account_id,
            actor=actor.name,
            action="update",
            kind="secret_key",
            target=key_id,
        )

    async def list(
        self, account_id: AccountId, *, limit: int, before_s: float | None = None
    ) -> Sequence[AuditEntry]:
        """Return the latest changes, newest first."""
        return await self._store.list_audit(account_id, limit=limit, before_s=before_s)

    def _entry(
        self, actor: Actor, action: Action, document: Document, changed: Iterable[str]
    ) -> AuditEntry:
        return AuditEntry(
            at_s=self._now_s(),
            account_id=actor.account_id,
            actor=actor.name,
            action=action,
            kind=document.kind,
            target=f"{document.parent}/{document.id}" if document.parent else document.id,
            changed=tuple(sorted(changed)),
        )

    def _now_s(self) -> float:
        return round(self._clock.now_s(), 6)  # what answers show, so that it can be asked for
