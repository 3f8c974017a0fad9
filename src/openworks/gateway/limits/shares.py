"""One shared count as one process sees it: what it leased, used and holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from openworks.gateway.limits.windows import SLICES, Slot
from openworks.ports.gateways import Technique
from openworks.ports.limits import CountsAsk, CountsGrant

WhenDown = Literal["local", "refuse"]

_MAX_HOLD_MS = 250
_MIN_HOLD_MS = 25
_MAX_REFUSED_S = 0.05
"""For how long a refusal is believed, as others may give something back meanwhile."""
_RENEW_S = 5.0


@dataclass(slots=True)
class Link:
    """What all shares of a process know of the store."""

    offset_ms: float
    """The store's epoch minus this process's monotonic clock."""
    when_down: WhenDown
    on_listed: Callable[[Share], None]
    is_down: bool = False
    grace_until_s: float = 0.0
    owners: int = 1

    def is_alone(self, now_s: float) -> bool:
        """Whether this process must decide without the store."""
        return self.is_down or now_s < self.grace_until_s


@dataclass(slots=True)
class _Contact:
    """The last answer of the store."""

    at_s: float = -1e18
    taken: int = 0
    """By all processes."""
    own: int = 0
    """By this one."""
    drift: int = 0
    """How much the others took between the last two contacts, and may have taken since."""
    retry_at_s: float = 0.0
    refused_until_s: float = 0.0
    refused_amount: int = 0


@dataclass(slots=True)
class _Need:
    """What callers wait for."""

    total: int = 0
    smallest: int = 0


@dataclass(slots=True, eq=False)
class Share:
    """A bucket whose room is what this process leased; it never looks at the wall clock.

    Without the store, the process may use its part (by the number of processes seen last) of what
    was left at the last contact; once a whole window has passed, its part of the limit. What the
    others took since that contact is estimated from before, so then, and only then, all processes
    together may pass the limit by what they took in about a quarter of a second.
    """

    key: str
    span_s: int
    technique: Technique
    is_rate: bool
    link: Link
    width_ms: int = 0
    depth: int = 0
    hold_ms: int = 0
    limit: int = 0
    pool: int = 0
    pool_slice: int = 0
    pool_until_s: float = 0.0
    is_listed: bool = False
    is_changed: bool = False
    recent: int = 0
    spent: dict[int, int] = field(default_factory=dict)
    reserved: dict[int, int] = field(default_factory=dict)
    contact: _Contact = field(default_factory=_Contact)
    need: _Need = field(default_factory=_Need)

    def __post_init__(self) -> None:
        span_ms = self.span_s * 1000
        self.depth = 0 if self.technique == "fixed" else SLICES
        self.width_ms = -(-span_ms // SLICES) if self.depth else span_ms
        self.hold_ms = min(max(span_ms // 40, _MIN_HOLD_MS), _MAX_HOLD_MS)

    # The bucket

    def room(self, now_s: float, limit: int) -> int:
        self.limit = limit
        pool = self.pool if now_s < self.pool_until_s else 0
        if self.link.is_alone(now_s) and self.link.when_down == "local":
            return max(pool, self._room_alone(now_s, limit))
        return pool

    def take(self, now_s: float, amount: int) -> Slot:
        if self.pool >= amount and now_s < self.pool_until_s:
            self.pool -= amount
            number = self.pool_slice
        else:
            number = self._slice(now_s)
        counts = self.spent if self.is_rate else self.reserved
        counts[number] = counts.get(number, 0) + amount
        self.recent += amount
        self._touch()
        return number

    def settle(self, slot: Slot, reserved: int, used: int) -> None:
        assert isinstance(slot, int)
        if slot not in self.reserved:
            return  # its window is over
        self.reserved[slot] -= reserved
        self.spent[slot] = self.spent.get(slot, 0) + used
        if slot == self.pool_slice and reserved > used:
            self.pool += reserved - used
        self._touch()

    def used(self, now_s: float) -> int:
        return self.contact.taken - self.pool

    def held(self) -> int:
        return sum(self.reserved.values())

    def left(self, limit: int, room: int) -> int:
        return max(limit - self.contact.taken + room, room)

    def retry_after_s(self, now_s: float, amount: int, limit: int) -> float:
        return max(self.contact.retry_at_s - now_s, 0.001)

    def reset_s(self, now_s: float) -> float:
        if self.depth:
            return float(self.span_s)
        return self.span_s - (now_s + self.link.offset_ms / 1000) % self.span_s

    def is_idle(self, now_s: float) -> bool:
        self._forget_old(self._slice(now_s))
        return not (self.is_listed or self.need.total or self.spent or self.held())

    def is_refused(self, now_s: float, amount: int) -> bool:
        """Whether the store said just now that so much is not to be had."""
        contact = self.contact
        return now_s < contact.refused_until_s and amount >= contact.refused_amount

    # What goes to the store and comes back

    def want(self, amount: int) -> None:
        """Note that a caller waits for `amount`."""
        need = self.need
        need.smallest = min(need.smallest, amount) if need.total else amount
        need.total += max(amount, 1)

    def ask(self, now_s: float) -> CountsAsk:
        """Make the next report; where callers wait, the rest of the lease goes back with it."""
        need, self.need = self.need, _Need()
        if need.total or now_s >= self.pool_until_s:
            self.pool = 0
        self._forget_old(self._slice(now_s))
        self.is_changed = False
        held = dict(self.reserved)
        if self.pool:
            held[self.pool_slice] = held.get(self.pool_slice, 0) + self.pool
        if any(held.values()):
            self._list()  # to give it back in time, and to renew what is not settled yet
        elapsed_s = max(now_s - self.contact.at_s, 0.001)
        recent, self.recent = self.recent, 0
        wanted = int(2 * recent * self.hold_ms / 1000 / elapsed_s)
        return CountsAsk(
            key=self.key,
            width_ms=self.width_ms,
            depth=self.depth,
            limit=self.limit,
            report=[
                (number, self.spent.get(number, 0), held.get(number, 0))
                for number in self.spent.keys() | held.keys()
            ],
            need=need.total,
            smallest=need.smallest,
            want=max(wanted, need.total) if need.total else 0,
            hold_ms=self.hold_ms,
        )

    def apply(self, ask: CountsAsk, grant: CountsGrant, sent_s: float) -> None:
        """Take the answer to `ask`, which was sent at `sent_s`."""
        contact = self.contact
        if grant.grace_ms:
            return  # the store knows only those who have reported since it lost its memory
        others = contact.taken - contact.own
        contact.at_s = sent_s
        contact.taken = grant.taken
        contact.retry_at_s = sent_s + grant.retry_ms / 1000
        if ask.need and not grant.granted:
            contact.refused_until_s = sent_s + min(grant.retry_ms / 1000, _MAX_REFUSED_S)
            contact.refused_amount = ask.smallest
        if grant.granted:
            kept = self.pool if grant.slice == self.pool_slice else 0
            self.pool = grant.granted + kept
            self.pool_slice = grant.slice
            # Counted from the question, so it ends here before it ends there.
            self.pool_until_s = sent_s + grant.hold_ms / 1000
            contact.refused_until_s = 0.0
            self._list()  # so that what is not used goes back
        contact.own = self._own(self._slice(sent_s) - self.depth) + self.pool
        contact.drift = max(contact.taken - contact.own - others, 0)

    def is_due(self, now_s: float) -> bool:
        """Whether the store must hear of this, either news or that it is still held."""
        is_over = bool(self.pool) and now_s >= self.pool_until_s
        return self.is_changed or is_over or now_s - self.contact.at_s >= _RENEW_S

    def report_again(self) -> None:
        """Note that the store may not have heard, or may have forgotten."""
        if self.spent or self.reserved or self.pool:
            self._touch()

    def report_later(self) -> None:
        """Stay on the list for as long as something is held."""
        if self.pool or self.held():
            self._list()

    def give_back(self) -> None:
        """End the lease, as the process ends."""
        self.pool = 0
        self._touch()

    def _touch(self) -> None:
        self.is_changed = True
        self._list()

    def _list(self) -> None:
        if not self.is_listed:
            self.is_listed = True
            self.link.on_listed(self)

    def _slice(self, now_s: float) -> int:
        return int((now_s * 1000 + self.link.offset_ms) // self.width_ms)

    def _own(self, oldest: int) -> int:
        return sum(
            amount
            for counts in (self.spent, self.reserved)
            for number, amount in counts.items()
            if number >= oldest
        )

    def _forget_old(self, current: int) -> None:
        # One slice longer than counts: the clocks of both sides may differ by a little.
        oldest = current - self.depth - 1
        for counts in (self.spent, self.reserved):
            for number in [each for each in counts if each < oldest]:
                del counts[number]

    def _room_alone(self, now_s: float, limit: int) -> int:
        current = self._slice(now_s)
        oldest = current - self.depth
        own = self._own(oldest)
        contact = self.contact
        contact_slice = self._slice(contact.at_s) if contact.at_s > -1e17 else -1
        if contact_slice >= oldest:
            left = max(limit - contact.taken - contact.drift, 0)
            return contact.own + left // self.link.owners - own
        return limit // self.link.owners - own
