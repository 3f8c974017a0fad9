"""What providers charge: `prices.toml`, the owner's own prices over it, and the sum for a call."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

import msgspec

from openworks.ports.calls import Usage
from openworks.ports.catalog import Price

_MAX_CACHED = 4096  # callers choose model names; what does not fit is looked up each time
_DATE = re.compile(
    r"(?:-\d{4}-\d{2}-\d{2}|[-@]\d{8}|-\d{4}|-\d{2}-\d{4}|-\d{2}-\d{2}|-latest|-preview|-exp|-\d{3})$"
)
_BEDROCK_REGION = re.compile(r"^(?:us-gov|us|eu|apac|jp|au|ca|global)\.")
_BEDROCK_VERSION = re.compile(r"-v\d+(?::\d+)?$")
_AUTHORS = {
    "anthropic": "anthropic",
    "cohere": "cohere",
    "deepseek": "deepseek",
    "google": "google-ai-studio",
    "mistral": "mistral",
    "mistralai": "mistral",
    "openai": "openai",
    "perplexity": "perplexity-ai",
    "x-ai": "grok",
    "xai": "grok",
}
"""Authors as they stand before a model's name → whose prices those are."""


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    input: float
    output: float = 0.0
    cached: float | None = None


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    source: str = ""
    checked: str = ""
    same_as: tuple[str, ...] = ()
    """Other providers whose prices hold here for models that this table does not name."""
    models: dict[str, _Row] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceSource:
    """Where a provider's prices were read, for the documentation."""

    provider: str
    source: str
    checked: str
    models: tuple[str, ...]


class Prices:
    """Prices by provider and model."""

    def __init__(self, overrides: Mapping[str, Mapping[str, Price]] | None = None) -> None:
        """Read the table.

        Args:
            overrides: Slug → model → the owner's own price, which goes before ours. A slug may be a
                `custom-` one.
        """
        text = files("openworks.gateway.providers").joinpath("prices.toml").read_text()
        self._tables = msgspec.convert(tomllib.loads(text), dict[str, _Table])
        self._prices: dict[str, dict[str, Price]] = {
            slug: {
                model: Price(
                    input_usd_per_mtok=row.input,
                    output_usd_per_mtok=row.output,
                    cached_input_usd_per_mtok=row.cached,
                )
                for model, row in table.models.items()
            }
            for slug, table in self._tables.items()
        }
        for slug, models in (overrides or {}).items():
            self._prices.setdefault(slug, {}).update(models)
        self._found: dict[tuple[str, str], Price | None] = {}

    def price(self, provider_slug: str, model: str) -> Price | None:
        """What a model costs; None when it is not known, and then calls count as free.

        A dated or versioned name (`gpt-4o-2024-08-06`) costs what the name without the date does.
        """
        key = (provider_slug, model)
        try:
            return self._found[key]
        except KeyError:
            found = self._search(provider_slug, model)
            if len(self._found) < _MAX_CACHED:
                self._found[key] = found
            return found

    def sources(self) -> list[PriceSource]:
        """Where the prices come from."""
        return [
            PriceSource(
                provider=slug,
                source=table.source,
                checked=table.checked,
                models=tuple(table.models),
            )
            for slug, table in self._tables.items()
        ]

    def _search(self, slug: str, model: str) -> Price | None:
        for name in _spellings(model):
            own = self._prices.get(slug, {})
            if name in own:
                return own[name]
            table = self._tables.get(slug)
            for other in () if table is None else table.same_as:
                if name in self._prices[other]:
                    return self._prices[other][name]
            if table is not None and (found := self._of_author(name)) is not None:
                return found
        return None

    def _of_author(self, name: str) -> Price | None:
        author, _, rest = name.partition("/")
        if not rest:
            author, _, rest = name.partition(".")
        return self._prices.get(_AUTHORS.get(author, ""), {}).get(rest)


def estimate_tokens(num_bytes: int) -> int:
    """About how many tokens a text of so many bytes is: four bytes to one, rounded up."""
    return (num_bytes + 3) // 4


def cost_usd(price: Price | None, usage: Usage) -> float:
    """What a call costs; 0 where the price is not known."""
    return tokens_usd(
        price,
        usage.prompt_tokens,
        usage.completion_tokens,
        cached_tokens=usage.cached_tokens,
    )


def tokens_usd(
    price: Price | None, prompt_tokens: int, completion_tokens: int, *, cached_tokens: int = 0
) -> float:
    """What tokens cost; the cached ones are among those of the prompt."""
    if price is None:
        return 0.0
    cached = min(cached_tokens, prompt_tokens)
    cached_price = price.cached_input_usd_per_mtok
    if cached_price is None:
        cached_price = price.input_usd_per_mtok
    return (
        (prompt_tokens - cached) * price.input_usd_per_mtok
        + cached * cached_price
        + completion_tokens * price.output_usd_per_mtok
    ) / 1e6


def _spellings(model: str) -> list[str]:
    """A name, and what is left of it without regions, versions, variants and dates."""
    name = model.strip().lower()[:256]
    found = [name]
    for pattern in (_BEDROCK_REGION, _BEDROCK_VERSION):
        name = pattern.sub("", name)
        found.append(name)
    name = name.partition(":")[0] if not name.endswith(":free") else name
    found.append(name)
    for _ in range(3):  # `gemini-2.5-flash-preview-09-2025`
        shorter = _DATE.sub("", name)
        if shorter == name:
            break
        name = shorter
        found.append(name)
    # Anthropic writes `claude-opus-4-5`, others `claude-opus-4.5`.
    found.extend([re.sub(r"(?<=\d)\.(?=\d)", "-", each) for each in found])
    return list(dict.fromkeys(found))
