"""All that a gateway call needs of the control plane, in one value that is looked up at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from openworks.core.ids import AccountId
from openworks.core.json import JsonObject
from openworks.ports.documents import AuditEntry, Document, DocumentKind, DocumentStore
from openworks.ports.gateways import Gateway, RateLimit

DEFAULT_ALIAS = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A provider's key that is kept here, so that callers need none of their own."""

    id: str
    provider_slug: str
    alias: str
    is_default: bool
    """Whether it stands for its provider when a caller names no alias."""
    secret: str = field(repr=False)
    rate_limit: RateLimit | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomProvider:
    """A provider that an account added, called as `custom-SLUG`."""

    slug: str
    name: str
    base_url: str
    enabled: bool
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent with every request; they may hold credentials."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveRoute:
    """A dynamic route and the version of it that is deployed."""

    id: str
    name: str
    version_id: str
    """Names `elements` for good: a version never changes, so what is made of it can be kept."""
    elements: tuple[JsonObject, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySnapshot:
    """One gateway at one moment. The same object until something changes, so `is` compares."""

    gateway: Gateway
    credentials: Mapping[tuple[str, str], Credential] = field(default_factory=dict, repr=False)
    """By provider slug and alias. One that cannot be decrypted any more is left out."""
    defaults: Mapping[str, Credential] = field(default_factory=dict, repr=False)
    """By provider slug: the credential for callers that name no alias."""
    custom_providers: Mapping[str, CustomProvider] = field(default_factory=dict)
    """Of the account, by slug."""
    routes: Mapping[str, ActiveRoute] = field(default_factory=dict)
    """By name."""

    def credential(self, provider_slug: str, alias: str | None = None) -> Credential | None:
        """Return the credential for a provider, by alias or the one that is its default."""
        if alias is None:
            return self.defaults.get(provider_slug)
        return self.credentials.get((provider_slug, alias))


class Snapshots(Protocol):
    """Gives snapshots; a change by another process shows within 2 seconds."""

    def snapshot_nowait(self, account_id: AccountId, gateway_id: str) -> GatewaySnapshot | None:
        """Return what is in memory and fresh; None says nothing but that one must wait."""
        ...

    async def snapshot(self, account_id: AccountId, gateway_id: str) -> GatewaySnapshot | None:
        """Return the gateway, or None when there is none; `default` is made when it is not there.

        Raises:
            StorageError: The database is away, and has been for longer than memory may stand in.
        """
        ...

    async def existing(self, account_id: AccountId, gateway_id: str) -> GatewaySnapshot | None:
        """As `snapshot`, but nothing is made: for strangers, who may name any account."""
        ...


class ControlStore(DocumentStore, Protocol):
    """A store of documents that snapshots can be made of, and whose secrets can be sealed anew."""

    async def list_around(self, account_id: AccountId, gateway_id: str) -> Sequence[Document]:
        """Return a gateway with its credentials and routes, and its account's custom providers.

        Newest first. The gateway itself may be missing while others are there.
        """
        ...

    async def rewrite(
        self,
        kinds: Sequence[DocumentKind],
        change: Callable[[Document], JsonObject | None],
        entry: AuditEntry,
    ) -> int:
        """Give every document of `kinds`, of all accounts, the body that `change` returns for it.

        All in one transaction; None leaves a document alone, and no time of change moves. Returns
        how many were rewritten.
        """
        ...
