from __future__ import annotations

import pytest

from openworks.core.errors import InvalidRequestError
from openworks.gateway.providers.paths import resolve
from openworks.gateway.providers.registry import Providers, custom_provider, openai_endpoint
from openworks.ports.upstream import Origin

EXPECTED = {
    "openai",
    "anthropic",
    "workers-ai",
    "huggingface",
    "replicate",
    "azure-openai",
    "aws-bedrock",
    "google-ai-studio",
    "google-vertex-ai",
    "perplexity-ai",
    "groq",
    "mistral",
    "cohere",
    "deepseek",
    "grok",
    "openrouter",
    "cerebras",
}


def test_all_providers_are_there_and_can_be_listed() -> None:
    providers = Providers()
    assert set(providers.slugs()) == EXPECTED
    assert providers.get("nobody") is None
    rows = {row["slug"]: row for row in providers.rows()}
    assert rows["groq"]["base"] == "https://api.groq.com/openai/v1"
    assert rows["azure-openai"]["base"] == "https://{resource}.openai.azure.com/openai"
    assert rows["anthropic"]["auth"] == "x-api-key"
    assert all(row["name"] and row["base"] for row in rows.values())


def test_every_openai_shaped_endpoint_leads_somewhere() -> None:
    providers = Providers()
    for slug in providers.slugs():
        provider = providers.get(slug)
        assert provider is not None
        assert provider.speaks_openai == (provider.chat_path is not None)
        for template in (provider.chat_path, provider.embeddings_path):
            if template is None:
                continue
            path = openai_endpoint(template, model="res/gpt-4o", project="p", region="us-east4")
            route = resolve(provider, path, "abc123" if slug == "workers-ai" else "")
            assert route.path.endswith((b"/chat/completions", b"/embeddings"))


def test_a_template_without_its_values_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="project"):
        openai_endpoint("v1/projects/{project}/x")


def test_settings_may_put_another_server_in_a_providers_place() -> None:
    providers = Providers(
        base_urls={
            "openai": "http://127.0.0.1:9000/v1",
            "aws-bedrock": "http://127.0.0.1:9001",
            "azure-openai": "http://127.0.0.1:9002/azure",
        }
    )
    openai, bedrock, azure = (
        providers.get(slug) for slug in ("openai", "aws-bedrock", "azure-openai")
    )
    assert openai is not None
    assert bedrock is not None
    assert azure is not None
    route = resolve(openai, "chat/completions")
    assert route.origin == Origin(scheme="http", host="127.0.0.1", port=9000)
    assert route.path == b"/v1/chat/completions"
    route = resolve(bedrock, "bedrock-runtime/us-east-1/model/m/invoke")
    assert (route.origin.port, route.path, route.region) == (9001, b"/model/m/invoke", "us-east-1")
    route = resolve(azure, "res/dep/chat/completions")
    assert route.path == b"/azure/openai/deployments/dep/chat/completions"
    with pytest.raises(InvalidRequestError, match="nobody"):
        Providers(base_urls={"nobody": "https://x.example"})


def test_a_custom_provider_is_named_by_its_prefix_and_may_not_be_private() -> None:
    custom = custom_provider("acme", "https://llm.example.com/v1")
    assert custom.slug == "custom-acme"
    assert custom_provider("custom-acme", "https://llm.example.com").slug == "custom-acme"
    assert custom.chat_path == "chat/completions"
    assert custom_provider("acme", "https://llm.example.com").chat_path == "v1/chat/completions"
    with pytest.raises(InvalidRequestError, match="private"):
        custom_provider("acme", "http://127.0.0.1:8000")
    assert custom_provider("acme", "http://127.0.0.1:8000", allow_private=True).origin is not None


@pytest.mark.parametrize("slug", ["", "Acme", "a b", "../x", "-a", "a-", "a" * 65])
def test_a_bad_slug_is_refused(slug: str) -> None:
    with pytest.raises(InvalidRequestError, match="slug"):
        custom_provider(slug, "https://llm.example.com")


def test_a_custom_header_cannot_break_out_of_its_line() -> None:
    for headers in ({"x\r\ny": "1"}, {"x": "1\r\ny: 2"}):
        with pytest.raises(InvalidRequestError, match="header"):
            custom_provider("acme", "https://llm.example.com", headers=headers)
