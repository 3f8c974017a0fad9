"""Whom a model name means: `@cf/...`, `author/model`, `dynamic/route`, or one of this server."""

from __future__ import annotations

from functools import cache
from typing import Final

from openworks.gateway.providers.registry import CUSTOM_PREFIX, Providers
from openworks.ports.calls import LOCAL_PROVIDER
from openworks.services.catalog import Catalog
from openworks.services.deployments import split_name

DYNAMIC: Final = "dynamic"
_AUTHORS: Final = {
    "amazon": "aws-bedrock",
    "google": "google-ai-studio",
    "mistralai": "mistral",
    "perplexity": "perplexity-ai",
    "x-ai": "grok",
    "xai": "grok",
}
"""Authors as catalogues write them → the provider that serves their models."""


def is_provider(slug: str) -> bool:
    """Whether a first segment names a provider, built in or of an account's own."""
    return slug in _slugs() or slug in _AUTHORS or slug.startswith(CUSTOM_PREFIX)


def is_remote(model: str, catalog: Catalog) -> bool:
    """Whether a name means something that this server does not serve itself."""
    slug, slash, rest = model.partition("/")
    if not slash or not rest:
        return False
    return slug == DYNAMIC or (is_provider(slug) and not _is_local(model, catalog))


def _is_local(model: str, catalog: Catalog) -> bool:
    """Whether a name, or the model that it asks for an adapter of, is known here."""
    return catalog.find(split_name(model, catalog)[0]) is not None


def gateway_name(model: str, catalog: Catalog) -> tuple[str, str]:
    """Return the provider's slug (or `dynamic`) and the name that it knows the model by."""
    if model.startswith("@") or not is_remote(model, catalog):
        return LOCAL_PROVIDER, model
    slug, _, name = model.partition("/")
    return provider_of(slug), name


def provider_of(author: str) -> str:
    """Return the slug of the provider that serves an author's models."""
    return _AUTHORS.get(author, author)


@cache
def _slugs() -> frozenset[str]:
    return frozenset(Providers().slugs())
