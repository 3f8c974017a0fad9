"""A gateway as its owner writes it: every field that the official SDK knows, and those of ours."""

from __future__ import annotations

import re
from itertools import count
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from openworks.core.errors import InvalidRequestError
from openworks.core.json import JsonObject, JsonValue
from openworks.wire.cloudflare.fields import (
    HttpUrl,
    Name,
    Shape,
    Text,
    checked,
    missing_field,
)

REQUIRED = (
    "cache_ttl",
    "cache_invalidate_on_update",
    "collect_logs",
    "rate_limiting_interval",
    "rate_limiting_limit",
)
READ_ONLY = frozenset({"created_at", "modified_at", "is_default", "account_id", "account_tag"})
"""What answers say beside; a client that writes back what it read sends it again."""
STORED_ONLY = frozenset(
    {
        "log_classification",
        "store_id",
        "stripe",
        "workers_ai_billing_mode",
        "zdr",
    }
)
"""Kept and given back, and of no effect here."""

MAX_TTL_S = 31 * 24 * 3600
MAX_LOGS = 10_000_000
_MAX_WINDOW_S = 366 * 24 * 3600
_MAX_DELAY_MS = 60_000

Category: TypeAlias = Literal[
    "P1", "S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "S9", "S10", "S11", "S12", "S13"
]
Technique: TypeAlias = Literal["fixed", "sliding"]
Window: TypeAlias = Annotated[int, Field(ge=1, le=_MAX_WINDOW_S)]
Subject: TypeAlias = Annotated[
    str, StringConstraints(pattern=r"\A(gateway|key|model|provider|metadata\.[^\s]{1,64})\z")
]


def _expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as exc:
        raise ValueError(f"not a regular expression: {exc}") from None
    return text


Expression: TypeAlias = Annotated[
    str, StringConstraints(min_length=1, max_length=1000), AfterValidator(_expression)
]
Words: TypeAlias = Annotated[
    list[Annotated[str, StringConstraints(min_length=1, max_length=200)]],
    Field(min_length=1, max_length=10_000),
]


class Guardrails(Shape):
    """Content categories and what each leads to."""

    prompt: dict[Category, Literal["FLAG", "BLOCK"]] = Field(default_factory=dict)
    response: dict[Category, Literal["FLAG", "BLOCK"]] = Field(default_factory=dict)


class DlpPolicy(Shape):
    """One policy."""

    id: Name
    action: Literal["FLAG", "REDACT", "BLOCK"]
    check: Annotated[list[Literal["REQUEST", "RESPONSE"]], Field(min_length=1)]
    enabled: bool
    profiles: Annotated[list[Name], Field(max_length=100)]


class DlpProfile(Shape):
    """A profile of the gateway's owner."""

    id: Name
    patterns: Annotated[dict[Name, Expression], Field(max_length=100)] = Field(default_factory=dict)
    words: Annotated[dict[Name, Words], Field(max_length=100)] = Field(default_factory=dict)


