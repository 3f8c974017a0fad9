"""The vectors are those of AWS's published `aws-sig-v4-test-suite`, by their names there."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from openworks.gateway.providers.base import AwsKey
from openworks.gateway.providers.sigv4 import sign
from openworks.ports.upstream import Headers

KEY = AwsKey(
    access_key_id="AKIDEXAMPLE", secret_access_key="wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
)
NOW_S = datetime(2015, 8, 30, 12, 36, tzinfo=UTC).timestamp()
FORM = [(b"content-type", b"application/x-www-form-urlencoded")]


def signed(
    method: bytes = b"GET",
    path: bytes = b"/",
    query: bytes = b"",
    headers: Headers | None = None,
    body: bytes = b"",
    key: AwsKey = KEY,
) -> dict[bytes, bytes]:
    return dict(
        sign(
            key,
            method=method,
            host="example.amazonaws.com",
            path=path,
            query=query,
            headers=headers or [],
            body=body,
            region="us-east-1",
            service="service",
            now_s=NOW_S,
        )
    )


@pytest.mark.parametrize(
    ("name", "method", "path", "query", "headers", "body", "names", "signature"),
    [
        (
            "get-vanilla",
            b"GET",
            b"/",
            b"",
            [],
            b"",
            "host;x-amz-date",
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        (
            "post-vanilla",
            b"POST",
            b"/",
            b"",
            [],
            b"",
            "host;x-amz-date",
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        ),
        (
            "post-vanilla-query",
            b"POST",
            b"/",
            b"Param1=value1",
            [],
            b"",
            "host;x-amz-date",
            "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11",
        ),
        (
            "get-vanilla-query-order-key-case",
            b"GET",
            b"/",
            b"Param2=value2&Param1=value1",
            [],
            b"",
            "host;x-amz-date",
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        (
            "get-vanilla-utf8-query",
            b"GET",
            b"/",
            b"%E1%88%B4=bar",
            [],
            b"",
            "host;x-amz-date",
            "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
        ),
        (
            "get-unreserved",
            b"GET",
            b"/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
            b"",
            [],
            b"",
            "host;x-amz-date",
            "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
        ),
        (
            "get-utf8",
            b"GET",
            "/ሴ".encode(),
            b"",
            [],
            b"",
            "host;x-amz-date",
            "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
        ),
        (
            "post-x-www-form-urlencoded",
            b"POST",
            b"/",
            b"",
            FORM,
            b"Param1=value1",
            "content-type;host;x-amz-date",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        ),
    ],
)
def test_a_published_vector_gets_its_published_signature(
    name: str,
    method: bytes,
    path: bytes,
    query: bytes,
    headers: Headers,
    body: bytes,
    names: str,
    signature: str,
) -> None:
    found = signed(method, path, query, headers, body)
    assert found[b"x-amz-date"] == b"20150830T123600Z"
    assert found[b"authorization"].decode() == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders={names}, Signature={signature}"
    ), name


def test_headers_that_a_transport_may_change_are_sent_and_not_signed() -> None:
    plain = signed()
    found = signed(headers=[(b"user-agent", b"x"), (b"accept-encoding", b"identity")])
    assert found[b"authorization"] == plain[b"authorization"]
    assert found[b"user-agent"] == b"x"


def test_a_session_token_is_sent_and_signed() -> None:
    key = AwsKey(access_key_id="A", secret_access_key="s", session_token="token")
    found = signed(key=key)
    assert found[b"x-amz-security-token"] == b"token"
    assert b"SignedHeaders=host;x-amz-date;x-amz-security-token," in found[b"authorization"]


def test_a_colon_of_a_model_name_is_signed_encoded_and_a_changed_body_changes_the_signature() -> (
    None
):
    path = b"/model/us.anthropic.claude-haiku-4-5-20251001-v1:0/invoke"
    one = signed(b"POST", path, body=b"{}")[b"authorization"]
    assert one != signed(b"POST", path.replace(b":", b"%3A"), body=b"{}")[b"authorization"]
    assert one != signed(b"POST", path, body=b"{} ")[b"authorization"]
