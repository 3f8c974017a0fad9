"""One model call: who makes it, by which route, and the record that it leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import msgspec

from openworks.core.ids import AccountId, KeyId, RequestId

Scope = Literal["inference", "admin"]
Outcome = Literal["ok", "client_closed", "error"]

LOCAL_PROVIDER = "workers-ai"
"""The provider that is this server itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who calls: an account, the key that it showed, and what that key may do."""

    account_id: AccountId
    key_id: KeyId | None = None
    """None on an open server and for the access token of the settings."""
    scopes: frozenset[Scope] = frozenset({"inference", "admin"})
    allowed_models: frozenset[str] | None = None
    """Model names as clients write them; None for every model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The circumstances of one model call."""

    request_id: RequestId
    principal: Principal
    route: str
    """The path template, such as `/v1/chat/completions`: a closed set, fit for a metric label."""
    model: str
    """The name that the caller used."""
    stream: bool = False
    is_background: bool = False
    """Whether nobody waits for the answer, so that it is made in idle time alone."""
    gateway_id: str = "default"
    metadata: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    observer: Callable[[CallRecord], None] | None = None
    """Takes the record in the place of the ledger, for a call that is a part of another one: that
    one has passed the limits and makes the record that counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens, counted by the model's own tokenizer."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that the prefix cache saved."""
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
        )


class CallRecord(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What one model call leaves in the ledger.

    A struct, as one is made and encoded for every call: `msgspec.structs.replace` changes a copy.
    Encoded by position, also in files that outlive an upgrade: new fields go to the end.
    """

    id: RequestId
    created_at_s: float
    account_id: AccountId
    key_id: KeyId | None
    route: str
    model: str
    """The name that the caller used."""
    deployment: str | None
    """The catalogue id it resolved to; None when it never did."""
    stream: bool
    usage: Usage
    cost_usd: float
    first_token_ms: float | None
    """None when no token came, or nobody waited for one."""
    duration_ms: float
    outcome: Outcome
    status: int
    """The HTTP status, or 499 when the client left."""
    error_code: str | None = None
    gateway_id: str = "default"
    provider: str = LOCAL_PROVIDER
    """The slug of the provider that answered, or was asked last."""
    endpoint: str = ""
    """The provider's path that was asked, without its query."""
    event_id: str | None = None
    """The caller's own name for this call, from `cf-aig-event-id`."""
    metadata: Mapping[str, str | int | float | bool] = msgspec.field(default_factory=dict)
    cached: bool = False
    step: int = 0
    """Which step answered: 0 is the first, higher ones are fallbacks."""
    attempts: int = 1
    """How many requests were sent to providers, over all steps; 0 for a cache hit or a refusal."""
    estimated: bool = False
    """Whether the tokens were counted here, as the provider gave none."""
    custom_cost: bool = False
    """Whether the cost follows the caller's own `cf-aig-custom-cost`."""
    routed_by: str | None = None
    """The dynamic route and its version that chose the model."""
    guard_findings: tuple[str, ...] = ()
    """What guardrails and DLP found: entry ids and categories, never the text itself."""
    trace_id: str | None = None
    """The caller's trace that this call belongs to, from `cf-aig-otel-trace-id`; not stored."""
    parent_span_id: str | None = None
    """The span in it that made this call, from `cf-aig-otel-parent-span-id`; not stored."""


class CallBodies(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What was said, as it went over the wire (redacted first, where a policy asks for it)."""

    request: bytes
    response: bytes
    request_type: str = "application/json"
    response_type: str = "application/json"
    is_partial: bool = False
    """Whether a body was cut at the size limit, or the stream broke off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """Records added up by one key of grouping."""

    group: str
    """The model, account, key, day (`YYYY-MM-DD`, UTC) or route; empty for calls without a key."""
    calls: int
    errors: int
    usage: Usage
    cost_usd: float
    mean_first_token_ms: float | None
    mean_duration_ms: float


UsageGroup = Literal["model", "account", "key", "day", "route"]


class RecordStore(Protocol):
    """The ledger of model calls, to be read; `ports.recorder.Recorder` fills it."""

    async def summarise(
        self,
        *,
        group: UsageGroup,
        since_s: float | None = None,
        account_id: AccountId | None = None,
    ) -> Sequence[UsageRow]:
        """Add all calls up by `group`, most calls first, also those that left no row.

        Args:
            group: What to add up by.
            since_s: Rounded down to the minute, or to the hour when it is days ago.
            account_id: None for all accounts.
        """
        ...

    async def list_recent(self, *, limit: int) -> Sequence[CallRecord]:
        """Return the newest records, newest first."""
        ...