class Dlp(Shape):
    """One action for some profiles, or a list of policies."""

    enabled: bool
    action: Literal["FLAG", "REDACT", "BLOCK"] | None = None
    profiles: Annotated[list[Name], Field(max_length=100)] | None = None
    policies: Annotated[list[DlpPolicy], Field(max_length=100)] | None = None
    custom_profiles: Annotated[list[DlpProfile], Field(max_length=20)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _has_one_shape(self) -> Self:
        if self.policies is not None and (self.action or self.profiles):
            raise ValueError("'policies' stands alone, without 'action' and 'profiles'")
        if self.policies is None and (self.action is None or self.profiles is None):
            raise ValueError("expected 'policies', or both 'action' and 'profiles'")
        _unique("policies", [policy.id for policy in self.policies or ()])
        _unique("custom_profiles", [profile.id for profile in self.custom_profiles])
        return self


class Otel(Shape):
    """Where spans go."""

    url: HttpUrl
    headers: Annotated[dict[Text, Text], Field(max_length=50)]
    authorization: Text | None = None
    content_type: Literal["json", "protobuf"] = "json"


class Selector(Shape):
    """Which calls a spend rule means."""

    mode: Literal["filter", "partition"]
    values: Annotated[list[Text], Field(max_length=100)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _has_values_to_filter_by(self) -> Self:
        if (self.mode == "filter") != bool(self.values):
            raise ValueError("'filter' needs 'values', and 'partition' has none")
        return self


class SpendRule(Shape):
    """A budget."""

    limit: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    limit_type: Annotated[Literal["cost", "tokens"], Field(alias="limitType")]
    window: Window
    id: Name | None = None
    enabled: bool = True
    technique: Technique = "fixed"
    model: Selector | None = None
    provider: Selector | None = None
    key: Selector | None = None
    metadata: Annotated[dict[Text, Selector], Field(max_length=5)] = Field(default_factory=dict)


class SpendLimits(Shape):
    """Budgets, each counted for itself."""

    enabled: bool = True
    rules: Annotated[list[SpendRule], Field(max_length=20)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _names_each_rule_once(self) -> Self:
        taken = [rule.id for rule in self.rules if rule.id is not None]
        _unique("rules", taken)
        # Counts go by id, so a rule keeps the one it got when others come before it later.
        free = (name for number in count(1) if (name := f"rule-{number}") not in taken)
        for rule in self.rules:
            rule.id = rule.id or next(free)
        return self


class StripeEvent(Shape):
    """A template of Stripe's."""

    payload: Text


class Stripe(Shape):
    """Metered billing."""

    authorization: Text
    usage_events: Annotated[list[StripeEvent], Field(max_length=100)]


class RateLimit(Shape):
    """A request rate beside the gateway's own."""

    limit: Annotated[int, Field(ge=1)]
    interval: Window
    technique: Technique = "fixed"
    per: Subject = "gateway"


class Concurrency(Shape):
    """How many calls run at once."""

    limit: Annotated[int, Field(ge=1)]
    per_key_limit: Annotated[int, Field(ge=1)] | None = None
    queue: Annotated[int, Field(ge=0, le=100_000)] = 100
    wait_s: Annotated[float, Field(ge=0, le=600)] = 30.0
    weights: Annotated[
        dict[Text, Annotated[float, Field(gt=0, le=1000)]], Field(max_length=1000)
    ] = Field(default_factory=dict)


class SemanticCache(Shape):
    """Answers for prompts that are alike."""

    enabled: bool = True
    threshold: Annotated[float, Field(gt=0, le=1)]


class Alert(Shape):
    """A webhook for a figure."""

    id: Name
    figure: Literal["cost", "error_rate", "p95_ms", "requests"]
    threshold: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    window: Window
    url: HttpUrl


class GatewayShape(Shape):
    """Every field of a gateway but its id; a field's default is what a new gateway has."""

    cache_ttl: Annotated[int, Field(ge=0, le=MAX_TTL_S)] | None = 0
    cache_invalidate_on_update: bool = False
    collect_logs: bool = True
    rate_limiting_interval: Annotated[int, Field(ge=0, le=_MAX_WINDOW_S)] | None = 0
    rate_limiting_limit: Annotated[int, Field(ge=0)] | None = 0
    rate_limiting_technique: Technique | None = "fixed"
    authentication: bool = True
    byok_only: bool = False
    dlp: Dlp | None = None
    guardrails: Guardrails | None = None
    log_classification: bool = False
    log_management: Annotated[int, Field(ge=1, le=MAX_LOGS)] | None = None
    log_management_strategy: Literal["STOP_INSERTING", "DELETE_OLDEST"] | None = "DELETE_OLDEST"
    logpush: bool = False
    logpush_public_key: Text | None = None
    otel: Annotated[list[Otel], Field(max_length=10)] | None = None
    retry_backoff: Literal["constant", "linear", "exponential"] | None = None
    retry_delay: Annotated[int, Field(ge=0, le=_MAX_DELAY_MS)] | None = None
    retry_max_attempts: Annotated[int, Field(ge=1, le=5)] | None = None
    spend_limits: SpendLimits | None = None
    store_id: Text | None = None
    stripe: Stripe | None = None
    workers_ai_billing_mode: Literal["postpaid", "unified"] = "postpaid"
    zdr: bool = False
    # Ours.
    collect_log_payloads: bool = True
    limits: Annotated[list[RateLimit], Field(max_length=20)] = Field(default_factory=list)
    concurrency: Concurrency | None = None
    semantic_cache: SemanticCache | None = None
    hedge_after_ms: Annotated[int, Field(ge=1, le=600_000)] | None = None
    alerts: Annotated[list[Alert], Field(max_length=20)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.rate_limiting_limit and not self.rate_limiting_interval:
            raise ValueError(
                "'rate_limiting_limit' needs a 'rate_limiting_interval' of at least 1 second"
            )
        _unique("alerts", [alert.id for alert in self.alerts])
        return self


class _Id(Shape):
    id: Name


def defaults() -> JsonObject:
    """Return what a gateway is whose owner said nothing."""
    body: JsonObject = GatewayShape().model_dump(mode="json", by_alias=True)
    return body


def parse_gateway_id(body: JsonValue) -> str:
    """Return the id that a new gateway is to have."""
    if not isinstance(body, dict):
        raise InvalidRequestError("The body of this request must be a JSON object.")
    if "id" not in body:
        raise missing_field("id")
    return checked(_Id, {"id": body["id"]}).id


def parse_gateway(body: JsonValue, *, before: JsonObject) -> JsonObject:
    """Check what an owner wrote; return all fields.

    Args:
        body: A new gateway or an update, in which the `REQUIRED` fields must stand.
        before: Gives the fields that `body` leaves out.

    Raises:
        InvalidRequestError: It does not fit; names the field and its value.
    """
    if not isinstance(body, dict):
        raise InvalidRequestError("The body of this request must be a JSON object.")
    given = {key: value for key, value in body.items() if key not in READ_ONLY and key != "id"}
    checked(GatewayShape, given)  # alone first: what is wrong is in it, not in what was
    for name in REQUIRED:
        if name not in given:
            raise missing_field(name)
    whole = checked(GatewayShape, {**before, **given})
    result: JsonObject = whole.model_dump(mode="json", by_alias=True)
    return result


def read_gateway(body: JsonObject) -> GatewayShape:
    """Return fields that `parse_gateway` made."""
    return checked(GatewayShape, body)


def _unique(what: str, ids: list[str]) -> None:
    for name in ids:
        if ids.count(name) > 1:
            raise ValueError(f"two of '{what}' have the id {name!r}")
