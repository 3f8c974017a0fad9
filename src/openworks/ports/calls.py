"""One model call: who makes it, by which route, and the record that it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from openworks.core.ids import AccountId, KeyId, RequestId

Scope = Literal["inference", "admin"]
Outcome = Literal["ok", "client_closed", "error"]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecord:
    """What one model call leaves in the ledger."""

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
    """None when no token came."""
    duration_ms: float
    outcome: Outcome
    status: int
    """The HTTP status, or 499 when the client left."""
    error_code: str | None = None


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
    """The ledger of model calls."""

    async def insert_many(self, records: Sequence[CallRecord]) -> None:
        """Append records in one transaction; a record whose id is there already is left alone."""
        ...

    async def summarise(
        self,
        *,
        group: UsageGroup,
        since_s: float | None = None,
        account_id: AccountId | None = None,
    ) -> Sequence[UsageRow]:
        """Add the records up by `group`, most calls first."""
        ...

    async def list_recent(self, *, limit: int) -> Sequence[CallRecord]:
        """Return the newest records, newest first."""
        ...
