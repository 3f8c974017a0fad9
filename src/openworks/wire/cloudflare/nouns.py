"""Bodies of provider configs, custom providers and dynamic routes."""

from __future__ import annotations

from typing import Annotated, Self

import orjson
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from openworks.core.json import JsonObject
from openworks.wire.cloudflare.fields import HttpUrl, Name, Shape, Text

Slug = Annotated[str, StringConstraints(pattern=r"\A[a-z0-9][a-z0-9-]{0,62}\z")]
Title = Annotated[str, StringConstraints(min_length=1, max_length=256)]
RouteName = Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9_.-]{1,64}\z")]
Secret = Annotated[str, StringConstraints(min_length=1, max_length=16_384)]


def parse_headers(text: str) -> dict[str, str]:
    """Decode a JSON object of header names and values.

    Raises:
        ValueError: It is none, or would break out of its line.
    """
    try:
        headers = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise ValueError("expected a JSON object of headers, written as a string") from None
    if not isinstance(headers, dict) or not all(isinstance(v, str) for v in headers.values()):
        raise ValueError("expected a JSON object whose values are strings")
    for name, value in headers.items():
        is_token = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
        if not is_token or not value.isascii() or not value.isprintable():
            raise ValueError(f"the header {name[:80]!r} has a name or value that HTTP cannot carry")
    return headers


def _headers(text: str) -> str:
    parse_headers(text)
    return text


class NewProviderConfig(Shape):
    """A credential for a provider."""

    alias: Name
    provider_slug: Slug
    default_config: bool
    secret: Secret | None = None
    secret_id: Text | None = None
    rate_limit: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    rate_limit_period: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if bool(self.secret) == bool(self.secret_id):  # the SDK asks for both, so one is empty
            raise ValueError("expected exactly one of 'secret' and 'secret_id'")
        _check_rate(self.rate_limit, self.rate_limit_period)
        return self


class ProviderConfigUpdate(Shape):
    """What may change of a credential; what is left out stays."""

    alias: Name | None = None
    provider_slug: Slug | None = None
    default_config: bool | None = None
    secret: Secret | None = None
    secret_id: Text | None = None
    rate_limit: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    rate_limit_period: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class CustomProviderShape(Shape):
    """A provider of an account's own."""

    name: Title
    slug: Slug
    base_url: HttpUrl
    beta: bool = False
    curl_example: Text | None = None
    description: Text | None = None
    enable: bool = True
    headers: Annotated[Text, AfterValidator(_headers)] | None = None
    js_example: Text | None = None
    link: Text | None = None
    logo: Text | None = None
    position: int | None = None


class NewRoute(Shape):
    """A dynamic route with its first version."""

    name: RouteName
    elements: Annotated[list[JsonObject], Field(min_length=1, max_length=200)]


class RouteUpdate(Shape):
    """A new name."""

    name: RouteName


class NewVersion(Shape):
    """Another version of a route."""

    elements: Annotated[list[JsonObject], Field(min_length=1, max_length=200)]


class NewDeployment(Shape):
    """The version that is to answer."""

    version_id: Text


class SimulatedCall(Shape):
    """A call that is not made, and what is to become of its steps."""

    version_id: Text | None = None
    metadata: dict[str, str | bool | int | float] = Field(default_factory=dict)
    headers: dict[str, str] = Field(default_factory=dict)
    body: JsonObject = Field(default_factory=dict)
    session_id: Text | None = None
    seed: int | None = None
    limited: list[Text] = Field(default_factory=list)
    failing: list[Text] = Field(default_factory=list)


def _check_rate(limit: float | None, period_s: float | None) -> None:
    if limit and not period_s:
        raise ValueError("'rate_limit' needs a 'rate_limit_period' of at least 1 second")
