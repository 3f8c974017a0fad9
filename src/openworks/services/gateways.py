"""Gateways as their owners manage them; `default` is made when it is first asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from openworks.core.clock import Clock
from openworks.core.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
)
from openworks.core.ids import AccountId
from openworks.core.json import JsonObject, JsonValue
from openworks.ports.calls import Principal
from openworks.ports.documents import Document, DocumentStore
from openworks.ports.gateways import DEFAULT_GATEWAY, Gateway
from openworks.services.audit import Actor, Audit
from openworks.services.gateway_documents import EPOCH, fields_of, to_gateway
from openworks.services.keys import DEFAULT_ACCOUNT
from openworks.services.log_encryption import LogCipher
from openworks.services.sealing import Sealer
from openworks.wire.cloudflare.gateway import defaults, parse_gateway, parse_gateway_id

MAX_GATEWAYS = 1000
"""An account has at most so many."""

_ACCOUNT = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Memory(Protocol):
    """What is told when a gateway, or anything that belongs to it, changes."""

    def forget(self, account_id: AccountId, gateway_id: str | None = None) -> None:
        """Read a gateway anew when it is needed next; None for all of the account."""
        ...


def account_of(principal: Principal, name: str) -> AccountId:
    """Return the account that `name` in a path stands for.

    A key opens its own account, which it may also call `default`. Where there are no keys, and for
    the access token, every name is an account of its own.

    Raises:
        InvalidRequestError: It is no name.
        PermissionDeniedError: It is another's.
    """
    if principal.key_id is not None:
        if name in (principal.account_id, DEFAULT_ACCOUNT):
            return principal.account_id
        raise PermissionDeniedError(
            f"This key is not for the account {name[:80]!r}.", code="account_mismatch"
        )
    if not _ACCOUNT.fullmatch(name):
        raise InvalidRequestError(
            f"An account is named by up to 64 letters, digits, '_' and '-', got {name[:80]!r}.",
            param="account_id",
        )
    return AccountId(name)


def _check_logpush(fields: JsonObject) -> None:
    """Return if the pushed logs can be sealed, where they are to be.

    Raises:
        InvalidRequestError: The public key is none.
    """
    key = fields.get("logpush_public_key")
    if fields.get("logpush") and isinstance(key, str) and key:
        LogCipher(key)


class Gateways:
    """Makes, changes and lists gateways. What it returns shows secrets masked."""

    def __init__(
        self,
        store: DocumentStore,
        sealer: Sealer,
        audit: Audit,
        memory: Memory,
        *,
        clock: Clock,
        check: Callable[[Gateway], None] = lambda _: None,
    ) -> None:
        """Keep gateways in `store`; `check` raises for those that the data path could not run."""
        self._check = check
        self._store = store
        self._sealer = sealer
        self._audit = audit
        self._memory = memory
        self._clock = clock

    async def create(self, actor: Actor, body: JsonValue) -> Document:
        """Make a gateway of what its owner wrote.

        Raises:
            InvalidRequestError: A field is wrong or missing.
            ConflictError: Its id is taken, or the account has as many as it may.
        """
        gateway_id = parse_gateway_id(body)
        assert isinstance(body, dict)
        unmasked = self._sealer.unmask("gateway", body, None)
        fields = parse_gateway(unmasked, before=defaults())
        if len(await self._store.list("gateway", actor.account_id, "")) >= MAX_GATEWAYS:
            raise ConflictError(
                f"The account has {MAX_GATEWAYS} gateways, which is the limit.",
                code="too_many_gateways",
            )
        return await self._insert(actor, gateway_id, fields, check=True)

    async def update(self, actor: Actor, gateway_id: str, body: JsonValue) -> Document:
        """Change a gateway; fields that `body` leaves out stay as they are.

        Raises:
            NotFoundError: There is none.
            InvalidRequestError: A field is wrong, or one of the required ones is missing.
        """
        before = await self._find(actor, gateway_id)
        given = self._given(before, body)
        opened = self._sealer.open(before)
        fields = parse_gateway(
            self._sealer.unmask("gateway", given, before), before=fields_of(opened.body)
        )
        epoch = before.body.get(EPOCH)
        if fields["cache_invalidate_on_update"]:
            epoch = (epoch if isinstance(epoch, int) else 0) + 1
        _check_logpush(fields)
        changed = replace(before, body={**fields, EPOCH: epoch}, modified_at_s=self._clock.now_s())
        self._check(to_gateway(changed))
        after = self._sealer.seal(changed, before)
        if not await self._store.replace(after, self._audit.updated(actor, after, before.body)):
            raise no_gateway(gateway_id)
        self._memory.forget(actor.account_id, gateway_id)
        return self._sealer.mask(after)

    async def get(self, actor: Actor, gateway_id: str) -> Document:
        """Return a gateway.

        Raises:
            NotFoundError: There is none.
        """
        return self._sealer.mask(await self._find(actor, gateway_id))

    async def list(self, account_id: AccountId, *, search: str = "") -> Sequence[Document]:
        """Return the gateways whose id contains `search`, newest first."""
        found = await self._store.list("gateway", account_id, "")
        return [self._sealer.mask(item) for item in found if search.lower() in item.id.lower()]

    async def delete(self, actor: Actor, gateway_id: str) -> Document:
        """Delete a gateway with all that belongs to it; return what it was.

        Raises:
            NotFoundError: There is none.
        """
        found = await self._store.get("gateway", actor.account_id, "", gateway_id)
        if found is None or not await self._store.delete(
            "gateway", actor.account_id, "", gateway_id, self._audit.deleted(actor, found)
        ):
            raise no_gateway(gateway_id)
        self._memory.forget(actor.account_id, gateway_id)
        return self._sealer.mask(found)

    async def ensure(self, actor: Actor, gateway_id: str) -> None:
        """Return if there is such a gateway; `default` is made if it is not there.

        Raises:
            NotFoundError: There is none.
        """
        await self._find(actor, gateway_id)

    async def _find(self, actor: Actor, gateway_id: str) -> Document:
        found = await self._store.get("gateway", actor.account_id, "", gateway_id)
        if found is not None:
            return found
        if gateway_id != DEFAULT_GATEWAY:
            raise no_gateway(gateway_id)
        with suppress(ConflictError):  # another request was first
            await self._insert(actor, gateway_id, defaults())
        found = await self._store.get("gateway", actor.account_id, "", gateway_id)
        if found is None:
            raise no_gateway(gateway_id)
        return found

    async def _insert(
        self, actor: Actor, gateway_id: str, fields: JsonObject, *, check: bool = False
    ) -> Document:
        now_s = self._clock.now_s()
        made = Document(
            kind="gateway",
            account_id=actor.account_id,
            parent="",
            id=gateway_id,
            body={**fields, EPOCH: 0},
            created_at_s=now_s,
            modified_at_s=now_s,
        )
        if check:
            _check_logpush(fields)
            self._check(to_gateway(made))
        document = self._sealer.seal(made)
        await self._store.insert(document, self._audit.created(actor, document))
        self._memory.forget(actor.account_id, gateway_id)
        return self._sealer.mask(document)

    def _given(self, before: Document, body: JsonValue) -> JsonObject:
        if not isinstance(body, dict):
            raise InvalidRequestError("The body of this request must be a JSON object.")
        if body.get("id", before.id) != before.id:
            raise InvalidRequestError(
                f"A gateway keeps its id: expected {before.id!r}.", param="id"
            )
        return body


def no_gateway(gateway_id: str) -> NotFoundError:
    """Return the error for an id that names no gateway."""
    return NotFoundError(f"No gateway found with id {gateway_id[:80]!r}.")
