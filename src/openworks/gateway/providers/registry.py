"""The providers by their slugs, read from `providers.toml`, and those that accounts add."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from typing import TypedDict

import msgspec

from openworks.core.errors import InvalidRequestError
from openworks.gateway.providers.addresses import parse_base_url
from openworks.gateway.providers.base import Auth, Dialect, Layout, Provider
from openworks.ports.upstream import Origin

CUSTOM_PREFIX = "custom-"
_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_HEADER_NAME = re.compile(r"[a-z0-9-]{1,64}")
_VERSION = re.compile(r"(.*)/(v\d+)")


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    """One table of `providers.toml`."""

    name: str
    base: str = ""
    auth: Auth = "bearer"
    dialect: Dialect = "openai"
    layout: Layout = "plain"
    chat: str | bool = "chat/completions"
    embeddings: str | None = None
    default_headers: dict[str, str] = {}
    ends_with_done: bool = True


class ProviderRow(TypedDict):
    """A provider as the documentation lists it."""

    slug: str
    name: str
    base: str
    auth: str
    dialect: str
    chat: str
    embeddings: str


class Providers:
    """The providers that the gateway knows by name."""

    def __init__(self, *, base_urls: Mapping[str, str] | None = None) -> None:
        """Read the table.

        Args:
            base_urls: Slug → another base URL, for a mirror, a regional host or a stand-in.
                Trusted, as it comes from the settings: private addresses are fine.

        Raises:
            InvalidRequestError: A slug is unknown or a URL is none.
        """
        text = files("openworks.gateway.providers").joinpath("providers.toml").read_text()
        entries = msgspec.convert(tomllib.loads(text), dict[str, _Entry])
        others = dict(base_urls or {})
        self._by_slug = {
            slug: _provider(slug, entry, others.pop(slug, None)) for slug, entry in entries.items()
        }
        if others:
            raise InvalidRequestError(f"There is no provider '{next(iter(others))}'.")

    def get(self, slug: str) -> Provider | None:
        """The provider with this slug; None when there is none."""
        return self._by_slug.get(slug)

    def slugs(self) -> tuple[str, ...]:
        """All slugs, in the table's order."""
        return tuple(self._by_slug)

    def rows(self) -> list[ProviderRow]:
        """What the documentation says of each."""
        return [_row(provider) for provider in self._by_slug.values()]


def custom_provider(
    slug: str,
    base_url: str,
    *,
    name: str = "",
    headers: Mapping[str, str] | None = None,
    auth: Auth = "bearer",
    allow_private: bool = False,
) -> Provider:
    """Make the provider that an account added; its slug gets the prefix `custom-`.

    Everything behind the slug is appended to `base_url` as it stands. Keep the result: routes are
    cached by its identity.

    Raises:
        InvalidRequestError: The slug, the URL or a header is not usable.
    """
    slug = slug.removeprefix(CUSTOM_PREFIX)
    if not _SLUG.fullmatch(slug):
        raise InvalidRequestError(
            f"slug must be letters, digits and hyphens, got '{slug[:64]}'.", param="slug"
        )
    origin, path = parse_base_url(base_url, allow_private=allow_private)
    origin = replace(origin, is_public=not allow_private)
    has_version = _VERSION.fullmatch(path) is not None
    return Provider(
        slug=CUSTOM_PREFIX + slug,
        name=name or slug,
        origin=origin,
        base_path=path,
        auth=auth,
        chat_path="chat/completions" if has_version else "v1/chat/completions",
        embeddings_path="embeddings" if has_version else "v1/embeddings",
        default_headers=_headers(headers or {}),
        ends_with_done=False,
    )


def openai_endpoint(path: str, *, model: str = "", project: str = "", region: str = "") -> str:
    """Fill in a `chat_path` or `embeddings_path`.

    Args:
        path: The provider's template.
        model: For Azure `{resource}/{deployment}`, which its paths begin with.
        project: Of the credential, for Vertex.
        region: Of the credential, for Vertex.

    Raises:
        InvalidRequestError: The path needs something that was not given.
    """
    if "{" not in path:
        return path
    needed = {"{project}": project, "{region}": region, "{resource}/{model}": model}
    for place, value in needed.items():
        if place in path:
            if not value:
                raise InvalidRequestError(
                    f"The provider's path needs {place}, and neither the model nor the stored "
                    "credential says it.",
                    code="invalid_path",
                )
            path = path.replace(place, value)
    return path


def _provider(slug: str, entry: _Entry, base_url: str | None) -> Provider:
    origin: Origin | None = None
    base_path = version = ""
    url = base_url or entry.base
    if url:
        origin, base_path = parse_base_url(url, allow_private=base_url is not None)
        if entry.layout == "plain" and (found := _VERSION.fullmatch(base_path)):
            base_path, version = found.groups()
    return Provider(
        slug=slug,
        name=entry.name,
        origin=origin,
        base_path=base_path,
        version=version,
        auth=entry.auth,
        dialect=entry.dialect,
        layout=entry.layout,
        chat_path=entry.chat if isinstance(entry.chat, str) else None,
        embeddings_path=entry.embeddings,
        default_headers=_headers(entry.default_headers),
        ends_with_done=entry.ends_with_done,
    )


def _headers(headers: Mapping[str, str]) -> tuple[tuple[bytes, bytes], ...]:
    found = []
    for name, value in headers.items():
        lower = name.lower()
        if not _HEADER_NAME.fullmatch(lower) or not value.isascii() or not value.isprintable():
            raise InvalidRequestError(
                f"The header '{lower[:64]!a}' cannot be sent.", param="headers"
            )
        found.append((lower.encode(), value.encode()))
    return tuple(found)


_HOSTS = {
    "azure": "https://{resource}.openai.azure.com/openai",
    "bedrock": "https://bedrock-runtime.{region}.amazonaws.com",
    "vertex": "https://{region}-aiplatform.googleapis.com",
}


def _row(provider: Provider) -> ProviderRow:
    origin = provider.origin
    base = _HOSTS.get(provider.layout, "")
    if origin is not None:
        version = f"/{provider.version}" if provider.version else ""
        base = f"{origin.scheme}://{origin.host}{provider.base_path}{version}"
    return ProviderRow(
        slug=provider.slug,
        name=provider.name,
        base=base,
        auth=provider.auth,
        dialect=provider.dialect,
        chat=provider.chat_path or "",
        embeddings=provider.embeddings_path or "",
    )
