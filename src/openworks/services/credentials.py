"""Provider credentials that are kept here (BYOK), so that callers hold keys of ours alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

from openworks.core.clock import Clock
from openworks.core.errors import ConflictError, InvalidRequestError, NotFoundError
from openworks.core.ids import NewId
from openworks.core.json import JsonObject
from openworks.ports.documents import Document
from openworks.ports.snapshots import ControlStore
from openworks.services.audit import Actor, Audit
from openworks.services.gateways import Gateways, Memory
from openworks.services.keys import masked
from openworks.services.sealing import SEALED_KINDS, Sealer
from openworks.services.vault import Vault
from openworks.wire.cloudflare.nouns import NewProviderConfig, ProviderConfigUpdate

MAX_CREDENTIALS = 1000
"""A gateway has at most so many."""

CheckCredential: TypeAlias = Callable[[str, str], None]
"""Given a provider's slug and a secret: raises `InvalidRequestError` if they do not go together."""


class Credentials:
    """Keeps credentials by gateway; their id is `PROVIDER:ALIAS`, so both together are unique.

    What it returns holds sealed secrets; answers show `secret_preview`.
    """

    def __init__(
        self,
        store: ControlStore,
        vault: Vault,
        audit: Audit,
        gateways: Gateways,
        memory: Memory,
        *,
        clock: Clock,
        new_id: NewId,
        check: CheckCredential = lambda _slug, _secret: None,
    ) -> None:
        self._store = store
        self._vault = vault
        self._sealer = Sealer(vault)
        self._audit = audit
        self._gateways = gateways
        self._memory = memory
        self._clock = clock
        self._new_id = new_id
        self._check = check

    async def create(self, actor: Actor, gateway_id: str, given: NewProviderConfig) -> Document:
        """Keep a credential.

        Raises:
            NotFoundError: There is no such gateway.
            InvalidRequestError: The secret is not what the provider takes, or `secret_id` names
                none of this gateway.
            ConflictError: The provider has one with this alias, or the gateway has too many.
        """
        others = await self.list(actor, gateway_id)
        if len(others) >= MAX_CREDENTIALS:
            raise ConflictError(
                f"The gateway has {MAX_CREDENTIALS} provider configs, which is the limit.",
                code="too_many_provider_configs",
            )
        secret = given.secret or self._secret_of(others, str(given.secret_id))
        self._check(given.provider_slug, secret)
        now_s = self._clock.now_s()
        document = self._sealer.seal(
            Document(
                kind="provider_config",
                account_id=actor.account_id,
                parent=gateway_id,
                id=f"{given.provider_slug}:{given.alias}",
                body={
                    "provider_slug": given.provider_slug,
                    "alias": given.alias,
                    "default_config": given.default_config,
                    "secret": secret,
                    "secret_id": self._new_id("sec_"),
                    "secret_preview": masked(secret),
                    "rate_limit": given.rate_limit,
                    "rate_limit_period": given.rate_limit_period,
                },
                created_at_s=now_s,
                modified_at_s=now_s,
            )
        )
        await self._store.insert(document, self._audit.created(actor, document))
        await self._make_sole_default(actor, document, others)
        self._memory.forget(actor.account_id, gateway_id)
        return document

    async def update(
        self, actor: Actor, gateway_id: str, config_id: str, given: ProviderConfigUpdate
    ) -> Document:
        """Change a credential, its secret for instance; what is left out stays.

        Raises:
            NotFoundError: There is none.
            InvalidRequestError: It would become another's, or the secret is not usable.
        """
        before = await self.get(actor, gateway_id, config_id)
        for name in ("alias", "provider_slug", "secret_id"):
            value = getattr(given, name)
            if value is not None and value != before.body[name]:
                raise InvalidRequestError(
                    f"'{name}' cannot change, got {value[:80]!r}; make another provider config.",
                    param=name,
                )
        fields = given.model_dump(exclude_unset=True, exclude={"secret", "secret_id"})
        body: JsonObject = {**before.body, **{k: v for k, v in fields.items() if v is not None}}
        after = replace(before, body=body, modified_at_s=self._clock.now_s())
        if given.secret is not None:
            self._check(str(body["provider_slug"]), given.secret)
            body |= {
                "secret": given.secret,
                "secret_id": self._new_id("sec_"),
                "secret_preview": masked(given.secret),
            }
            after = self._sealer.seal(after, before)
        if not await self._store.replace(after, self._audit.updated(actor, after, before.body)):
            raise _no_config(config_id)
        await self._make_sole_default(actor, after, await self.list(actor, gateway_id))
        self._memory.forget(actor.account_id, gateway_id)
        return after

    async def get(self, actor: Actor, gateway_id: str, config_id: str) -> Document:
        """Return a credential.

        Raises:
            NotFoundError: There is none.
        """
        found = await self._store.get("provider_config", actor.account_id, gateway_id, config_id)
        if found is None:
            raise _no_config(config_id)
        return found

    async def list(self, actor: Actor, gateway_id: str) -> Sequence[Document]:
        """Return a gateway's credentials, newest first.

        Raises:
            NotFoundError: There is no such gateway.
        """
        await self._gateways.ensure(actor, gateway_id)
        return await self._store.list("provider_config", actor.account_id, gateway_id)

    async def delete(self, actor: Actor, gateway_id: str, config_id: str) -> Document:
        """Forget a credential.

        Raises:
            NotFoundError: There is none.
        """
        found = await self.get(actor, gateway_id, config_id)
        entry = self._audit.deleted(actor, found)
        await self._store.delete("provider_config", actor.account_id, gateway_id, config_id, entry)
        self._memory.forget(actor.account_id, gateway_id)
        return found

    async def rotate(self, actor: Actor, new_key: bytes | None = None) -> int:
        """Seal the secrets of all accounts with another master key; return of how many documents.

        Args:
            actor: Stands in the audit log.
            new_key: 32 bytes that become the master key; None for the newest that there is.
        """
        if new_key is not None:
            await asyncio.to_thread(self._vault.add, new_key)
        entry = self._audit.rotated(actor, self._vault.current)
        return await self._store.rewrite(SEALED_KINDS, self._sealer.reseal, entry)

    def _secret_of(self, others: Sequence[Document], secret_id: str) -> str:
        for item in others:
            if item.body["secret_id"] == secret_id:
                return str(self._sealer.open(item).body["secret"])
        raise InvalidRequestError(
            f"No provider config of this gateway has the secret_id {secret_id[:80]!r}; give the "
            "secret itself.",
            param="secret_id",
        )

    async def _make_sole_default(
        self, actor: Actor, document: Document, others: Sequence[Document]
    ) -> None:
        """A provider has one default: the one that was made so last."""
        if document.body["default_config"] is not True:
            return
        for item in others:
            is_other = item.id != document.id and item.body["default_config"] is True
            if is_other and item.body["provider_slug"] == document.body["provider_slug"]:
                after = replace(
                    item,
                    body={**item.body, "default_config": False},
                    modified_at_s=self._clock.now_s(),
                )
                await self._store.replace(after, self._audit.updated(actor, after, item.body))


def _no_config(config_id: str) -> NotFoundError:
    return NotFoundError(f"No provider config found with id {config_id[:140]!r}.")
