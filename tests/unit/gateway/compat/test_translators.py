from __future__ import annotations

from typing import Any

import pytest

from openworks.core.errors import UnsupportedParameterError
from openworks.gateway.compat.translators import translator
from tests.fakes import FakeClock


@pytest.mark.parametrize("operation", ["chat", "embeddings"])
@pytest.mark.parametrize(
    "provider", ["openai", "google-ai-studio", "cohere", "groq", "workers-ai", "custom-x"]
)
def test_providers_of_openais_shape_need_no_translator(provider: str, operation: Any) -> None:
    assert translator(provider, operation, "m", clock=FakeClock()) is None


def test_chat_of_vertex_goes_to_its_openai_endpoint() -> None:
    assert translator("google-vertex-ai", "chat", "google/gemini-x", clock=FakeClock()) is None


@pytest.mark.parametrize(
    ("provider", "operation", "model"),
    [
        ("anthropic", "chat", "claude-opus-5"),
        ("aws-bedrock", "chat", "amazon.nova-pro-v1:0"),
        ("aws-bedrock", "embeddings", "amazon.titan-embed-text-v2:0"),
        ("google-vertex-ai", "embeddings", "text-embedding-005"),
    ],
)
def test_the_others_are_translated(provider: str, operation: Any, model: str) -> None:
    assert translator(provider, operation, model, clock=FakeClock()) is not None


@pytest.mark.parametrize(
    ("provider", "operation", "model"),
    [
        ("anthropic", "embeddings", "claude-opus-5"),
        ("aws-bedrock", "embeddings", "amazon.nova-pro-v1:0"),
        ("replicate", "chat", "meta/llama"),
        ("replicate", "embeddings", "x/y"),
    ],
)
def test_what_a_provider_does_not_have_is_refused(
    provider: str, operation: Any, model: str
) -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        translator(provider, operation, model, clock=FakeClock())
    assert caught.value.param == "model"
