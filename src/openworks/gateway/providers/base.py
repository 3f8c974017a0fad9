"""What a provider is: frozen data over which every function of this package works."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from openworks.ports.upstream import Headers, Origin

Auth: TypeAlias = Literal[
    "bearer", "x-api-key", "api-key", "x-goog-api-key", "query-key", "aws", "google"
]
"""How a provider is told who asks: a header, the query's `key`, AWS's signature, Google's OAuth."""

Layout: TypeAlias = Literal["plain", "huggingface", "workers-ai", "azure", "bedrock", "vertex"]
"""How a gateway path becomes a path of the provider; all but `plain` need code of their own."""

Dialect: TypeAlias = Literal[
    "openai",
    "openai-responses",
    "anthropic",
    "google",
    "cohere",
    "workers-ai",
    "bedrock",
    "huggingface",
    "replicate",
]
"""The shape of answers, streams and in-band errors."""

AUTH_HEADERS = frozenset(
    {
        b"authorization",
        b"proxy-authorization",
        b"x-api-key",
        b"api-key",
        b"x-goog-api-key",
        b"x-amz-date",
        b"x-amz-content-sha256",
        b"x-amz-security-token",
    }
)
"""Headers in which callers show a provider who they are; part of a cache key, never of a log."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Provider:
    """A server that the gateway calls. Compared by identity, so that it is a cheap cache key."""

    slug: str
    name: str
    origin: Origin | None
    """None where the path decides: a resource's or a region's own host."""
    base_path: str = ""
    """What stands before every path, such as `/openai`; without the version and the last slash."""
    version: str = ""
    """Put after `base_path` unless the caller's path begins with a version of its own."""
    auth: Auth = "bearer"
    dialect: Dialect = "openai"
    """Of its native endpoints; some endpoints have another (`endpoints.py`)."""
    layout: Layout = "plain"
    chat_path: str | None = "chat/completions"
    """Its OpenAI-compatible endpoints, as callers of the gateway write them; None where it has
    none. May hold `{project}` and `{region}`, which `openai_endpoint` fills from the credential."""
    embeddings_path: str | None = None
    default_headers: tuple[tuple[bytes, bytes], ...] = ()
    """Sent where the caller has none of that name."""
    ends_with_done: bool = True
    """Whether its OpenAI-shaped streams end in `[DONE]`; else `finish_reason` is the end."""

    @property
    def speaks_openai(self) -> bool:
        """Whether a chat request of OpenAI's shape can go to it as it is."""
        return self.chat_path is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsKey:
    """What signs requests to AWS."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccount:
    """A Google service account: it signs a claim, and Google gives a token for that."""

    client_email: str
    private_key_pem: str = field(repr=False)
    private_key_id: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A stored secret, taken apart once (`credentials.py`), so that no request parses it."""

    digest: str
    """Names the secret in cache keys and breakers without telling it."""
    headers: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)
    query: bytes = field(default=b"", repr=False)
    aws: AwsKey | None = None
    google: ServiceAccount | None = None
    """Set until `google_tokens.py` has put an access token into `headers`."""
    account_id: str = ""
    """Cloudflare's account, for `workers-ai`."""
    project: str = ""
    region: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where one endpoint is."""

    origin: Origin
    path: bytes
    service: str = ""
    """AWS's name of the service, for the signature."""
    region: str = ""


__all__ = [
    "AUTH_HEADERS",
    "Auth",
    "AwsKey",
    "Credential",
    "Dialect",
    "Headers",
    "Layout",
    "Origin",
    "Provider",
    "Route",
    "ServiceAccount",
]
