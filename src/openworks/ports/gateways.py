"""A gateway as the data path sees it: the policy around calls, in one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NewType, TypeAlias

from openworks.core.ids import AccountId

GatewayId = NewType("GatewayId", str)
DEFAULT_GATEWAY = GatewayId("default")

Technique: TypeAlias = Literal["fixed", "sliding"]
Metadata: TypeAlias = Mapping[str, str | int | float | bool]
"""What a caller says of a call in `cf-aig-metadata`: flat, at most five entries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """At most `limit` requests in any (sliding) or each (fixed) `interval_s`."""

    limit: int
    interval_s: int
    technique: Technique = "fixed"
    per: str = "gateway"
    """`gateway`, `key`, `model`, `provider` or `metadata.NAME`: each value has its own count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Which calls a spend rule means by one property."""

    mode: Literal["filter", "partition"]
    """`filter`: only calls with one of `values`; `partition`: a budget for each value."""
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendRule:
    """At most `limit` US dollars or tokens in each window."""

    id: str
    limit: float
    unit: Literal["cost", "tokens"] = "cost"
    window_s: int
    technique: Technique = "fixed"
    by: Mapping[str, Selector] = field(default_factory=dict)
    """By `model`, `provider`, `key` or `metadata.NAME`; empty for all calls of the gateway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Concurrency:
    """How many calls run at once, and who goes first when more wait."""

    limit: int
    per_key_limit: int | None = None
    queue: int = 100
    """How many may wait, over all keys; further ones get a 429."""
    wait_s: float = 30.0
    weights: Mapping[str, float] = field(default_factory=dict)
    """Key id → share of the slots when keys compete; 1.0 for keys that are not named."""


Backoff: TypeAlias = Literal["constant", "linear", "exponential"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often to ask one provider, and how long to wait in between."""

    max_attempts: int = 1
    delay_ms: int = 0
    backoff: Backoff = "exponential"


GuardAction: TypeAlias = Literal["FLAG", "BLOCK"]
DlpAction: TypeAlias = Literal["FLAG", "REDACT", "BLOCK"]
Side: TypeAlias = Literal["REQUEST", "RESPONSE"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Guardrails:
    """Content categories (S1 to S13 of Llama Guard 3; P1: prompt injection) and their actions."""

    prompt: Mapping[str, GuardAction] = field(default_factory=dict)
    response: Mapping[str, GuardAction] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DlpPolicy:
    """What to look for, where, and what a finding leads to."""

    id: str
    action: DlpAction
    checks: frozenset[Side] = frozenset({"REQUEST", "RESPONSE"})
    profiles: tuple[str, ...] = ()
    """Built-in or custom profile ids, such as `credentials` and `financial`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DlpProfile:
    """A custom profile: patterns and words of the gateway's owner."""

    id: str
    patterns: Mapping[str, str] = field(default_factory=dict)
    """Entry id → regular expression."""
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Entry id → words and phrases, found whatever their case, as whole words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OtelExport:
    """Where spans go: an OTLP/HTTP endpoint."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    authorization: str | None = field(default=None, repr=False)
    content_type: Literal["json", "protobuf"] = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPolicy:
    """What of a gateway's calls is kept, and for how long."""

    collect: bool = True
    payloads: bool = True
    limit: int | None = None
    """At most so many log rows; None for no limit."""
    strategy: Literal["STOP_INSERTING", "DELETE_OLDEST"] = "DELETE_OLDEST"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Tell a webhook when a figure of the last `window_s` passes `threshold`."""

    id: str
    figure: Literal["cost", "error_rate", "p95_ms", "requests"]
    threshold: float
    window_s: int
    url: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """One named policy around calls of one account."""

    account_id: AccountId
    id: GatewayId
    created_at_s: float = 0.0
    modified_at_s: float = 0.0
    authentication: bool = True
    """Whether callers must show a key, on a server that has any. Those who need not bring a
    provider's credential of their own."""
    byok_only: bool = False
    """Whether only stored provider credentials are used, never the caller's own."""
    cache_ttl_s: int = 0
    """How long an answer may be reused; 0 turns the cache off unless a request asks for it."""
    semantic_threshold: float | None = None
    """How alike (cosine) two prompts must be for one answer; None turns that off."""
    cache_epoch: int = 0
    """Part of every cache key: counting it up forgets everything."""
    rate_limits: tuple[RateLimit, ...] = ()
    spend_rules: tuple[SpendRule, ...] = ()
    concurrency: Concurrency | None = None
    retry: RetryPolicy = RetryPolicy()
    hedge_after_ms: int | None = None
    """Ask a second time when no byte came for so long; the faster answer counts."""
    guardrails: Guardrails = Guardrails()
    dlp: tuple[DlpPolicy, ...] = ()
    dlp_profiles: tuple[DlpProfile, ...] = ()
    logs: LogPolicy = LogPolicy()
    otel: tuple[OtelExport, ...] = ()
    alerts: tuple[Alert, ...] = ()
