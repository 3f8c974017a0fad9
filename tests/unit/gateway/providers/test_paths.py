from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworks.core.errors import InvalidRequestError
from openworks.gateway.providers.paths import resolve
from openworks.gateway.providers.registry import Providers, custom_provider

PROVIDERS = Providers()
VERTEX = "projects/my-project/locations"

ROUTES = [
    ("openai", "chat/completions", "api.openai.com", "/v1/chat/completions"),
    ("openai", "/v1/chat/completions", "api.openai.com", "/v1/chat/completions"),
    ("openai", "v1/v1/responses", "api.openai.com", "/v1/responses"),
    ("openai", "files/file-abc/content", "api.openai.com", "/v1/files/file-abc/content"),
    ("anthropic", "v1/messages", "api.anthropic.com", "/v1/messages"),
    ("anthropic", "messages", "api.anthropic.com", "/v1/messages"),
    ("groq", "chat/completions", "api.groq.com", "/openai/v1/chat/completions"),
    ("groq", "openai/v1/chat/completions", "api.groq.com", "/openai/v1/chat/completions"),
    ("grok", "v1/chat/completions", "api.x.ai", "/v1/chat/completions"),
    ("grok", "chat/completions", "api.x.ai", "/v1/chat/completions"),
    ("mistral", "v1/chat/completions", "api.mistral.ai", "/v1/chat/completions"),
    ("deepseek", "chat/completions", "api.deepseek.com", "/chat/completions"),
    ("deepseek", "anthropic/v1/messages", "api.deepseek.com", "/anthropic/v1/messages"),
    ("perplexity-ai", "chat/completions", "api.perplexity.ai", "/chat/completions"),
    ("openrouter", "chat/completions", "openrouter.ai", "/api/v1/chat/completions"),
    ("openrouter", "v1/chat/completions", "openrouter.ai", "/api/v1/chat/completions"),
    ("cerebras", "chat/completions", "api.cerebras.ai", "/v1/chat/completions"),
    ("cohere", "v1/chat", "api.cohere.com", "/v1/chat"),
    ("cohere", "v2/chat", "api.cohere.com", "/v2/chat"),
    ("cohere", "v1/v2/chat", "api.cohere.com", "/v2/chat"),
    ("cohere", "chat", "api.cohere.com", "/v1/chat"),
    (
        "cohere",
        "compatibility/v1/chat/completions",
        "api.cohere.com",
        "/compatibility/v1/chat/completions",
    ),
    ("replicate", "predictions", "api.replicate.com", "/v1/predictions"),
    ("replicate", "v1/predictions", "api.replicate.com", "/v1/predictions"),
    (
        "huggingface",
        "bigcode/starcoder",
        "router.huggingface.co",
        "/hf-inference/models/bigcode/starcoder",
    ),
    (
        "huggingface",
        "models/gpt2",
        "router.huggingface.co",
        "/hf-inference/models/gpt2",
    ),
    (
        "huggingface",
        "v1/chat/completions",
        "router.huggingface.co",
        "/v1/chat/completions",
    ),
    (
        "google-ai-studio",
        "v1beta/models/gemini-2.5-flash:generateContent",
        "generativelanguage.googleapis.com",
        "/v1beta/models/gemini-2.5-flash:generateContent",
    ),
    (
        "google-vertex-ai",
        f"v1/{VERTEX}/us-central1/publishers/google/models/gemini-2.5-flash:generateContent",
        "us-central1-aiplatform.googleapis.com",
        f"/v1/{VERTEX}/us-central1/publishers/google/models/gemini-2.5-flash:generateContent",
    ),
    (
        "google-vertex-ai",
        f"v1/{VERTEX}/global/publishers/google/models/g:countTokens",
        "aiplatform.googleapis.com",
        f"/v1/{VERTEX}/global/publishers/google/models/g:countTokens",
    ),
    (
        "google-vertex-ai",
        f"v1/{VERTEX}/eu/publishers/google/models/g:generateContent",
        "aiplatform.eu.rep.googleapis.com",
        f"/v1/{VERTEX}/eu/publishers/google/models/g:generateContent",
    ),
    (
        "azure-openai",
        "my-resource/gpt-4o/chat/completions",
        "my-resource.openai.azure.com",
        "/openai/deployments/gpt-4o/chat/completions",
    ),
    (
        "azure-openai",
        "my-resource/openai/v1/responses",
        "my-resource.openai.azure.com",
        "/openai/v1/responses",
    ),
    (
        "aws-bedrock",
        "bedrock-runtime/us-east-1/model/us.anthropic.claude-haiku-4-5-20251001-v1:0/invoke",
        "bedrock-runtime.us-east-1.amazonaws.com",
        "/model/us.anthropic.claude-haiku-4-5-20251001-v1:0/invoke",
    ),
    (
        "aws-bedrock",
        "bedrock-runtime/eu-west-1/model/arn%3Aaws%3Abedrock%3A%3Ainference%2Fx/converse",
        "bedrock-runtime.eu-west-1.amazonaws.com",
        "/model/arn%3Aaws%3Abedrock%3A%3Ainference%2Fx/converse",
    ),
    (
        "aws-bedrock",
        "bedrock-mantle/us-east-1/anthropic/v1/messages",
        "bedrock-mantle.us-east-1.api.aws",
        "/anthropic/v1/messages",
    ),
    (
        "aws-bedrock",
        "bedrock-runtime/cn-north-1/model/m/invoke",
        "bedrock-runtime.cn-north-1.amazonaws.com.cn",
        "/model/m/invoke",
    ),
]


