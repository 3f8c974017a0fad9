from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworks.core.errors import InvalidRequestError
from openworks.gateway.providers.base import Provider
from openworks.gateway.providers.peek import peek
from openworks.gateway.providers.registry import Providers

PROVIDERS = Providers()


def provider(slug: str) -> Provider:
    found = PROVIDERS.get(slug)
    assert found is not None
    return found


BEDROCK = "bedrock-runtime/us-east-1/model"
VERTEX = "v1/projects/p/locations/us-central1/publishers"


@pytest.mark.parametrize(
    ("slug", "endpoint", "body", "model", "stream", "max_tokens"),
    [
        ("openai", "chat/completions", {"model": "gpt-4o"}, "gpt-4o", False, None),
        (
            "openai",
            "chat/completions",
            {"model": "gpt-4o", "stream": True, "max_tokens": 9, "messages": [{"model": "no"}]},
            "gpt-4o",
            True,
            9,
        ),
        ("openai", "chat/completions", {"model": "o3", "max_completion_tokens": 7}, "o3", False, 7),
        ("openai", "chat/completions", {"model": "o", "max_tokens": 7, "n": 3}, "o", False, 21),
        ("openai", "responses", {"model": "gpt-5", "max_output_tokens": 5}, "gpt-5", False, 5),
        ("openai", "models", None, "", False, None),
        (
            "anthropic",
            "v1/messages",
            {"model": "claude-sonnet-4-5", "max_tokens": 1024, "stream": True},
            "claude-sonnet-4-5",
            True,
            1024,
        ),
        (
            "google-ai-studio",
            "v1beta/models/gemini-2.5-flash:generateContent",
            {"contents": [], "generationConfig": {"maxOutputTokens": 12}},
            "gemini-2.5-flash",
            False,
            12,
        ),
        (
            "google-ai-studio",
            "v1beta/models/gemini-2.5-flash:streamGenerateContent",
            {"contents": []},
            "gemini-2.5-flash",
            True,
            None,
        ),
        (
            "google-ai-studio",
            "v1beta/openai/chat/completions",
            {"model": "gemini-2.5-flash", "stream": True},
            "gemini-2.5-flash",
            True,
            None,
        ),
        (
            "google-vertex-ai",
            f"{VERTEX}/anthropic/models/claude-opus-4-1@20250805:streamRawPredict",
            {"anthropic_version": "vertex-2023-10-16", "max_tokens": 3},
            "claude-opus-4-1@20250805",
            True,
            3,
        ),
        (
            "azure-openai",
            "res/my-gpt/chat/completions",
            {"messages": [], "stream": True},
            "my-gpt",
            True,
            None,
        ),
        ("azure-openai", "res/openai/v1/responses", {"model": "gpt-5"}, "gpt-5", False, None),
        (
            "aws-bedrock",
            f"{BEDROCK}/us.anthropic.claude-haiku-4-5-20251001-v1%3A0/converse",
            {"messages": [], "inferenceConfig": {"maxTokens": 4}},
            "us.anthropic.claude-haiku-4-5-20251001-v1:0",
            False,
            4,
        ),
        ("aws-bedrock", f"{BEDROCK}/m/converse-stream", {}, "m", True, None),
        (
            "aws-bedrock",
            f"{BEDROCK}/m/invoke-with-response-stream",
            {"max_tokens": 6},
            "m",
            True,
            6,
        ),
        (
            "aws-bedrock",
            "bedrock-mantle/us-east-1/anthropic/v1/messages",
            {"model": "anthropic.claude-opus-5", "stream": True},
            "anthropic.claude-opus-5",
            True,
            None,
        ),
        (
            "huggingface",
            "bigcode/starcoder",
            {"inputs": "x", "parameters": {"max_new_tokens": 8}, "stream": True},
            "bigcode/starcoder",
            True,
            8,
        ),
        ("huggingface", "v1/chat/completions", {"model": "m/n"}, "m/n", False, None),
        (
            "workers-ai",
            "@cf/meta/llama-3.1-8b-instruct",
            {"prompt": "x", "stream": True},
            "@cf/meta/llama-3.1-8b-instruct",
            True,
            None,
        ),
        ("workers-ai", "run/@hf/x/y", {"prompt": "x", "max_tokens": 2}, "@hf/x/y", False, 2),
        ("workers-ai", "v1/chat/completions", {"model": "@cf/a/b"}, "@cf/a/b", False, None),
        ("replicate", "predictions", {"version": "a/b:0123"}, "a/b", False, None),
        ("replicate", "models/meta/llama/predictions", {"input": {}}, "meta/llama", False, None),
        ("cohere", "v2/chat", {"model": "command-a-03-2025"}, "command-a-03-2025", False, None),
    ],
)
def test_the_model_the_stream_and_the_limit_are_found(
    slug: str,
    endpoint: str,
    body: dict[str, object] | None,
    model: str,
    stream: bool,
    max_tokens: int | None,
) -> None:
    data = b"" if body is None else json.dumps(body).encode()
    found = peek(provider(slug), endpoint, data)
    assert (found.model, found.stream, found.max_tokens) == (model, stream, max_tokens)
    assert found.prompt_bytes == len(data)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"model":"gpt-4o","messages":[{"role":"us',
        b'{"model":"gpt-4o"} x',
        b"[1,",
        b"{'a':1}",
    ],
)
def test_truncated_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="not valid JSON"):
        peek(provider("openai"), "chat/completions", body)


