"""Google's access tokens: a service account signs a claim, Google gives a token for an hour.

Source: https://developers.google.com/identity/protocols/oauth2/service-account#httprest.
"""

from __future__ import annotations

import asyncio
import base64
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeAlias
from urllib.parse import urlencode

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from openworks.core.clock import Clock
from openworks.core.errors import InvalidRequestError, ProviderError
from openworks.gateway.providers.base import Credential, ServiceAccount
from openworks.ports.upstream import Origin, UpstreamRequest

Fetch: TypeAlias = Callable[[UpstreamRequest], Awaitable[tuple[int, bytes]]]
"""Sends one request and returns the status and the whole body; raises `UpstreamError`."""

TOKEN_ORIGIN = Origin(scheme="https", host="oauth2.googleapis.com", port=443)
# Never the `token_uri` of the JSON: callers send that, and it could be any address.
_TOKEN_URL = "https://oauth2.googleapis.com/token"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_EARLY_S = 300.0
_MAX_ACCOUNTS = 256


class _Answer(msgspec.Struct):
    access_token: str
    expires_in: float = 3600.0


class GoogleTokens:
    """Turns service accounts into bearer tokens and keeps those until shortly before they expire.

    At most 256 accounts are kept; the least recently used goes first. One fetch for an account runs
    at a time, and the others wait for it.
    """

    def __init__(self, fetch: Fetch, clock: Clock, *, origin: Origin = TOKEN_ORIGIN) -> None:
        self._fetch = fetch
        self._clock = clock
        self._origin = origin
        self._ready: OrderedDict[str, tuple[float, Credential]] = OrderedDict()
        self._locks: dict[str, asyncio.Lock] = {}

    def ready(self, credential: Credential) -> Credential | None:
        """The credential with a token that is still good; None when one must be fetched."""
        held = self._ready.get(credential.digest)
        if held is None or held[0] <= self._clock.now_s():
            return None
        self._ready.move_to_end(credential.digest)
        return held[1]

    async def complete(self, credential: Credential) -> Credential:
        """Return the credential with a bearer token in its headers.

        Raises:
            InvalidRequestError: The account's private key is none.
            ProviderError: Google gave no token.
            UpstreamError: Google could not be reached.
        """
        if credential.google is None:
            return credential
        lock = self._locks.setdefault(credential.digest, asyncio.Lock())
        try:
            async with lock:
                return self.ready(credential) or await self._renew(credential, credential.google)
        finally:
            if not lock.locked():
                self._locks.pop(credential.digest, None)

    async def _renew(self, credential: Credential, account: ServiceAccount) -> Credential:
        now_s = self._clock.now_s()
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "assertion": _signed_claim(account, now_s),
        }
        request = UpstreamRequest(
            origin=self._origin,
            method=b"POST",
            target=b"/token",
            headers=[(b"content-type", b"application/x-www-form-urlencoded")],
            body=urlencode(form).encode(),
        )
        status, body = await self._fetch(request)
        if status != 200:
            raise ProviderError(
                f"Google gave no access token to '{account.client_email}': it answered {status}.",
                code="credential_refused",
            )
        try:
            answer = msgspec.json.decode(body, type=_Answer)
        except msgspec.DecodeError:
            raise ProviderError("Google's token endpoint answered with something else.") from None
        bearer = (b"authorization", b"Bearer " + answer.access_token.encode())
        authorised = replace(credential, google=None, headers=(bearer,))
        self._ready[credential.digest] = (now_s + answer.expires_in - _EARLY_S, authorised)
        self._ready.move_to_end(credential.digest)
        if len(self._ready) > _MAX_ACCOUNTS:
            self._ready.popitem(last=False)
        return authorised


def _signed_claim(account: ServiceAccount, now_s: float) -> str:
    try:
        key = load_pem_private_key(account.private_key_pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _bad_key(account) from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise _bad_key(account)
    header = {"alg": "RS256", "typ": "JWT", "kid": account.private_key_id}
    claim = {
        "iss": account.client_email,
        "scope": _SCOPE,
        "aud": _TOKEN_URL,
        "iat": int(now_s),
        "exp": int(now_s) + 3600,
    }
    text = _base64(msgspec.json.encode(header)) + b"." + _base64(msgspec.json.encode(claim))
    signature = key.sign(text, padding.PKCS1v15(), hashes.SHA256())
    return (text + b"." + _base64(signature)).decode()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _bad_key(account: ServiceAccount) -> InvalidRequestError:
    return InvalidRequestError(
        f"The private key of the service account '{account.client_email}' is not RSA in PEM.",
        code="invalid_credential",
    )