@pytest.mark.parametrize(("slug", "endpoint", "host", "path"), ROUTES)
def test_a_gateway_path_becomes_the_providers_own(
    slug: str, endpoint: str, host: str, path: str
) -> None:
    provider = PROVIDERS.get(slug)
    assert provider is not None
    route = resolve(provider, endpoint)
    assert (route.origin.scheme, route.origin.host, route.origin.port) == ("https", host, 443)
    assert route.path.decode() == path


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [
        ("@cf/meta/llama-3.1-8b-instruct", "run/@cf/meta/llama-3.1-8b-instruct"),
        ("run/@cf/meta/llama-3.1-8b-instruct", "run/@cf/meta/llama-3.1-8b-instruct"),
        ("v1/chat/completions", "v1/chat/completions"),
    ],
)
def test_cloudflares_workers_ai_is_asked_in_the_credentials_account(
    endpoint: str, path: str
) -> None:
    provider = PROVIDERS.get("workers-ai")
    assert provider is not None
    route = resolve(provider, endpoint, "abc123")
    assert route.path.decode() == f"/client/v4/accounts/abc123/ai/{path}"
    with pytest.raises(InvalidRequestError, match="account id"):
        resolve(provider, endpoint)
    with pytest.raises(InvalidRequestError, match="account id"):
        resolve(provider, endpoint, "../other")


def test_a_custom_providers_path_is_appended_as_it_stands() -> None:
    custom = custom_provider("acme", "https://llm.example.com:8443/api/v1/")
    route = resolve(custom, "v1/models")
    assert (route.origin.host, route.origin.port) == ("llm.example.com", 8443)
    assert route.path == b"/api/v1/v1/models"


@pytest.mark.parametrize(
    "endpoint",
    [
        "..",
        "../admin",
        "chat/../../admin",
        "chat/..",
        "./chat",
        "chat//completions",
        "//evil.example/chat",
        "https://evil.example/chat",
        "%2e%2e/admin",
        "%2E./admin",
        "chat/%2e%2e%2fadmin",
        "..%2fadmin",
        "..%5cadmin",
        "chat%252e%252e/admin",
        "chat\\..\\admin",
        "chat\r\nhost: evil.example",
        "chat%0d%0ahost:evil",
        "chat%00",
        "chat completions",
        "chat?x=1",
        "chat#x",
        "chat%3fx",
        "chat%zz",
        "chät",
        "a" * 3000,
    ],
)
def test_a_hostile_path_is_refused(endpoint: str) -> None:
    for slug in ("openai", "groq", "google-ai-studio", "huggingface"):
        provider = PROVIDERS.get(slug)
        assert provider is not None
        with pytest.raises(InvalidRequestError, match="cannot be used"):
            resolve(provider, endpoint)


