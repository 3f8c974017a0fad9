from __future__ import annotations

import pytest

from openworks.gateway.secrets import bearer, take_our_secret
from openworks.ports.upstream import Headers

TOKEN = b"open sesame"


@pytest.mark.parametrize("name", [b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key"])
@pytest.mark.parametrize(
    "value", [b"sk-ow-1", b"Bearer sk-ow-1", b"bearer  sk-ow-1", b"Token sk-ow-1", b" sk-ow-1 "]
)
def test_our_key_is_found_and_taken_out_of_every_auth_header(name: bytes, value: bytes) -> None:
    headers: Headers = [(b"accept", b"*/*"), (name, value)]
    assert take_our_secret(None, headers, None) == ("sk-ow-1", False)
    assert headers == [(b"accept", b"*/*")]


def test_access_token_is_found_and_taken_out() -> None:
    headers: Headers = [(b"authorization", b"Bearer open sesame")]
    assert take_our_secret(None, headers, TOKEN) == ("open sesame", False)
    assert headers == []


def test_gateways_own_header_comes_first_and_the_others_are_cleared_all_the_same() -> None:
    headers: Headers = [(b"authorization", b"Bearer sk-ow-2"), (b"x-api-key", b"open sesame")]
    assert take_our_secret(b"Bearer sk-ow-1", headers, TOKEN) == ("sk-ow-1", False)
    assert headers == []


def test_providers_credential_stays_and_is_noticed() -> None:
    headers: Headers = [(b"authorization", b"Bearer sk-theirs"), (b"x-api-key", b"sk-ow-1")]
    assert take_our_secret(None, headers, TOKEN) == ("sk-ow-1", True)
    assert headers == [(b"authorization", b"Bearer sk-theirs")]


@pytest.mark.parametrize("value", [b"", None])
def test_empty_header_is_as_good_as_none(value: bytes | None) -> None:
    headers: Headers = [(b"authorization", b"Bearer sk-ow-1")]
    assert take_our_secret(value, headers, None)[0] == "sk-ow-1"


@pytest.mark.parametrize("value", [b"", b"none", b"Bearer none", b"Bearer "])
def test_key_that_is_none_is_nobodys_and_does_not_go_out(value: bytes) -> None:
    headers: Headers = [(b"authorization", value)]
    assert take_our_secret(None, headers, TOKEN) == (None, False)
    assert headers == []


def test_nobody_shows_anything() -> None:
    assert take_our_secret(None, [(b"accept", b"*/*")], TOKEN) == (None, False)


def test_signature_of_aws_is_a_credential_of_the_providers() -> None:
    headers: Headers = [(b"authorization", b"AWS4-HMAC-SHA256 Credential=a, Signature=b")]
    assert take_our_secret(b"Bearer sk-ow-1", headers, TOKEN) == ("sk-ow-1", True)


@pytest.mark.parametrize("value", [b"Bearer a", b"BEARER a ", b"a", b" a"])
def test_bearer_is_what_follows(value: bytes) -> None:
    assert bearer(value) == b"a"
