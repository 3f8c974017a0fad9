"""API keys as they are kept: never the secret, only its hash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from openworks.core.ids import AccountId, KeyId
from openworks.ports.calls import Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key without its secret."""

    id: KeyId
    account_id: AccountId
    name: str
    hash: str
    """SHA-256 of the secret, in hex; the secret carries 143 bits, so no salt is needed."""
    hint: str
    """The secret's beginning and end, enough to recognise it."""
    scopes: frozenset[Scope]
    allowed_models: frozenset[str] | None
    """None for every model."""
    created_at_s: float
    expires_at_s: float | None = None
    revoked_at_s: float | None = None


class KeyStore(Protocol):
    """Where keys are kept."""

    async def insert(self, key: ApiKey) -> None:
        """Keep a new key, and its account if it is new.

        Raises:
            ConflictError: Its id or its hash is there already.
        """
        ...

    async def get_by_hash(self, key_hash: str) -> ApiKey | None:
        """Find a key by the hash of its secret, whatever its state."""
        ...

    async def list(self, *, account_id: AccountId | None = None) -> Sequence[ApiKey]:
        """Return the keys, oldest first; of one account if given."""
        ...

    async def revoke(self, key_id: KeyId, *, at_s: float) -> bool:
        """Mark a key as revoked; False when there is none. Revoking twice keeps the first time."""
        ...

    async def count_unrevoked(self) -> int:
        """How many keys were made and not revoked; an expired one still counts."""
        ...