@pytest.mark.parametrize(
    ("slug", "endpoint"),
    [
        ("azure-openai", "evil.example/gpt-4o/chat/completions"),
        ("azure-openai", "evil.example%2f/gpt-4o/chat/completions"),
        ("azure-openai", "user@evil/gpt-4o/chat/completions"),
        ("azure-openai", "evil:8080/gpt-4o/chat/completions"),
        ("azure-openai", "-evil/gpt-4o/chat/completions"),
        ("azure-openai", "resource"),
        ("azure-openai", "resource/deployment"),
        ("aws-bedrock", "bedrock-runtime/evil.example/model/m/invoke"),
        ("aws-bedrock", "bedrock-runtime/us-east-1.evil/model/m/invoke"),
        ("aws-bedrock", "s3/us-east-1/bucket/key"),
        ("aws-bedrock", "bedrock-runtime/us-east-1"),
        ("google-vertex-ai", "v1/projects/p/locations/evil.example/x"),
        ("google-vertex-ai", "v1/projects/p/locations/evil%2fx/x"),
        ("google-vertex-ai", "v1/projects/p"),
        ("google-vertex-ai", "projects/p/locations/us-central1/x"),
    ],
)
def test_a_host_is_never_made_of_what_is_no_dns_label(slug: str, endpoint: str) -> None:
    provider = PROVIDERS.get(slug)
    assert provider is not None
    with pytest.raises(InvalidRequestError, match="cannot be used"):
        resolve(provider, endpoint)


HOSTS = {
    "openai": ("api.openai.com",),
    "groq": ("api.groq.com",),
    "azure-openai": (".openai.azure.com",),
    "aws-bedrock": (".amazonaws.com", ".api.aws", ".amazonaws.com.cn"),
    "google-vertex-ai": ("aiplatform.googleapis.com", ".rep.googleapis.com"),
    "huggingface": ("router.huggingface.co",),
}
_PIECES = st.sampled_from(
    [
        "..",
        ".",
        "/",
        "//",
        "%2e",
        "%2f",
        "%5c",
        "%25",
        "\\",
        "@",
        ":",
        "evil.example",
        "v1",
        "chat",
        "?",
        "#",
        "x",
        "openai",
        "bedrock-runtime",
        "us-east-1",
        "projects",
        "locations",
        "\r\n",
        "\x00",
    ]
)


@given(
    slug=st.sampled_from(sorted(HOSTS)),
    endpoint=st.lists(_PIECES, max_size=10).map("".join) | st.text(max_size=60),
)
def test_no_path_leaves_its_provider(slug: str, endpoint: str) -> None:
    provider = PROVIDERS.get(slug)
    assert provider is not None
    try:
        route = resolve(provider, endpoint)
    except InvalidRequestError:
        return
    assert route.origin.host.endswith(HOSTS[slug])
    path = route.path.decode("ascii")
    assert path.startswith(f"{provider.base_path}/")
    decoded = unquote(unquote(path))
    assert not {".", ".."} & set(decoded.replace("\\", "/").split("/"))
    assert "//" not in decoded
    assert all("!" <= char <= "~" for char in decoded)


def test_a_refusal_shows_a_hostile_path_without_its_control_characters() -> None:
    provider = PROVIDERS.get("openai")
    assert provider is not None
    with pytest.raises(InvalidRequestError) as caught:
        resolve(provider, "chat\r\nx: \x1b[31m" + "a" * 500)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300
