from __future__ import annotations

import re

import pytest

from openworks.gateway.providers.prices import Prices, cost_usd, estimate_tokens
from openworks.gateway.providers.registry import Providers
from openworks.ports.calls import Usage
from openworks.ports.catalog import Price

PRICES = Prices()


@pytest.mark.parametrize(
    ("slug", "model", "like"),
    [
        ("openai", "gpt-4o-2024-08-06", ("openai", "gpt-4o")),
        ("openai", "gpt-4o-mini-2024-07-18", ("openai", "gpt-4o-mini")),
        ("openai", "gpt-4-0613", ("openai", "gpt-4")),
        ("openai", "o3-2025-04-16", ("openai", "o3")),
        ("azure-openai", "gpt-4.1", ("openai", "gpt-4.1")),
        ("anthropic", "claude-sonnet-4-5-20250929", ("anthropic", "claude-sonnet-4-5")),
        ("anthropic", "claude-3-5-haiku-latest", ("anthropic", "claude-3-5-haiku")),
        (
            "aws-bedrock",
            "us.anthropic.claude-haiku-4-5-20251001-v1:0",
            ("anthropic", "claude-haiku-4-5"),
        ),
        ("google-vertex-ai", "claude-opus-4-1@20250805", ("anthropic", "claude-opus-4-1")),
        ("google-vertex-ai", "google/gemini-2.5-pro", ("google-ai-studio", "gemini-2.5-pro")),
        (
            "google-ai-studio",
            "gemini-2.5-flash-preview-09-2025",
            ("google-ai-studio", "gemini-2.5-flash"),
        ),
        ("google-ai-studio", "gemini-3-pro-preview", ("google-ai-studio", "gemini-3-pro")),
        ("cohere", "command-r-08-2024", ("cohere", "command-r")),
        ("openrouter", "openai/gpt-4o", ("openai", "gpt-4o")),
        ("openrouter", "anthropic/claude-opus-4.5", ("anthropic", "claude-opus-4-5")),
    ],
)
def test_a_dated_or_prefixed_name_costs_what_its_model_does(
    slug: str, model: str, like: tuple[str, str]
) -> None:
    found = PRICES.price(slug, model)
    assert found is not None
    assert found == PRICES.price(*like)
    assert PRICES.price(slug, model) is found


@pytest.mark.parametrize(
    ("slug", "model"),
    [
        ("openai", "gpt-4o-audio"),
        ("openai", "ft:gpt-4o:acme::abc"),
        ("openai", "gpt-99"),
        ("openai", ""),
        ("nobody", "gpt-4o"),
        ("custom-acme", "gpt-4o"),
        ("openrouter", "openai/gpt-4o:free"),
        ("workers-ai", "@cf/meta/llama-3.1-8b-instruct"),
        ("openai", "x" * 10_000),
    ],
)
def test_an_unknown_model_has_no_price_and_costs_nothing(slug: str, model: str) -> None:
    assert PRICES.price(slug, model) is None
    assert cost_usd(None, Usage(prompt_tokens=10)) == 0.0


def test_a_cost_counts_cached_tokens_at_their_own_price() -> None:
    price = PRICES.price("openai", "gpt-4o")
    usage = Usage(prompt_tokens=1_000_000, completion_tokens=100_000, cached_tokens=400_000)
    assert cost_usd(price, usage) == pytest.approx(0.6 * 2.5 + 0.4 * 1.25 + 0.1 * 10)
    flat = Price(input_usd_per_mtok=2.0, output_usd_per_mtok=4.0)
    assert cost_usd(flat, usage) == pytest.approx(2.0 + 0.4)


def test_the_owners_prices_go_first() -> None:
    own = Price(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)
    prices = Prices({"openai": {"gpt-4o": own}, "custom-acme": {"llama": own}})
    assert prices.price("openai", "gpt-4o-2024-08-06") is own
    assert prices.price("custom-acme", "llama") is own
    assert prices.price("openai", "gpt-4.1") == PRICES.price("openai", "gpt-4.1")


def test_names_beyond_the_bound_are_still_found() -> None:
    prices = Prices()
    for number in range(5000):
        assert prices.price("openai", f"made-up-{number}x") is None
    assert prices.price("openai", "gpt-4o") is not None


def test_every_price_has_a_dated_source_and_a_provider() -> None:
    slugs = set(Providers().slugs())
    for source in PRICES.sources():
        assert source.provider in slugs
        assert source.source.startswith("https://")
        assert re.fullmatch(r"2026-\d{2}-\d{2}", source.checked)
        for model in source.models:
            price = PRICES.price(source.provider, model)
            assert price is not None
            assert 0 < price.input_usd_per_mtok <= 100
            cached = price.cached_input_usd_per_mtok
            assert cached is None or 0 < cached < price.input_usd_per_mtok


def test_four_bytes_are_about_one_token() -> None:
    assert [estimate_tokens(num) for num in (0, 1, 4, 5, 4000)] == [0, 1, 1, 2, 1000]
