"""API keys: made once, kept as hashes, looked up quickly."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from openworks.core.clock import Clock
from openworks.core.errors import AppError, AuthenticationError, NotFoundError
from openworks.core.ids import AccountId, KeyId, NewId
from openworks.ports.calls import Principal, Scope
from openworks.ports.keys import ApiKey, KeyStore

log = logging.getLogger(__name__)

SECRET_PREFIX = "sk-ow-"
DEFAULT_ACCOUNT = AccountId("default")

_CACHE_SIZE = 10_000
_FRESH_S = 2.0
"""A revoked key works for at most this long on another process's server."""
_REFRESH_S = 1.0
_STALE_S = 600.0
"""When the database cannot be asked, a key seen within this time still works."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessConfig:
    """Who may call."""

    token: str | None = None
    """One secret with every right, for a server of one person; OPENWORKS_ACCESS_TOKEN sets it."""

    def __repr__(self) -> str:
        return f"AccessConfig(token={'***' if self.token else None})"


class Keys:
    """Makes and checks keys."""

    def __init__(
        self, store: KeyStore, config: AccessConfig, *, clock: Clock, new_id: NewId
    ) -> None:
        self._store = store
        self._config = config
        self._clock = clock
        self._new_id = new_id
        self._seen: OrderedDict[str, tuple[float, ApiKey | None]] = OrderedDict()
        self._was_guarded = False
        self._looked_at_s: float | None = None
        self._reading: dict[str, asyncio.Task[ApiKey | None]] = {}
        self._looking: asyncio.Task[bool] | None = None

    async def close(self) -> None:
        """End what is being read."""
        tasks: list[asyncio.Task[Any]] = list(self._reading.values())
        if self._looking is not None:
            tasks.append(self._looking)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def create(
        self,
        *,
        name: str,
        account_id: AccountId = DEFAULT_ACCOUNT,
        scopes: Iterable[Scope] = ("inference",),
        allowed_models: Iterable[str] | None = None,
        expires_at_s: float | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key; return it with its secret, which is not kept and cannot be shown again."""
        secret = self._new_id(SECRET_PREFIX)
        key = ApiKey(
            id=KeyId(self._new_id("key_")),
            account_id=account_id,
            name=name,
            hash=hash_secret(secret),
            hint=f"{secret[: len(SECRET_PREFIX) + 3]}...{secret[-4:]}",
            scopes=frozenset(scopes),
            allowed_models=None if allowed_models is None else frozenset(allowed_models),
            created_at_s=self._clock.now_s(),
            expires_at_s=expires_at_s,
        )
        await self._store.insert(key)
        return key, secret

    async def list(self) -> Sequence[ApiKey]:
        """Return every key, oldest first."""
        return await self._store.list()

    async def revoke(self, key_id: KeyId) -> None:
        """Make a key useless.

        Raises:
            NotFoundError: There is no such key.
        """
        if not await self._store.revoke(key_id, at_s=self._clock.now_s()):
            raise NotFoundError(f"No key found with id {key_id!r}.")
        self._seen.clear()
        self._reading.clear()  # they may have read what was before

    @property
    def token(self) -> bytes | None:
        """The access token of the settings."""
        return None if self._config.token is None else self._config.token.encode()

    @property
    def is_known_guarded(self) -> bool:
        """Whether a secret is needed for all that is known without asking the database."""
        return self._config.token is not None or self._was_guarded

    def peek(self, secret: str | None) -> Principal | None:
        """Return who shows `secret` if that is known and fresh; None says that one must ask.

        What is half as old as it may be is read again meanwhile, so that a busy key is never waited
        for. Must be called within the running loop.
        """
        now_s = self._clock.monotonic_s()
        if not self.is_known_guarded:
            age_s = _STALE_S if self._looked_at_s is None else now_s - self._looked_at_s
            if age_s >= _REFRESH_S:
                self._look()
            return _ANYBODY if age_s < _FRESH_S else None
        if not secret:
            return None
        token = self._config.token
        if token is not None and hmac.compare_digest(token.encode(), secret.encode()):
            return _OWNER
        key_hash = hash_secret(secret)
        cached = self._seen.get(key_hash)
        if cached is None or cached[1] is None:
            return None
        age_s = now_s - cached[0]
        if age_s >= _REFRESH_S:
            self._read(key_hash)
            if age_s >= _FRESH_S:
                return None
        key = cached[1]
        return _principal(key) if is_active(key, self._clock.now_s()) else None

    async def is_guarded(self) -> bool:
        """Whether a secret is needed: an access token is set, or there has been a key.

        A server never opens while it runs: revoking its last key, or letting it expire, must not
        let everybody in.
        """
        if self._config.token is not None or self._was_guarded:
            return True
        now_s = self._clock.monotonic_s()
        seen_s = None if self._looked_at_s is None else now_s - self._looked_at_s
        if seen_s is None or seen_s >= _FRESH_S:
            try:
                await asyncio.shield(self._look())
            except AppError:
                if seen_s is None or seen_s >= _STALE_S:
                    raise
        return self._was_guarded

    def _look(self) -> asyncio.Task[bool]:
        """Ask whether there are keys; those who ask meanwhile share the answer."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._count())
            self._looking.add_done_callback(self._looked)
        return self._looking

    def _looked(self, task: asyncio.Task[bool]) -> None:
        self._looking = None
        _note_failure(task)

    async def _count(self) -> bool:
        began_s = self._clock.monotonic_s()
        has_keys = await self._store.count_unrevoked() > 0
        self._was_guarded = self._was_guarded or has_keys
        self._looked_at_s = began_s
        return self._was_guarded

    async def check_store(self) -> None:
        """Return if the store of keys answers; raise its error otherwise."""
        await self._store.count_unrevoked()

    async def authenticate(self, secret: str | None) -> Principal:
        """Return who shows `secret`; on an unguarded server, everybody is the default account.

        Raises:
            AuthenticationError: It is missing, unknown, revoked or expired.
        """
        if not await self.is_guarded():
            return _ANYBODY
        if not secret:
            raise AuthenticationError(
                "You didn't provide an API key. Send it in an Authorization header: "
                "Authorization: Bearer YOUR_KEY. Make one with: openworks keys create",
                code="missing_api_key",
            )
        token = self._config.token
        if token is not None and hmac.compare_digest(token.encode(), secret.encode()):
            return _OWNER
        key = await self._look_up(hash_secret(secret))
        if key is None or not is_active(key, self._clock.now_s()):
            raise AuthenticationError(f"Incorrect API key provided: {masked(secret)}.")
        return _principal(key)

    async def _look_up(self, key_hash: str) -> ApiKey | None:
        now_s = self._clock.monotonic_s()
        cached = self._seen.get(key_hash)
        if cached is not None and now_s - cached[0] < _FRESH_S:
            return cached[1]
        try:
            return await asyncio.shield(self._read(key_hash))
        except AppError:
            if cached is not None and now_s - cached[0] < _STALE_S:
                return cached[1]
            raise

    def _read(self, key_hash: str) -> asyncio.Task[ApiKey | None]:
        """Ask for a key; those who ask for it meanwhile share the answer."""
        task = self._reading.get(key_hash)
        if task is None:
            task = self._reading[key_hash] = asyncio.create_task(self._fetch(key_hash))

            def ended(task: asyncio.Task[ApiKey | None]) -> None:
                if self._reading.get(key_hash) is task:
                    del self._reading[key_hash]
                _note_failure(task)

            task.add_done_callback(ended)
        return task

    async def _fetch(self, key_hash: str) -> ApiKey | None:
        began_s = self._clock.monotonic_s()
        key = await self._store.get_by_hash(key_hash)
        if key_hash not in self._reading:
            return key  # what was known has been forgotten meanwhile
        self._seen[key_hash] = (began_s, key)
        self._seen.move_to_end(key_hash)
        if len(self._seen) > _CACHE_SIZE:
            self._seen.popitem(last=False)
        return key


def _note_failure(task: asyncio.Task[Any]) -> None:
    """Look at how a task ended: whoever waits for it is told, and nobody need wait."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("keys.unreadable", extra={"error": str(error)})


_ANYBODY = Principal(account_id=DEFAULT_ACCOUNT)
_OWNER = _ANYBODY
"""Whoever has the access token may do what everybody may on an open server."""


@lru_cache(maxsize=1024)
def _principal(key: ApiKey) -> Principal:
    return Principal(
        account_id=key.account_id,
        key_id=key.id,
        scopes=key.scopes,
        allowed_models=key.allowed_models,
    )


def is_active(key: ApiKey, now_s: float) -> bool:
    """Whether a key is neither revoked nor expired."""
    return key.revoked_at_s is None and (key.expires_at_s is None or now_s < key.expires_at_s)


def hash_secret(secret: str) -> str:
    """SHA-256 in hex; the secrets are random, so a slow hash would protect nothing more."""
    return hashlib.sha256(secret.encode()).hexdigest()


def masked(secret: str) -> str:
    """Enough of a secret to recognise it, too little to use it."""
    return f"{secret[:3]}***{secret[-4:]}" if len(secret) > 12 else "***"
