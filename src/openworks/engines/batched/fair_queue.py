"""Who is next: weighted fair queueing between accounts, and between the adapters of one account.

Whoever has been served least goes first, counting every computed token as 1 / weight, and one who
comes back begins where the others are (the virtual token counter of Sheng et al., "Fairness in
Serving Large Language Models", OSDI 2024). Unlike there, coming back costs one token, so that an
endless stream of new accounts cannot keep an old one waiting.
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import heappop, heappush, heapreplace
from itertools import count
from typing import Generic, Protocol, TypeVar

from openworks.core.errors import EngineOverloadedError
from openworks.engines.batched.sequence import AdapterKey, Sequence

_MAX_IDLE = 64
_RETRY_AFTER_S = 1.0


class FairQueue:
    """Sequences that wait, in lanes: one for each adapter of each account, first in, first out.

    A lane whose adapter is not there is set aside: others pass, and it keeps its order. Every
    operation takes O(log n) steps, but for those that name all sequences of an adapter.
    """

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._num_waiting = 0
        self._accounts: dict[str, _Account] = {}
        self._contest: _Contest[_Account] = _Contest()
        self._lanes: dict[AdapterKey | None, dict[str, _Lane]] = {}  # those that have sequences
        self._arrivals = count(1)

    def __len__(self) -> int:
        return self._num_waiting

    @property
    def num_accounts(self) -> int:
        """Accounts whose service is remembered."""
        return len(self._accounts)

    def push(self, sequence: Sequence) -> None:
        """Put a new sequence behind those of its account and adapter.

        Raises:
            EngineOverloadedError: The queue is full.
        """
        if self._num_waiting >= self._max_waiting:
            raise EngineOverloadedError(
                f"{self._num_waiting} requests are waiting for this model, which is its limit.",
                retry_after_s=_RETRY_AFTER_S,
            )
        sequence.arrival = next(self._arrivals)
        self._insert(sequence)

    def push_front(self, sequence: Sequence) -> None:
        """Put a sequence before those of its account and adapter, even when the queue is full."""
        self._insert(sequence).waiting.move_to_end(sequence, last=False)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it stands."""
        lane = self._accounts[sequence.account].lanes[sequence.adapter]
        del lane.waiting[sequence]
        self._num_waiting -= 1
        if not lane.waiting:
            lane.is_aside = False
            lanes = self._lanes[sequence.adapter]
            del lanes[sequence.account]
            if not lanes:
                del self._lanes[sequence.adapter]

    def head(self) -> Sequence | None:
        """The next sequence whose lane is not set aside; it stays in the queue."""
        account = self._contest.first()
        lane = account.contest.first() if account is not None else None
        return next(iter(lane.waiting)) if lane is not None else None

    def set_aside(self, sequence: Sequence) -> None:
        """Let others pass the lane of a sequence, until its adapter is `recall`ed."""
        self._accounts[sequence.account].lanes[sequence.adapter].is_aside = True

    def recall(self, adapter: AdapterKey | None) -> None:
        """Let the lanes of an adapter compete again."""
        for lane in self._lanes.get(adapter, {}).values():
            lane.is_aside = False
            self._compete(lane)

    def waiting_for(self, adapter: AdapterKey | None) -> list[Sequence]:
        """Every sequence of an adapter, of all accounts."""
        lanes = self._lanes.get(adapter, {}).values()
        return [sequence for lane in lanes for sequence in lane.waiting]

    def charge(self, sequence: Sequence, num_tokens: int) -> None:
        """Count tokens as served to a sequence's account and adapter, in the queue or not."""
        lane = self._lane_of(sequence)
        lane.served += num_tokens
        lane.account.served += num_tokens / sequence.weight

    def rank(self, sequence: Sequence) -> tuple[float, float, int]:
        """What orders sequences, in the queue or not: the lowest is next."""
        lane = self._lane_of(sequence)
        return lane.account.served, lane.served, sequence.arrival

    def forget_service(self) -> None:
        """Begin anew; for when nobody waits or runs, so that nobody owes anything."""
        assert not self._num_waiting
        self._accounts.clear()
        self._contest = _Contest()

    def _insert(self, sequence: Sequence) -> _Lane:
        lane = self._lane_of(sequence)
        lane.waiting[sequence] = None
        self._lanes.setdefault(sequence.adapter, {})[sequence.account] = lane
        self._num_waiting += 1
        self._compete(lane)
        return lane

    def _compete(self, lane: _Lane) -> None:
        if not lane.is_aside:
            lane.account.contest.enter(lane)
            self._contest.enter(lane.account)

    def _lane_of(self, sequence: Sequence) -> _Lane:
        account = self._accounts.get(sequence.account)
        if account is None:
            _prune(self._accounts, self._contest)
            account = self._accounts[sequence.account] = _Account(self._contest.floor())
        lane = account.lanes.get(sequence.adapter)
        if lane is None:
            _prune(account.lanes, account.contest)
            lane = account.lanes[sequence.adapter] = _Lane(account, account.contest.floor())
        return lane


