from __future__ import annotations

import json

import pytest

from openworks.core.errors import InvalidRequestError
from openworks.gateway.providers.base import Provider
from openworks.gateway.providers.credentials import parse_credential
from openworks.gateway.providers.prepare import headers_of, host_header, prepare
from openworks.gateway.providers.registry import Providers, custom_provider
from openworks.ports.upstream import Headers, Origin, UpstreamRequest

PROVIDERS = Providers()
SECRET = "sk-stored-0123456789"
CALLER: Headers = [
    (b"content-type", b"application/json"),
    (b"authorization", b"Bearer sk-of-the-caller"),
    (b"x-api-key", b"sk-of-the-caller"),
    (b"api-key", b"sk-of-the-caller"),
    (b"x-goog-api-key", b"sk-of-the-caller"),
    (b"x-stainless-lang", b"python"),
]
AWS = {"accessKeyId": "AKIDEXAMPLE", "secretAccessKey": "aws/secret", "region": "us-east-1"}


def provider(slug: str) -> Provider:
    found = PROVIDERS.get(slug)
    assert found is not None
    return found


def asked(
    to: Provider,
    endpoint: str,
    *,
    secret: str | None = None,
    query: bytes = b"",
    headers: Headers | None = None,
    body: bytes = b"{}",
) -> UpstreamRequest:
    return prepare(
        to,
        method=b"POST",
        endpoint=endpoint,
        query=query,
        headers=list(CALLER if headers is None else headers),
        body=body,
        credential=None if secret is None else parse_credential(to, secret),
        now=1_440_938_160.0,
    )


@pytest.mark.parametrize(
    ("slug", "endpoint", "header"),
    [
        ("openai", "chat/completions", (b"authorization", b"Bearer " + SECRET.encode())),
        ("anthropic", "v1/messages", (b"x-api-key", SECRET.encode())),
        ("azure-openai", "res/gpt-4o/chat/completions", (b"api-key", SECRET.encode())),
        (
            "google-ai-studio",
            "v1beta/models/g:generateContent",
            (b"x-goog-api-key", SECRET.encode()),
        ),
        ("huggingface", "org/model", (b"authorization", b"Bearer " + SECRET.encode())),
        ("replicate", "predictions", (b"authorization", b"Bearer " + SECRET.encode())),
        ("cohere", "v2/chat", (b"authorization", b"Bearer " + SECRET.encode())),
        (
            "aws-bedrock",
            "bedrock-runtime/us-east-1/model/m/converse",
            (b"authorization", b"Bearer " + SECRET.encode()),
        ),
        (
            "aws-bedrock",
            "bedrock-mantle/us-east-1/anthropic/v1/messages",
            (b"x-api-key", SECRET.encode()),
        ),
        (
            "google-vertex-ai",
            "v1/projects/p/locations/us-east4/publishers/google/models/g:generateContent",
            (b"authorization", b"Bearer " + SECRET.encode()),
        ),
    ],
)
def test_a_stored_secret_takes_the_place_of_the_callers(
    slug: str, endpoint: str, header: tuple[bytes, bytes]
) -> None:
    request = asked(provider(slug), endpoint, secret=SECRET)
    assert header in request.headers
    assert not any(b"sk-of-the-caller" in value for _, value in request.headers)
    assert (b"x-stainless-lang", b"python") in request.headers
    assert [name for name, _ in request.headers].count(header[0]) == 1


def test_without_a_stored_secret_everything_goes_on_as_it_came() -> None:
    request = asked(provider("openai"), "chat/completions", query=b"a=1&key=own", body=b'{"a": 1}')
    assert request.headers == CALLER
    assert request.target == b"/v1/chat/completions?a=1&key=own"
    assert (request.method, request.body) == (b"POST", b'{"a": 1}')
    assert request.origin == Origin(scheme="https", host="api.openai.com", port=443)


def test_a_callers_secret_in_the_query_is_dropped_for_a_stored_one() -> None:
    request = asked(
        provider("google-ai-studio"),
        "v1beta/models/g:streamGenerateContent",
        secret=SECRET,
        query=b"alt=sse&key=AIza-of-the-caller",
    )
    assert request.target == b"/v1beta/models/g:streamGenerateContent?alt=sse"


