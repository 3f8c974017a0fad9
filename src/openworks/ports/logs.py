"""What may be asked of the logs: single calls with their bodies, and figures over many."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from openworks.core.ids import AccountId, RequestId
from openworks.ports.calls import CallBodies, CallRecord, Usage

FilterKey: TypeAlias = Literal[
    "id",
    "created_at",
    "request_content_type",
    "response_content_type",
    "success",
    "cached",
    "provider",
    "model",
    "cost",
    "tokens",
    "tokens_in",
    "tokens_out",
    "duration",
    "feedback",
    "event_id",
    "metadata.key",
    "metadata.value",
    "status",
    "key_id",
]
FilterOperator: TypeAlias = Literal["eq", "neq", "contains", "lt", "gt"]
FilterValue: TypeAlias = str | int | float | bool | None
LogOrder: TypeAlias = Literal[
    "created_at",
    "provider",
    "model",
    "success",
    "cached",
    "cost",
    "tokens_in",
    "tokens_out",
    "duration",
    "feedback",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilter:
    """One condition; with several values, any of them suffices (`neq`: none may match)."""

    key: FilterKey
    operator: FilterOperator
    values: tuple[FilterValue, ...]
    """Of the column's own type: seconds since the epoch for `created_at`, milliseconds for
    `duration`, true or false for `success` and `cached`; None matches what was never set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """Which logs of one gateway, in which order."""

    account_id: AccountId
    gateway_id: str
    filters: tuple[LogFilter, ...] = ()
    """All of them hold."""
    since_s: float | None = None
    until_s: float | None = None
    """The first moment that is too late."""
    min_cost_usd: float | None = None
    max_cost_usd: float | None = None
    min_duration_ms: float | None = None
    max_duration_ms: float | None = None
    min_tokens_in: float | None = None
    max_tokens_in: float | None = None
    min_tokens_out: float | None = None
    max_tokens_out: float | None = None
    min_total_tokens: float | None = None
    max_total_tokens: float | None = None
    search: str | None = None
    """Part of the id, model, provider, metadata or error code, whatever its case."""
    order_by: LogOrder = "created_at"
    descending: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyInfo:
    """What is known of bodies without reading them."""

    request_bytes: int
    response_bytes: int
    request_type: str
    response_type: str
    is_partial: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCall:
    """One call as the logs keep it."""

    call: CallRecord
    feedback: int | None = None
    """-1, 0 or 1; None when nobody said."""
    score: float | None = None
    bodies: BodyInfo | None = None
    """None when they were not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPage:
    """Some logs, and how many match in all."""

    items: Sequence[StoredCall]
    total: int
    """Exact up to 10,000 and where nothing is filtered; beyond that, at least so many match."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChange:
    """What to change of a log; None leaves it as it is."""

    feedback: int | None = None
    score: float | None = None
    metadata: Mapping[str, str | int | float | bool] | None = None


class LogStore(Protocol):
    """The logs of all gateways."""

    async def list(self, query: LogQuery, *, page: int = 1, per_page: int = 20) -> LogPage:
        """Return one page, counted from 1; an empty one after the last."""
        ...

    def scan(self, query: LogQuery, *, batch: int = 500) -> AsyncIterator[Sequence[StoredCall]]:
        """Yield all that match, oldest first, however many: for exports. `order_by` is ignored."""
        ...

    async def get(
        self, account_id: AccountId, gateway_id: str, log_id: RequestId
    ) -> StoredCall | None:
        """Return one log."""
        ...

    async def get_bodies(
        self, account_id: AccountId, gateway_id: str, log_id: RequestId
    ) -> CallBodies | None:
        """Return what was said in one call; None when it was not kept."""
        ...

    async def change(
        self, account_id: AccountId, gateway_id: str, log_id: RequestId, change: LogChange
    ) -> StoredCall | None:
        """Change one log and return it; None when there is none."""
        ...

    async def delete(self, query: LogQuery, *, limit: int | None = None) -> int:
        """Delete the first `limit` that match, in the query's order; return how many there were.

        The sums keep what the calls used. Deletes in slices, so that nobody waits for long; one
        that is cancelled has deleted some.
        """
        ...


Dimension: TypeAlias = Literal[
    "gateway", "provider", "model", "key", "route", "status", "cached", "stream"
]
Metric: TypeAlias = Literal["duration", "first_token"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalyticsQuery:
    """What to add up of [since_s, until_s), by which properties."""

    account_id: AccountId
    gateway_id: str | None = None
    """None for all gateways of the account."""
    since_s: float
    until_s: float
    """Both are taken to the minute, or to the hour when that is days ago; see `Figures`."""
    step_s: int | None = None
    """The length of a time bucket, in whole minutes; None for one bucket."""
    group_by: tuple[Dimension, ...] = ()
    where: Mapping[Dimension, str | int | bool] = field(default_factory=dict)
    metrics: frozenset[Metric] = frozenset({"duration", "first_token"})
    """Which quantiles, beside the sums; over thousands of rows, each takes as long as all sums."""
    limit: int = 10_000
    """The most rows; of one time, those with most requests come first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """Estimates from a histogram whose buckets are each half as wide again as the one before."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one group of calls adds up to."""

    bucket_s: int | None
    """When its time bucket begins; None without a step."""
    group: Mapping[Dimension, str | int | bool]
    requests: int
    errors: int
    cached: int
    usage: Usage
    cost_usd: float
    mean_duration_ms: float
    mean_first_token_ms: float | None
    duration: Quantiles | None
    """None when not asked for, without calls, or where the properties together cross more than
    (provider, model), (key), (route) or (status, cached, stream): those have only sums."""
    first_token: Quantiles | None


SpendKey: TypeAlias = str
"""`provider`, `model`, `key` or `metadata.NAME`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What the calls of one budget used."""

    values: tuple[str, ...]
    """One for each key that was asked for, in that order; empty text for calls without."""
    requests: int
    tokens: int
    """Prompt and completion."""
    cost_usd: float


class Analytics(Protocol):
    """Figures over all calls, also those that left no row, and whose row was deleted."""

    async def query(self, query: AnalyticsQuery) -> Sequence[Figures]:
        """Add up, oldest bucket first, then most requests first.

        Raises:
            InvalidRequestError: The step is no whole number of minutes, or far too small.
        """
        ...

    async def spent(
        self,
        account_id: AccountId,
        gateway_id: str,
        *,
        since_s: float,
        by: tuple[SpendKey, ...] = (),
    ) -> Sequence[Spent]:
        """Add up what was spent, to restore budgets after a start.

        `since_s` is rounded down to the minute (to the hour when it is days ago), so a budget may
        count a little too much, never too little. By `metadata.NAME`, only calls with a row count.
        """
        ...