class _Lane:
    """One account's waiting sequences for one adapter."""

    __slots__ = ("account", "is_aside", "is_entered", "served", "waiting")

    def __init__(self, account: _Account, served: float) -> None:
        self.account = account
        self.waiting: OrderedDict[Sequence, None] = OrderedDict()
        self.served = served
        self.is_aside = False
        self.is_entered = False

    def arrival(self) -> int | None:
        if self.is_aside or not self.waiting:
            return None
        return next(iter(self.waiting)).arrival

    def is_idle(self) -> bool:
        return not self.waiting


class _Account:
    """One account's lanes."""

    __slots__ = ("contest", "is_entered", "lanes", "served")

    def __init__(self, served: float) -> None:
        self.lanes: dict[AdapterKey | None, _Lane] = {}
        self.contest: _Contest[_Lane] = _Contest()
        self.served = served
        self.is_entered = False

    def arrival(self) -> int | None:
        lane = self.contest.first()
        return lane.arrival() if lane is not None else None

    def is_idle(self) -> bool:
        return all(lane.is_idle() for lane in self.lanes.values())


class _Contestant(Protocol):
    served: float
    """Tokens divided by weight."""
    is_entered: bool

    def arrival(self) -> int | None:
        """The number of the sequence that it would send now; None when it has none to send."""
        ...

    def is_idle(self) -> bool:
        """Whether nothing of it waits, not even aside."""
        ...


C = TypeVar("C", bound=_Contestant)
K = TypeVar("K")


class _Contest(Generic[C]):
    """Those who compete for the next turn: the least served first, then the first to come.

    The heap is put right when it is looked at: `served` only grows, so that an entry is at worst
    too far ahead.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int, C]] = []
        self._entries = count()  # so that contestants are never compared
        self._latest: C | None = None

    def enter(self, one: C) -> None:
        """Let somebody compete; having been away, it begins where the others are."""
        if one.is_entered:
            return
        arrival = one.arrival()
        if arrival is None:
            return
        one.served = max(one.served, self.floor() + 1.0)
        one.is_entered = True
        heappush(self._heap, (one.served, arrival, next(self._entries), one))

    def first(self) -> C | None:
        heap = self._heap
        while heap:
            served, _, _, one = heap[0]
            arrival = one.arrival()
            if arrival is None:
                one.is_entered = False
                heappop(heap)
            elif served != one.served:
                heapreplace(heap, (one.served, arrival, next(self._entries), one))
            else:
                self._latest = one
                return one
        return None

    def floor(self) -> float:
        """What the next to be served has been served; without one, what the latest has been."""
        first = self.first() or self._latest
        return first.served if first is not None else 0.0


def _prune(found: dict[K, C], contest: _Contest[C]) -> None:
    """Forget those that would begin where the others are in any case."""
    if len(found) < _MAX_IDLE or len(found) & (len(found) - 1):
        return
    floor = contest.floor()
    for key in [k for k, one in found.items() if one.served <= floor and one.is_idle()]:
        if not found[key].is_entered:
            del found[key]