def test_json_that_is_nested_too_deeply_is_refused_and_nothing_falls_over() -> None:
    for body in (b'{"a":' * 200_000, b"[" * 200_000, b'{"stream":1,"a":' + b"[" * 200_000):
        with pytest.raises(InvalidRequestError, match="not valid JSON"):
            peek(provider("openai"), "chat/completions", body)


def test_members_of_odd_types_are_left_to_the_provider() -> None:
    body = b'{"stream":"yes","model":"gpt-4o","max_tokens":10.0,"n":"2"}'
    found = peek(provider("openai"), "chat/completions", body)
    assert (found.model, found.stream, found.max_tokens) == ("gpt-4o", False, 10)
    assert peek(provider("openai"), "chat/completions", b'[{"model":"x"}]').model == ""
    assert peek(provider("openai"), "chat/completions", b'{"model":null,"stream":null}').model == ""


def test_uploads_are_passed_on_and_a_forms_model_is_found() -> None:
    form = (
        b'--b0\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
        b"Content-Type: audio/wav\r\n\r\n" + b"{\x00" * 30_000 + b"\r\n--b0\r\n"
        b'Content-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--b0--\r\n'
    )
    found = peek(provider("openai"), "audio/transcriptions", form)
    assert (found.model, found.stream) == ("whisper-1", False)
    assert peek(provider("openai"), "audio/transcriptions", b"RIFF\x00\x01").model == ""
    whisper = peek(provider("workers-ai"), "@cf/openai/whisper", b"ID3\x04")
    assert whisper.model == "@cf/openai/whisper"


def test_a_picture_counts_as_about_a_thousand_tokens() -> None:
    url = "data:image/png;base64," + "A" * 1_000_000
    body = {"model": "gpt-4o", "messages": [{"content": [{"image_url": {"url": url}}]}]}
    found = peek(provider("openai"), "chat/completions", json.dumps(body).encode())
    assert 4_000 < found.prompt_bytes < 5_000
    text = json.dumps({"model": "gpt-4o", "messages": [{"content": "A" * 1_000_000}]}).encode()
    assert peek(provider("openai"), "chat/completions", text).prompt_bytes == len(text)


@given(body=st.binary(max_size=300) | st.text(max_size=200).map(lambda text: b"{" + text.encode()))
def test_a_body_is_read_or_refused(body: bytes) -> None:
    for slug in ("openai", "google-ai-studio"):
        with suppress(InvalidRequestError):
            found = peek(provider(slug), "v1beta/models/x:generateContent", body)
            assert found.prompt_bytes == len(body)
