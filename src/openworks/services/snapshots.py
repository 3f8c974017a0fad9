"""Gateways in memory, with all that calls need of them: looked up at once, and never long stale."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from openworks.core.clock import Clock
from openworks.core.errors import (
    AppError,
    ConflictError,
    InternalError,
    InvalidRequestError,
    StorageError,
)
from openworks.core.ids import AccountId
from openworks.core.json import JsonObject
from openworks.ports.documents import Document
from openworks.ports.gateways import DEFAULT_GATEWAY, Gateway, RateLimit
from openworks.ports.snapshots import (
    DEFAULT_ALIAS,
    ActiveRoute,
    ControlStore,
    Credential,
    CustomProvider,
    GatewaySnapshot,
)
from openworks.services.audit import Actor, Audit
from openworks.services.gateway_documents import EPOCH, to_gateway
from openworks.services.sealing import MASK, Sealer
from openworks.wire.cloudflare.gateway import defaults
from openworks.wire.cloudflare.nouns import parse_headers

log = logging.getLogger(__name__)

REFRESH_S = 1.0
"""An entry of this age is read again while it still answers."""
FRESH_S = 2.0
"""An entry of this age answers no more, unless the database is away."""
STALE_S = 600.0
"""For so long an entry stands in for a database that is away."""
PATIENCE_S = 1.0
"""A call waits for so long for a slow database before an older entry answers it."""
MAX_ENTRIES = 4096
"""So many gateways are kept; the one that was read longest ago goes first."""


_Key: TypeAlias = tuple[str, str]
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_ACCOUNT_CHARS = 256


@dataclass(slots=True)
class _Entry:
    snapshot: GatewaySnapshot | None
    source: Sequence[Document]
    refresh_at_s: float
    fresh_until_s: float
    stale_until_s: float


class GatewaySnapshots:
    """Snapshots by account and gateway. Reading again is a task that ends by itself."""

    def __init__(
        self,
        store: ControlStore,
        sealer: Sealer,
        audit: Audit,
        *,
        clock: Clock,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._store = store
        self._sealer = sealer
        self._audit = audit
        self._clock = clock
        self._patience_s = patience_s
        self._entries: dict[_Key, _Entry] = {}
        self._reading: dict[_Key, asyncio.Task[GatewaySnapshot | None]] = {}

    def snapshot_nowait(self, account_id: AccountId, gateway_id: str) -> GatewaySnapshot | None:
        key = (account_id, gateway_id)
        entry = self._entries.get(key)
        if entry is None:
            return None
        now_s = self._clock.monotonic_s()
        if now_s >= entry.refresh_at_s:
            if now_s >= entry.fresh_until_s:
                return None
            if key not in self._reading:
                self._read(key)
        return entry.snapshot

    def peek(self, account_id: AccountId, gateway_id: str) -> Gateway | None:
        """Return the gateway of `snapshot_nowait`."""
        snapshot = self.snapshot_nowait(account_id, gateway_id)
        return None if snapshot is None else snapshot.gateway

    async def snapshot(self, account_id: AccountId, gateway_id: str) -> GatewaySnapshot | None:
        if not _NAME.fullmatch(gateway_id) or len(account_id) > _MAX_ACCOUNT_CHARS:
            return None  # what callers make up fills neither memory nor the database
        key = (account_id, gateway_id)
        entry = self._entries.get(key)
        now_s = self._clock.monotonic_s()
        if entry is not None and now_s < entry.fresh_until_s:
            return entry.snapshot
        task = self._reading.get(key) or self._read(key)
        if entry is None or now_s >= entry.stale_until_s:
            return await asyncio.shield(task)
        done, _ = await asyncio.wait({task}, timeout=self._patience_s)
        if done:
            try:
                return task.result()
            except AppError:
                pass
        # The database is away. Until the next try, others need not find that out for themselves.
        entry.refresh_at_s = self._clock.monotonic_s() + REFRESH_S
        entry.fresh_until_s = min(entry.refresh_at_s + REFRESH_S, entry.stale_until_s)
        return entry.snapshot

    async def existing(self, account_id: AccountId, gateway_id: str) -> GatewaySnapshot | None:
        if gateway_id == DEFAULT_GATEWAY and (account_id, gateway_id) not in self._entries:
            if len(account_id) > _MAX_ACCOUNT_CHARS:
                return None
            if await self._store.get("gateway", account_id, "", gateway_id) is None:
                return None
        return await self.snapshot(account_id, gateway_id)

    def forget(self, account_id: AccountId, gateway_id: str | None = None) -> None:
        """Read a gateway anew when it is needed next; None for all of the account."""
        for key in {*self._entries, *self._reading}:
            if key[0] == account_id and gateway_id in (None, key[1]):
                entry = self._entries.get(key)
                if entry is not None:  # kept: it still stands in for a database that is away
                    entry.refresh_at_s = entry.fresh_until_s = 0.0
                self._reading.pop(key, None)  # it may have read what was before the change

    async def close(self) -> None:
        """End what is being read."""
        tasks = list(self._reading.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _read(self, key: _Key) -> asyncio.Task[GatewaySnapshot | None]:
        task = asyncio.create_task(self._load(key))
        self._reading[key] = task
        task.add_done_callback(lambda done: self._ended(key, done))
        return task

    def _ended(self, key: _Key, task: asyncio.Task[GatewaySnapshot | None]) -> None:
        if self._reading.get(key) is task:
            del self._reading[key]
        error = None if task.cancelled() else task.exception()
        if isinstance(error, AppError):
            log.warning("gateway.read_failed", extra={"gateway": key[1], "error": error.message})
        elif error is not None:
            log.error("gateway.read_failed", extra={"gateway": key[1]}, exc_info=error)

    async def _load(self, key: _Key) -> GatewaySnapshot | None:
        account_id, gateway_id = AccountId(key[0]), key[1]
        begun_s = self._clock.monotonic_s()
        found = await self._store.list_around(account_id, gateway_id)
        if gateway_id == DEFAULT_GATEWAY and not any(item.kind == "gateway" for item in found):
            found = [await self._make_default(account_id), *found]
        before = self._entries.get(key)
        unchanged = before is not None and before.source == found
        snapshot = before.snapshot if before and unchanged else self._build(found)
        if self._reading.get(key) is asyncio.current_task():
            self._keep(key, found, snapshot, begun_s)
        return snapshot

    def _keep(
        self,
        key: _Key,
        source: Sequence[Document],
        snapshot: GatewaySnapshot | None,
        begun_s: float,
    ) -> None:
        self._entries.pop(key, None)
        self._entries[key] = _Entry(
            snapshot=snapshot,
            source=source,
            refresh_at_s=begun_s + REFRESH_S,
            fresh_until_s=begun_s + FRESH_S,
            stale_until_s=begun_s + STALE_S,
        )
        if len(self._entries) > MAX_ENTRIES:
            del self._entries[next(iter(self._entries))]

    async def _make_default(self, account_id: AccountId) -> Document:
        """Write the gateway `default` down; when that fails, it works all the same."""
        now_s = self._clock.now_s()
        document = Document(
            kind="gateway",
            account_id=account_id,
            parent="",
            id=DEFAULT_GATEWAY,
            body={**defaults(), EPOCH: 0},
            created_at_s=now_s,
            modified_at_s=now_s,
        )
        actor = Actor(account_id=account_id, name="system")
        try:
            await self._store.insert(document, self._audit.created(actor, document))
        except ConflictError:  # made in this moment: perhaps with other fields
            made = await self._store.get("gateway", account_id, "", DEFAULT_GATEWAY)
            return made or document
        except StorageError as error:
            log.warning("gateway.default_not_kept", extra={"error": error.message})
        return document

    def _build(self, documents: Sequence[Document]) -> GatewaySnapshot | None:
        by_kind: dict[str, list[Document]] = {}
        for item in documents:
            by_kind.setdefault(item.kind, []).append(item)
        if "gateway" not in by_kind:
            return None
        try:
            gateway = to_gateway(self._sealer.open(by_kind["gateway"][0]))
        except InvalidRequestError as exc:  # another version of this server wrote it
            raise InternalError(f"A stored gateway cannot be used: {exc.message}") from exc
        credentials = self._credentials(by_kind.get("provider_config", ()))
        return GatewaySnapshot(
            gateway=gateway,
            credentials={(item.provider_slug, item.alias): item for item in credentials},
            defaults=_defaults(credentials),
            custom_providers=self._custom_providers(by_kind.get("custom_provider", ())),
            routes=_routes(by_kind.get("route", ())),
        )

    def _credentials(self, documents: Sequence[Document]) -> list[Credential]:
        found = []
        for item in documents:
            body = self._sealer.open(item).body
            if body["secret"] == MASK:
                log.error("credential.unreadable", extra={"gateway": item.parent, "id": item.id})
                continue
            found.append(
                Credential(
                    id=item.id,
                    provider_slug=str(body["provider_slug"]),
                    alias=str(body["alias"]),
                    is_default=body["default_config"] is True,
                    secret=str(body["secret"]),
                    rate_limit=_rate_limit(body),
                )
            )
        return found

    def _custom_providers(self, documents: Sequence[Document]) -> dict[str, CustomProvider]:
        found = {}
        for item in documents:
            body = self._sealer.open(item).body
            headers = body["headers"]
            if headers == MASK:
                log.error("custom_provider.unreadable", extra={"slug": item.id})
                continue
            found[item.id] = CustomProvider(
                slug=item.id,
                name=str(body["name"]),
                base_url=str(body["base_url"]),
                enabled=body["enable"] is True,
                headers=parse_headers(headers) if isinstance(headers, str) else {},
            )
        return found


def _defaults(credentials: Sequence[Credential]) -> dict[str, Credential]:
    """By provider: the one that is marked, else the one whose alias is `default`."""
    found: dict[str, Credential] = {}
    for item in credentials:
        if item.alias == DEFAULT_ALIAS:
            found[item.provider_slug] = item
    for item in reversed(credentials):  # newest first, and the newest mark counts
        if item.is_default:
            found[item.provider_slug] = item
    return found


def _rate_limit(body: JsonObject) -> RateLimit | None:
    limit, period_s = body["rate_limit"], body["rate_limit_period"]
    if not isinstance(limit, int | float) or not isinstance(period_s, int | float):
        return None
    if limit < 1 or period_s < 1:
        return None
    return RateLimit(limit=int(limit), interval_s=int(period_s))


def _routes(documents: Sequence[Document]) -> dict[str, ActiveRoute]:
    # Newest first, so that of two that got one name at one moment the older one answers.
    found = {}
    for item in documents:
        elements, name = item.body["elements"], str(item.body["name"])
        assert isinstance(elements, list)
        found[name] = ActiveRoute(
            id=item.id,
            name=name,
            version_id=str(item.body["version_id"]),
            elements=tuple(element for element in elements if isinstance(element, dict)),
        )
    return found
