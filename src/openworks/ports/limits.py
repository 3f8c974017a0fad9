"""What may pass now: request rates, budgets that are reserved and settled, and turns."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import msgspec

from openworks.core.ids import AccountId, KeyId
from openworks.ports.gateways import Gateway, Metadata
from openworks.ports.upstream import Headers


class Claim(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A call that asks to pass, with the most that it may use.

    A struct, as one is made for every call; `msgspec.structs.replace` changes a copy.
    """

    gateway: Gateway
    account_id: AccountId
    key_id: KeyId | None
    provider: str
    model: str
    metadata: Metadata
    tokens: int
    """An upper estimate of prompt and completion together."""
    cost_usd: float
    """The same in money."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a call may not pass. Refused calls use up nothing."""

    kind: Literal["rate", "spend", "concurrency", "unavailable"]
    """`unavailable`: the shared counts cannot be reached and the settings say to refuse then."""
    bucket: str
    """What is full, as its owner names it: `gateway`, `key`, a spend rule's id, …"""
    limit: float
    used: float
    """Spent and reserved, in the rule's unit."""
    retry_after_s: float


class Admission(Protocol):
    """A call that passed; exactly one `settle` gives back what it did not use."""

    @property
    def remaining(self) -> Headers:
        """Response headers that say what is left: `x-ratelimit-remaining-requests` and its kin."""
        ...

    def settle(self, *, tokens: int, cost_usd: float) -> None:
        """Replace the reservation by what was used; a second call is ignored."""
        ...


class Limiter(Protocol):
    """Decides on claims. All limits of a claim admit it, or none counts it."""

    def admit(self, claim: Claim) -> Admission | Refusal | Awaitable[Admission | Refusal]:
        """Decide, at once where the counts are in this process and nobody must wait for a turn.

        An awaitable must be awaited; cancelling it frees its place.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What the ledger says was used: one call, or the sum of calls that have all of this alike."""

    at_s: float
    """When the call was admitted; for sums, any moment in the rules' windows that they fall in."""
    key_id: KeyId | None
    provider: str
    model: str
    metadata: Metadata = field(default_factory=dict)
    tokens: int = 0
    cost_usd: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetState:
    """What one budget has counted, to be held against the ledger."""

    rule_id: str
    values: tuple[str, ...]
    """Of the rule's partitions, in the order of its `by`; `*` for values beyond the bound."""
    spent: float
    reserved: float
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CountsAsk:
    """What one process reports of one shared count, and what it would like to take from it.

    Counts are whole numbers in slices of time: a slice's number is the epoch in milliseconds
    divided by `width_ms`. Slices older than `depth` before the present one count no more.
    """

    key: str
    width_ms: int
    depth: int
    """0 for fixed windows, which are one slice wide."""
    limit: int
    report: Sequence[tuple[int, int, int]]
    """Slice, spent and held by this process: totals, not changes, so that repeating is harmless."""
    need: int
    """What callers are waiting for; 0 to report only."""
    smallest: int
    """The least that helps any of them."""
    want: int
    """What would save the next journeys, granted only while plenty is left."""
    hold_ms: int
    """For how long a grant shall be good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountsGrant:
    """The answer to one ask."""

    granted: int
    slice: int
    """Which slice the grant counts in."""
    hold_ms: int
    """How long after the question it may be used; what is left then must be given back."""
    taken: int
    """Spent and held by all processes, this grant included."""
    retry_ms: int
    """When some of it will be free again."""
    now_ms: int
    """The epoch as the store sees it."""
    owners: int
    """How many processes hold or held shares lately."""
    grace_ms: int
    """Greater than 0 when the store lost its memory and waits for the reports of all processes."""


class SharedCounts(Protocol):
    """Counts that several processes take from without ever taking more than there is."""

    async def exchange(self, owner: str, asks: Sequence[CountsAsk]) -> Sequence[CountsGrant]:
        """Report and ask, each count atomically, all in one journey.

        Raises:
            StorageError: The store is gone; whether it heard is unknown, and does not matter.
        """
        ...

    async def seed(self, key: str, spent: Mapping[int, int], *, width_ms: int, depth: int) -> bool:
        """Set what was spent before, by slice, unless the count exists; return whether it was set.

        Raises:
            StorageError: The store is gone.
        """
        ...
