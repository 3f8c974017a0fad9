"""Stored secrets, taken apart: a key, or the JSON of an AWS, Google or Cloudflare credential."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TypeVar
from urllib.parse import quote

import msgspec

from openworks.core.errors import InvalidRequestError
from openworks.gateway.providers.base import AwsKey, Credential, Provider, ServiceAccount
from openworks.ports.upstream import Headers

_MAX_SECRET_CHARS = 16_384
_T = TypeVar("_T")


class _AwsJson(msgspec.Struct):
    accessKeyId: str  # noqa: N815  the names of Cloudflare's documentation
    secretAccessKey: str  # noqa: N815
    region: str = ""
    sessionToken: str | None = None  # noqa: N815


class _GoogleJson(msgspec.Struct):
    client_email: str
    private_key: str
    private_key_id: str = ""
    project_id: str = ""
    region: str = ""


class _CloudflareJson(msgspec.Struct):
    account_id: str
    api_token: str


def parse_credential(provider: Provider, secret: str) -> Credential:
    """Make a credential of what an owner stored for a provider.

    Args:
        provider: Whose it is.
        secret: A key; or JSON: `{"accessKeyId", "secretAccessKey", "region", "sessionToken"?}` for
            AWS (or a Bedrock API key as it is), a service account with `region` for Vertex (or an
            access token as it is), `{"account_id", "api_token"}` for Cloudflare's Workers AI.

    Raises:
        InvalidRequestError: It is not that; the message never shows any of it.
    """
    secret = secret.strip()
    if not secret or len(secret) > _MAX_SECRET_CHARS:
        raise _bad(provider, f"it has {len(secret)} characters")
    digest = hashlib.sha256(f"{provider.slug}\n{secret}".encode()).hexdigest()[:32]
    is_json = secret.startswith("{")
    if provider.layout == "workers-ai":
        account = _decode(provider, secret, _CloudflareJson)
        headers = _header(provider, b"authorization", "Bearer ", account.api_token)
        return Credential(digest=digest, headers=headers, account_id=account.account_id)
    if provider.auth == "aws" and is_json:
        aws = _decode(provider, secret, _AwsJson)
        key = AwsKey(
            access_key_id=_printable(provider, aws.accessKeyId),
            secret_access_key=aws.secretAccessKey,
            session_token=aws.sessionToken and _printable(provider, aws.sessionToken),
        )
        return Credential(digest=digest, aws=key, region=aws.region)
    if provider.auth == "google" and is_json:
        return _google(provider, secret, digest)
    if provider.auth == "query-key":
        return Credential(digest=digest, query=b"key=" + quote(secret, safe="").encode())
    if provider.auth in ("x-api-key", "api-key", "x-goog-api-key"):
        headers = _header(provider, provider.auth.encode(), "", secret)
    else:
        headers = _header(provider, b"authorization", "Bearer ", secret)
    return Credential(digest=digest, headers=headers)


def caller_credential(provider: Provider, headers: Headers) -> Credential | None:
    """The Google service account that a caller sends as base64 in `authorization`, if one does.

    Raises:
        InvalidRequestError: It is JSON and no service account.
    """
    if provider.auth != "google":
        return None
    for name, value in headers:
        if name == b"authorization":
            try:
                decoded = base64.b64decode(value.removeprefix(b"Bearer ").strip(), validate=True)
                text = decoded.decode().strip()
            except (binascii.Error, UnicodeDecodeError):
                return None  # an access token: it goes on as it is
            return parse_credential(provider, text) if text.startswith("{") else None
    return None


def _google(provider: Provider, secret: str, digest: str) -> Credential:
    account = _decode(provider, secret, _GoogleJson)
    return Credential(
        digest=digest,
        google=ServiceAccount(
            client_email=account.client_email,
            private_key_pem=account.private_key,
            private_key_id=account.private_key_id,
        ),
        project=account.project_id,
        region=account.region,
    )


def _decode(provider: Provider, secret: str, shape: type[_T]) -> _T:
    try:
        return msgspec.json.decode(secret, type=shape)
    except msgspec.ValidationError as exc:
        raise _bad(provider, str(exc)) from None
    except msgspec.DecodeError:
        raise _bad(provider, "it is not JSON") from None


def _header(
    provider: Provider, name: bytes, prefix: str, value: str
) -> tuple[tuple[bytes, bytes], ...]:
    return ((name, (prefix + _printable(provider, value)).encode()),)


def _printable(provider: Provider, value: str) -> str:
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        raise _bad(provider, "it holds characters that no key has")
    return value


def _bad(provider: Provider, reason: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"The credential of '{provider.slug}' cannot be used: {reason}.",
        code="invalid_credential",
        param="secret",
    )