def test_the_query_of_azure_is_kept() -> None:
    request = asked(
        provider("azure-openai"), "res/gpt-4o/chat/completions", query=b"api-version=2024-10-21"
    )
    assert request.target == (b"/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21")


def test_a_query_that_could_end_the_request_line_is_refused() -> None:
    for query in (b"a=1 HTTP/1.1\r\nhost: evil", b"a=\x00", b"a=1#x", "a=ä".encode()):
        with pytest.raises(InvalidRequestError, match="query"):
            asked(provider("openai"), "chat/completions", query=query)


def test_aws_credentials_sign_the_request() -> None:
    body = b'{"messages":[]}'
    request = asked(
        provider("aws-bedrock"),
        "bedrock-runtime/us-east-1/model/amazon.nova-lite-v1:0/converse",
        secret=json.dumps(AWS | {"sessionToken": "sts-token"}),
        body=body,
    )
    headers = dict(request.headers)
    assert headers[b"x-amz-date"] == b"20150830T123600Z"
    assert headers[b"x-amz-security-token"] == b"sts-token"
    assert headers[b"authorization"].startswith(
        b"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/bedrock/aws4_request, "
        b"SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, Signature="
    )
    assert request.origin.host == "bedrock-runtime.us-east-1.amazonaws.com"
    assert request.target == b"/model/amazon.nova-lite-v1:0/converse"


def test_a_request_that_its_caller_signed_is_not_signed_again() -> None:
    signed = [(b"authorization", b"AWS4-HMAC-SHA256 x"), (b"x-amz-date", b"20260101T000000Z")]
    request = asked(
        provider("aws-bedrock"),
        "bedrock-runtime/us-east-1/model/m/invoke",
        headers=signed,
    )
    assert request.headers == signed


def test_workers_ai_of_cloudflare_takes_account_and_token() -> None:
    secret = json.dumps({"account_id": "abc123", "api_token": "cf-token"})
    request = asked(provider("workers-ai"), "@cf/meta/llama", secret=secret)
    assert request.target == b"/client/v4/accounts/abc123/ai/run/@cf/meta/llama"
    assert (b"authorization", b"Bearer cf-token") in request.headers


def test_anthropics_version_is_added_only_where_it_is_missing() -> None:
    added = asked(provider("anthropic"), "v1/messages")
    assert dict(added.headers)[b"anthropic-version"] == b"2023-06-01"
    own = [(b"anthropic-version", b"2099-01-01")]
    assert asked(provider("anthropic"), "v1/messages", headers=own).headers == own


def test_a_custom_providers_headers_are_sent() -> None:
    custom = custom_provider("acme", "https://llm.example.com", headers={"X-Team": "red"})
    assert (b"x-team", b"red") in asked(custom, "v1/chat/completions").headers


def test_headers_of_a_step_are_checked_and_stripped() -> None:
    found = headers_of(
        {
            "Authorization": "Bearer x",
            "Content-Type": "application/json",
            "Host": "evil.example",
            "Transfer-Encoding": "chunked",
            "Content-Length": "5",
            "cf-aig-authorization": "Bearer ours",
        }
    )
    assert found == [(b"authorization", b"Bearer x"), (b"content-type", b"application/json")]


@pytest.mark.parametrize(
    "headers", [{"x": "a\r\nb: c"}, {"x\r\ny": "a"}, {"x y": "a"}, {"": "a"}, {"x": "a\0"}]
)
def test_a_header_of_a_step_cannot_break_out_of_its_line(headers: dict[str, str]) -> None:
    with pytest.raises(InvalidRequestError):
        headers_of(headers)


def test_the_signed_host_is_the_one_that_is_sent() -> None:
    assert host_header(Origin(scheme="https", host="a.example", port=443)) == "a.example"
    assert host_header(Origin(scheme="http", host="127.0.0.1", port=8080)) == "127.0.0.1:8080"
    assert host_header(Origin(scheme="http", host="::1", port=80)) == "[::1]"
