from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworks.gateway.providers.registry import Providers
from openworks.gateway.providers.usage import usage_of
from openworks.ports.calls import Usage
from tests.unit.gateway.providers.answers import WHOLE

PROVIDERS = Providers()


@pytest.mark.parametrize("name", WHOLE)
def test_usage_is_read_from_every_dialect(name: str) -> None:
    sample = WHOLE[name]
    provider = PROVIDERS.get(sample.provider)
    assert provider is not None
    assert usage_of(provider, sample.endpoint, sample.body) == sample.usage


def test_bedrocks_invoke_counts_in_headers() -> None:
    provider = PROVIDERS.get("aws-bedrock")
    assert provider is not None
    headers = [
        (b"x-amzn-bedrock-input-token-count", b"12"),
        (b"x-amzn-bedrock-output-token-count", b"34"),
    ]
    endpoint = "bedrock-runtime/us-east-1/model/meta.llama3-8b/invoke"
    found = usage_of(provider, endpoint, b'{"generation":"Hi"}', headers)
    assert found == Usage(prompt_tokens=12, completion_tokens=34)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"RIFF\x00\x00",
        b"[]",
        b"{",
        b'{"usage":null}',
        b'{"usage":{}}',
        b'{"usage":{"prompt_tokens":-1}}',
        b'{"error":{"message":"usage"}}',
        b'{"result":[{"label":"POSITIVE","score":0.9}],"success":true}',
        b'{"result":"a picture","success":true}',
        b'{"a":' + b"[" * 100_000,
    ],
)
def test_an_answer_without_usage_has_none(body: bytes) -> None:
    provider = PROVIDERS.get("openai")
    assert provider is not None
    assert usage_of(provider, "chat/completions", body) is None


@given(body=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_answer_is_too_strange(body: bytes) -> None:
    for slug in ("openai", "google-ai-studio", "aws-bedrock"):
        provider = PROVIDERS.get(slug)
        assert provider is not None
        assert usage_of(provider, "x", b"{" + body, []) is None
