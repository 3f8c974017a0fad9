from __future__ import annotations

import base64
import json
from urllib.parse import parse_qs

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from openworks.core.errors import InvalidRequestError, ProviderError
from openworks.gateway.providers.base import Provider
from openworks.gateway.providers.credentials import caller_credential, parse_credential
from openworks.gateway.providers.google_tokens import GoogleTokens
from openworks.gateway.providers.registry import Providers
from openworks.ports.upstream import UpstreamRequest
from tests.fakes import FakeClock

PROVIDERS = Providers()
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def account(**changes: str) -> str:
    return json.dumps(
        {
            "type": "service_account",
            "project_id": "my-project",
            "private_key_id": "key-1",
            "private_key": _pem(KEY),
            "client_email": "gateway@my-project.iam.gserviceaccount.com",
            "token_uri": "http://169.254.169.254/token",
            "region": "us-central1",
            **changes,
        }
    )


def provider(slug: str) -> Provider:
    found = PROVIDERS.get(slug)
    assert found is not None
    return found


class TokenServer:
    """Gives `token-1`, `token-2`, …"""

    def __init__(self, status: int = 200, body: bytes | None = None) -> None:
        self.requests: list[UpstreamRequest] = []
        self._status = status
        self._body = body

    async def __call__(self, request: UpstreamRequest) -> tuple[int, bytes]:
        self.requests.append(request)
        token = f"token-{len(self.requests)}"
        answer = {"access_token": token, "expires_in": 3599, "token_type": "Bearer"}
        return self._status, self._body or json.dumps(answer).encode()


async def test_a_service_account_signs_for_a_token_that_lasts_until_shortly_before_its_end() -> (
    None
):
    clock, server = FakeClock(), TokenServer()
    tokens = GoogleTokens(server, clock)
    stored = parse_credential(provider("google-vertex-ai"), account())
    assert (stored.project, stored.region) == ("my-project", "us-central1")
    assert tokens.ready(stored) is None

    first = await tokens.complete(stored)
    assert first.headers == ((b"authorization", b"Bearer token-1"),)
    assert first.google is None
    clock.advance(3000)
    assert await tokens.complete(stored) is first
    assert tokens.ready(stored) is first
    clock.advance(400)
    assert tokens.ready(stored) is None
    second = await tokens.complete(stored)
    assert second.headers == ((b"authorization", b"Bearer token-2"),)
    assert len(server.requests) == 2


async def test_the_claim_is_what_google_expects_and_goes_to_google_alone() -> None:
    clock, server = FakeClock(), TokenServer()
    stored = parse_credential(provider("google-vertex-ai"), account())
    await GoogleTokens(server, clock).complete(stored)
    (request,) = server.requests
    assert (request.origin.host, request.target) == ("oauth2.googleapis.com", b"/token")
    form = parse_qs(request.body.decode())
    assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    head, claim, signature = form["assertion"][0].split(".")
    KEY.public_key().verify(
        base64.urlsafe_b64decode(signature + "=="),
        f"{head}.{claim}".encode(),
        padding.PKCS1v15(),
        hashes.SHA256(),
    )
    members = msgspec.json.decode(base64.urlsafe_b64decode(claim + "=="))
    assert members["aud"] == "https://oauth2.googleapis.com/token"
    assert members["iss"] == "gateway@my-project.iam.gserviceaccount.com"
    assert members["exp"] - members["iat"] == 3600


async def test_a_refusal_of_google_names_the_account_and_the_status() -> None:
    stored = parse_credential(provider("google-vertex-ai"), account())
    with pytest.raises(ProviderError, match=r"gateway@my-project.*400"):
        await GoogleTokens(TokenServer(400, b"{}"), FakeClock()).complete(stored)
    with pytest.raises(ProviderError, match="something else"):
        await GoogleTokens(TokenServer(200, b"<html>"), FakeClock()).complete(stored)


async def test_a_key_that_is_none_is_the_owners_fault() -> None:
    for pem in ("nonsense", _pem(ec.generate_private_key(ec.SECP256R1()))):
        stored = parse_credential(provider("google-vertex-ai"), account(private_key=pem))
        with pytest.raises(InvalidRequestError, match="private key") as caught:
            await GoogleTokens(TokenServer(), FakeClock()).complete(stored)
        assert pem not in str(caught.value)


def test_a_caller_may_send_a_service_account_in_base64() -> None:
    vertex = provider("google-vertex-ai")
    encoded = base64.b64encode(account().encode())
    for value in (encoded, b"Bearer " + encoded):
        found = caller_credential(vertex, [(b"authorization", value)])
        assert found is not None
        assert found.region == "us-central1"
    assert caller_credential(vertex, [(b"authorization", b"Bearer ya29.c.b0Aaekm1K")]) is None
    assert caller_credential(vertex, []) is None
    assert caller_credential(provider("openai"), [(b"authorization", encoded)]) is None


@pytest.mark.parametrize(
    ("slug", "secret", "reason"),
    [
        ("openai", "", "0 characters"),
        ("openai", "sk-1\r\nhost: evil", "characters that no key has"),
        ("openai", "sk-ä", "characters that no key has"),
        ("anthropic", "sk 1", "characters that no key has"),
        ("openai", "s" * 20_000, "20000 characters"),
        ("aws-bedrock", '{"accessKeyId":"AKID-SECRET"}', "secretAccessKey"),
        ("aws-bedrock", '{"accessKeyId":"AKID-SECRET"', "not JSON"),
        ("google-vertex-ai", '{"private_key":"PEM-SECRET"}', "client_email"),
        ("workers-ai", "cf-token-SECRET", "not JSON"),
        ("workers-ai", '{"api_token":"cf-token-SECRET"}', "account_id"),
    ],
)
def test_a_bad_secret_is_refused_without_being_shown(slug: str, secret: str, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=reason) as caught:
        parse_credential(provider(slug), secret)
    assert "SECRET" not in caught.value.message
    assert caught.value.__cause__ is None


def test_secrets_are_in_no_representation() -> None:
    secrets = {
        "openai": "sk-SECRET",
        "aws-bedrock": '{"accessKeyId":"AKID","secretAccessKey":"SECRET","sessionToken":"SECRET"}',
        "google-vertex-ai": account(private_key="SECRET", private_key_id="SECRET"),
        "workers-ai": '{"account_id":"abc","api_token":"SECRET"}',
    }
    for slug, secret in secrets.items():
        credential = parse_credential(provider(slug), secret)
        assert "SECRET" not in repr(credential), slug
        assert credential.digest
    assert (
        parse_credential(provider("openai"), "sk-1").digest
        != parse_credential(provider("openai"), "sk-2").digest
        != parse_credential(provider("groq"), "sk-2").digest
    )
