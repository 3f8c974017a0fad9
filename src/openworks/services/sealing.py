"""Which fields of a document are secret: sealed in the store, masked in answers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TypeAlias
from urllib.parse import urlsplit

import orjson

from openworks.core.errors import InvalidRequestError
from openworks.core.json import JsonObject, JsonValue
from openworks.ports.documents import Document, DocumentKind
from openworks.services.keys import masked
from openworks.services.vault import UnreadableSecretError, Vault

MASK = "***"
SEALED_KINDS: tuple[DocumentKind, ...] = ("gateway", "provider_config", "custom_provider")

_Spot: TypeAlias = tuple[JsonObject, str, str]
"""A container, the key in it that is secret, and a path that stays when others come and go."""


class Sealer:
    """Seals, opens and masks the secrets of documents."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def seal(self, document: Document, before: Document | None = None) -> Document:
        """Return a document whose secrets are sealed; those that `before` has too stay as sealed.

        Args:
            document: As its owner wrote it.
            before: The sealed document in whose place it comes.
        """
        place = _place(document)
        kept: dict[str, tuple[str, str]] = {}
        if before is not None:
            sealed, opened = secrets_of(before), secrets_of(self.open(before))
            kept = {path: (opened[path], sealed[path]) for path in sealed}

        def change(path: str, secret: str) -> str:
            opened, sealed = kept.get(path, (None, ""))
            return sealed if opened == secret else self._vault.seal(secret, place)

        return replace(document, body=map_secrets(document.kind, document.body, change))

    def open(self, document: Document) -> Document:
        """Return a document with its secrets; one that cannot be read any more is `***`."""
        place = _place(document)

        def change(_path: str, sealed: str) -> str:
            try:
                return self._vault.open(sealed, place)
            except UnreadableSecretError:
                return MASK

        return replace(document, body=map_secrets(document.kind, document.body, change))

    def mask(self, document: Document) -> Document:
        """Return a sealed document as answers show it."""
        opened = self.open(document)
        return replace(
            opened, body=map_secrets(document.kind, opened.body, lambda _, secret: mask(secret))
        )

    def unmask(self, kind: DocumentKind, body: JsonObject, before: Document | None) -> JsonObject:
        """Put secrets back where an owner wrote what an answer had shown.

        Raises:
            InvalidRequestError: A masked value stands where no such secret was.
        """
        known = {} if before is None else secrets_of(self.open(before))

        def change(path: str, given: str) -> str:
            if MASK not in given:
                return given
            secret = known.get(path, MASK)
            if secret == MASK or mask(secret) != given:
                raise InvalidRequestError(
                    f"'{path}' is masked, as answers show it; give the secret itself.", param=path
                )
            return secret

        return map_secrets(kind, body, change)

    def reseal(self, document: Document) -> JsonObject | None:
        """Return the body sealed with the newest key; None when it is already, or unreadable."""
        place = _place(document)

        def change(_path: str, sealed: str) -> str:
            if self._vault.is_current(sealed):
                return sealed
            try:
                return self._vault.seal(self._vault.open(sealed, place), place)
            except UnreadableSecretError:
                return sealed

        body = map_secrets(document.kind, document.body, change)
        return None if body == document.body else body


def mask(secret: str) -> str:
    """Return enough of a secret to recognise it: where a URL leads, which headers there are."""
    if secret.startswith("{"):
        with suppress(orjson.JSONDecodeError, AttributeError):
            items = orjson.loads(secret).items()
            return orjson.dumps({name: masked(str(value)) for name, value in items}).decode()
    parts = urlsplit(secret) if secret.startswith(("http://", "https://")) else None
    return f"{parts.scheme}://{parts.netloc}/{MASK}" if parts and parts.netloc else masked(secret)


def map_secrets(
    kind: DocumentKind, body: JsonObject, change: Callable[[str, str], str]
) -> JsonObject:
    """Return a copy of `body` in which `change(path, value)` stands for every secret."""
    result = copy.deepcopy(body)
    for container, key, path in _spots(kind, result):
        value = container.get(key)
        if isinstance(value, str):
            container[key] = change(path, value)
    return result


def secrets_of(document: Document) -> dict[str, str]:
    """Return a document's secrets by path, as they stand in it."""
    return {
        path: value
        for container, key, path in _spots(document.kind, document.body)
        if isinstance(value := container.get(key), str)
    }


def _place(document: Document) -> tuple[str, ...]:
    return (document.account_id, document.kind, document.parent, document.id)


def _spots(kind: DocumentKind, body: JsonObject) -> Iterator[_Spot]:
    if kind == "provider_config":
        yield body, "secret", "secret"
    elif kind == "custom_provider":
        yield body, "headers", "headers"
    elif kind == "gateway":
        yield from _gateway_spots(body)


def _gateway_spots(body: JsonObject) -> Iterator[_Spot]:
    """Go through a gateway that may not have been checked yet."""
    for name, item in _named(body.get("otel"), "url"):
        yield item, "authorization", f"otel.{name}.authorization"
        headers = item.get("headers")
        if isinstance(headers, dict):
            for header in headers:
                yield headers, header, f"otel.{name}.headers.{header}"
    for name, item in _named(body.get("alerts"), "id"):
        yield item, "url", f"alerts.{name}.url"
    stripe = body.get("stripe")
    if isinstance(stripe, dict):
        yield stripe, "authorization", "stripe.authorization"


def _named(items: JsonValue, key: str) -> Iterator[tuple[str, JsonObject]]:
    if isinstance(items, list):
        for item in items:
            if isinstance(item, dict):
                yield str(item.get(key)), item
