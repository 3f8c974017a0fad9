"""Providers that an account adds to the built-in ones, called as `custom-SLUG`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from openworks.core.clock import Clock
from openworks.core.errors import ConflictError, InvalidRequestError, NotFoundError
from openworks.core.ids import AccountId
from openworks.core.json import JsonObject, JsonValue
from openworks.ports.documents import Document, DocumentStore
from openworks.services.audit import Actor, Audit
from openworks.services.gateways import Memory
from openworks.services.sealing import Sealer
from openworks.wire.cloudflare.fields import checked
from openworks.wire.cloudflare.nouns import CustomProviderShape, parse_headers

MAX_PROVIDERS = 200
"""An account has at most so many."""
_READ_ONLY = frozenset({"id", "created_at", "modified_at", "account_id", "account_tag"})
# Unlike a gateway's id, so that a gateway's end never takes these along.
_PARENT = "/custom-providers"

CheckProvider: TypeAlias = Callable[[str, str, Mapping[str, str]], None]
"""Given slug, base URL and headers: raises `InvalidRequestError` if calls could not be made."""


class CustomProviders:
    """Keeps them; their id is their slug. What it returns shows header values masked."""

    def __init__(
        self,
        store: DocumentStore,
        sealer: Sealer,
        audit: Audit,
        memory: Memory,
        *,
        clock: Clock,
        check: CheckProvider = lambda _slug, _url, _headers: None,
    ) -> None:
        self._store = store
        self._sealer = sealer
        self._audit = audit
        self._memory = memory
        self._clock = clock
        self._check = check

    async def create(self, actor: Actor, body: JsonValue) -> Document:
        """Add a provider.

        Raises:
            InvalidRequestError: A field is wrong or missing.
            ConflictError: Its slug is taken, or the account has as many as it may.
        """
        shape = self._parse(body, None)
        others = await self._store.list("custom_provider", actor.account_id, _PARENT)
        if len(others) >= MAX_PROVIDERS:
            raise ConflictError(
                f"The account has {MAX_PROVIDERS} custom providers, which is the limit.",
                code="too_many_custom_providers",
            )
        now_s = self._clock.now_s()
        document = self._sealer.seal(
            Document(
                kind="custom_provider",
                account_id=actor.account_id,
                parent=_PARENT,
                id=shape.slug,
                body=shape.model_dump(mode="json"),
                created_at_s=now_s,
                modified_at_s=now_s,
            )
        )
        await self._store.insert(document, self._audit.created(actor, document))
        self._memory.forget(actor.account_id)
        return self._sealer.mask(document)

    async def update(self, actor: Actor, slug: str, body: JsonValue) -> Document:
        """Change a provider; what `body` leaves out stays.

        Raises:
            NotFoundError: There is none.
            InvalidRequestError: A field is wrong.
        """
        before = await self._find(actor.account_id, slug)
        shape = self._parse(body, before)
        after = self._sealer.seal(
            replace(before, body=shape.model_dump(mode="json"), modified_at_s=self._clock.now_s()),
            before,
        )
        if not await self._store.replace(after, self._audit.updated(actor, after, before.body)):
            raise _no_provider(slug)
        self._memory.forget(actor.account_id)
        return self._sealer.mask(after)

    async def get(self, account_id: AccountId, slug: str) -> Document:
        """Return a provider.

        Raises:
            NotFoundError: There is none.
        """
        return self._sealer.mask(await self._find(account_id, slug))

    async def list(self, account_id: AccountId) -> Sequence[Document]:
        """Return an account's providers, newest first."""
        found = await self._store.list("custom_provider", account_id, _PARENT)
        return [self._sealer.mask(item) for item in found]

    async def delete(self, actor: Actor, slug: str) -> Document:
        """Remove a provider; return what it was.

        Raises:
            NotFoundError: There is none.
        """
        found = await self._find(actor.account_id, slug)
        entry = self._audit.deleted(actor, found)
        await self._store.delete("custom_provider", actor.account_id, _PARENT, slug, entry)
        self._memory.forget(actor.account_id)
        return self._sealer.mask(found)

    async def _find(self, account_id: AccountId, slug: str) -> Document:
        found = await self._store.get("custom_provider", account_id, _PARENT, slug)
        if found is None:
            raise _no_provider(slug)
        return found

    def _parse(self, body: JsonValue, before: Document | None) -> CustomProviderShape:
        if not isinstance(body, dict):
            raise InvalidRequestError("The body of this request must be a JSON object.")
        given: JsonObject = {key: value for key, value in body.items() if key not in _READ_ONLY}
        stored = {} if before is None else self._sealer.open(before).body
        unmasked = self._unmask(given, before)
        shape = checked(CustomProviderShape, {**stored, **unmasked})
        if before is not None and shape.slug != before.id:
            raise InvalidRequestError(
                f"A custom provider keeps its slug: expected {before.id!r}.", param="slug"
            )
        self._check(shape.slug, shape.base_url, parse_headers(shape.headers or "{}"))
        return shape

    def _unmask(self, given: JsonObject, before: Document | None) -> JsonObject:
        return self._sealer.unmask("custom_provider", given, before)


def _no_provider(slug: str) -> NotFoundError:
    return NotFoundError(f"No custom provider found with id {slug[:80]!r}.")
