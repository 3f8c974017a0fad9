from __future__ import annotations

import pytest

from openworks.api.gateway.naming import gateway_name, is_remote
from openworks.ports.catalog import ModelEntry
from openworks.services.catalog import Catalog, CatalogConfig
from tests.unit.services.test_catalog import FakeWeights

CATALOG = Catalog(
    [
        ModelEntry(id="google/gemma", name="Gemma", task="text-generation"),
        ModelEntry(id="@cf/meta/llama", name="Llama", task="text-generation"),
    ],
    {"gpt-4o": "text-generation"},
    weights=FakeWeights(),
    config=CatalogConfig(),
)


@pytest.mark.parametrize(
    "name",
    [
        "google/gemma",
        "google/gemma+pirate",
        "@cf/meta/llama+pirate",
        "gpt-4o+pirate",
        "ft:llama:openai/team:pirate:12345678",
    ],
)
def test_adapter_of_a_model_that_is_here_is_answered_here(name: str) -> None:
    assert gateway_name(name, CATALOG) == ("workers-ai", name)


@pytest.mark.parametrize("name", ["google/other", "google/other+pirate", "openai/gpt-4.1"])
def test_model_of_another_provider_is_asked_there(name: str) -> None:
    assert is_remote(name, CATALOG)
