"""Where each adapter is: asked of the loader, in host memory, in a slot of the batch.

Bookkeeping only: the loader reads, the executor copies, and this decides what and when.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from openworks.core.errors import InvalidRequestError
from openworks.engines.batched.executor import AdapterWeights
from openworks.engines.batched.sequence import AdapterKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidencyConfig:
    """Adapters in memory."""

    host_bytes: Annotated[int, Field(gt=0)] = 2 << 30
    """Host memory that loaded adapters may take; those in slots take the executor's own."""
    max_loading: Annotated[int, Field(gt=0)] = 2
    """Adapters that are read at once; what they take comes on top of `host_bytes`."""
    max_passes: Annotated[int, Field(ge=0)] = 32
    """Sequences with other adapters that may start while one waits for a slot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotChange:
    """What is to be done to a slot before the next step: put an adapter into it, or empty it."""

    slot: int
    key: AdapterKey | None
    weights: AdapterWeights | None
    """The weights of `key`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterPlace:
    """Where one adapter is, for whoever reports it."""

    key: AdapterKey
    is_loading: bool
    is_in_host: bool
    slot: int | None
    size_bytes: int | None
    """None until it was loaded once."""
    num_waiting: int
    num_running: int


class Residency:
    """Three tiers of adapters. A sequence `want`s its adapter, then `pin`s it, then `unpin`s it.

    What a waiting sequence wants is not evicted from host memory, and what a running one has
    pinned is not moved from its slot. Of the rest the least recently used goes first.
    """

    def __init__(self, config: ResidencyConfig, *, num_slots: int) -> None:
        self._config = config
        self.num_slots = num_slots
        self._entries: dict[AdapterKey, _Entry] = {}
        self._host: OrderedDict[AdapterKey, _Entry] = OrderedDict()  # least recently used first
        self._host_bytes = 0
        self._to_load: OrderedDict[AdapterKey, None] = OrderedDict()
        self._num_loading = 0
        self._empty_slots = list(range(num_slots - 1, -1, -1))
        self._in_slots: OrderedDict[AdapterKey, _Entry] = OrderedDict()  # as `_host`
        self._changes: dict[int, SlotChange] = {}
        self._num_pins = 0
        self._refused: OrderedDict[AdapterKey, int] = OrderedDict()  # → `_num_pins` at that time
        self._giving_way: AdapterKey | None = None
        self._retries: list[AdapterKey] = []
        self._departed: list[AdapterKey] = []

    @property
    def host_bytes(self) -> int:
        """What the adapters in host memory take."""
        return self._host_bytes

    def places(self) -> list[AdapterPlace]:
        """Every adapter that is loaded, being loaded or waited for."""
        return [
            AdapterPlace(
                key=entry.key,
                is_loading=entry.is_loading,
                is_in_host=entry.weights is not None,
                slot=entry.slot,
                size_bytes=entry.size_bytes,
                num_waiting=entry.num_waiting,
                num_running=entry.num_pins,
            )
            for entry in self._entries.values()
        ]

    def want(self, key: AdapterKey) -> None:
        """Count a waiting sequence; an adapter that is nowhere is put down to be loaded."""
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(key)
        entry.num_waiting += 1
        self._load_if_missing(entry)

    def unwant(self, key: AdapterKey) -> None:
        """Count a sequence out that waits no more: it runs, or nobody waits for it any longer."""
        entry = self._entries[key]
        entry.num_waiting -= 1
        if not entry.num_waiting:
            self._to_load.pop(key, None)
            self._end_refusal(key)
        self._let_go(entry)

    def take_loads(self) -> list[AdapterKey]:
        """The adapters to be loaded now, in the order in which they were asked for.

        Each is answered by `loaded` or `failed`. One that is known not to fit beside what waiting
        sequences want is left for later.
        """
        taken: list[AdapterKey] = []
        while self._to_load and self._num_loading < self._config.max_loading:
            entry = self._entries[next(iter(self._to_load))]
            if not self._could_fit(entry.size_bytes or 1):
                break
            del self._to_load[entry.key]
            entry.is_loading = True
            self._num_loading += 1
            taken.append(entry.key)
        return taken

    def loaded(self, key: AdapterKey, weights: AdapterWeights) -> None:
        """Take in what the loader has read, evicting what nobody waits for.

        Raises:
            InvalidRequestError: It takes more than all adapters may.
        """
        entry = self._end_load(key)
        entry.size_bytes = weights.size_bytes
        if weights.size_bytes > self._config.host_bytes:
            self._let_go(entry)
            raise InvalidRequestError(
                f"Adapter {key.id!r} takes {weights.size_bytes} bytes; all adapters in memory may "
                f"take {self._config.host_bytes}.",
                code="adapter_too_large",
            )
        if entry.num_waiting or not entry.is_forgotten:
            self._enter_host(entry, weights)
        self._let_go(entry)

    def failed(self, key: AdapterKey) -> None:
        """Note that an adapter could not be loaded, or not be put into its slot."""
        entry = self._entries.get(key)
        if entry is None:
            return
        if entry.is_loading:
            self._end_load(key)
        self._leave_host(entry)
        self._leave_slot(entry)
        self._let_go(entry)

    def can_pin(self, key: AdapterKey) -> bool:
        """Whether a sequence could have its adapter in a slot now; if not, `take_retries` tells."""
        entry = self._entries[key]
        if entry.slot is None and entry.weights is None:
            return False
        first = self._first_in_need()
        is_passed_by = first is not None and first != key
        if entry.slot is not None:
            is_free = not (is_passed_by and key == self._giving_way)
        else:
            is_free = not is_passed_by and bool(self._empty_slots or self._victim())
        if not is_free:
            self._refused.setdefault(key, self._num_pins)
        return is_free

    def pin(self, key: AdapterKey) -> int:
        """Hold an adapter in its slot, putting it there first; `can_pin` was just true.

        Returns:
            The slot.
        """
        entry = self._entries[key]
        if entry.slot is None:
            self._enter_slot(entry)
        assert entry.slot is not None
        entry.num_pins += 1
        self._num_pins += 1
        self._end_refusal(key)
        self._in_slots.move_to_end(key)
        if entry.weights is not None:
            self._host.move_to_end(key)
        return entry.slot

    def unpin(self, key: AdapterKey) -> None:
        """Let go of an adapter whose sequence ended."""
        entry = self._entries[key]
        entry.num_pins -= 1
        if not entry.num_pins and self._refused:
            self._try_again()
        self._let_go(entry)

    def forget(self, key: AdapterKey) -> None:
        """Make a deleted adapter leave: now when nobody uses it, else with its last sequence."""
        entry = self._entries.get(key)
        if entry is None:
            self._departed.append(key)
            return
        entry.is_forgotten = True
        self._let_go(entry)

    def take_retries(self) -> list[AdapterKey]:
        """Adapters that `can_pin` refused, and for which it may answer otherwise now."""
        retries, self._retries = self._retries, []
        return retries

    def take_departed(self) -> list[AdapterKey]:
        """Forgotten adapters that have left by now."""
        departed, self._departed = self._departed, []
        return departed

    def slot_changes(self) -> list[SlotChange]:
        """What has to be done before the next step; the same again until `slots_changed`."""
        return list(self._changes.values())

    def slots_changed(self, changes: Iterable[SlotChange]) -> None:
        """Note what was done; what has been decided since then remains."""
        for change in changes:
            if self._changes.get(change.slot) is change:
                del self._changes[change.slot]

    def _first_in_need(self) -> AdapterKey | None:
        """The adapter that has been passed over too often; somebody gives way to it from now on."""
        if not self._refused:
            return None
        key, since = next(iter(self._refused.items()))
        if self._num_pins - since <= self._config.max_passes:
            return None
        if self._giving_way is None and not self._empty_slots:
            least = min(self._in_slots.values(), key=lambda entry: entry.num_pins)
            self._giving_way = least.key
        return key

    def _end_refusal(self, key: AdapterKey) -> None:
        if self._refused.pop(key, None) is not None:
            self._giving_way = None
            self._try_again()

    def _try_again(self) -> None:
        self._retries.extend(self._refused)

    def _victim(self) -> _Entry | None:
        """The least recently used adapter that nobody runs; of those, one that nobody waits for."""
        idle = [entry for entry in self._in_slots.values() if not entry.num_pins]
        return next((entry for entry in idle if not entry.num_waiting), idle[0] if idle else None)

    def _enter_slot(self, entry: _Entry) -> None:
        if self._empty_slots:
            slot = self._empty_slots.pop()
        else:
            victim = self._victim()
            assert victim is not None
            assert victim.slot is not None
            slot = victim.slot
            victim.slot = None
            del self._in_slots[victim.key]
            if victim.weights is None:
                # What is nowhere waits for memory, and must not keep a slot from what is there.
                self._end_refusal(victim.key)
            self._load_if_missing(victim)
            self._let_go(victim)
        entry.slot = slot
        self._in_slots[entry.key] = entry
        self._changes[slot] = SlotChange(slot=slot, key=entry.key, weights=entry.weights)

    def _leave_slot(self, entry: _Entry) -> None:
        if entry.slot is None:
            return
        self._changes[entry.slot] = SlotChange(slot=entry.slot, key=None, weights=None)
        self._empty_slots.append(entry.slot)
        entry.slot = None
        del self._in_slots[entry.key]
        self._try_again()

    def _enter_host(self, entry: _Entry, weights: AdapterWeights) -> None:
        """Keep an adapter in host memory; where others are waited for, load it again later."""
        if self._could_fit(weights.size_bytes):
            self._make_room(weights.size_bytes)
            entry.weights = weights
            self._host[entry.key] = entry
            self._host_bytes += weights.size_bytes
            self._retries.append(entry.key)
        elif entry.num_waiting:
            self._to_load[entry.key] = None
            self._to_load.move_to_end(entry.key, last=False)

    def _leave_host(self, entry: _Entry) -> None:
        if entry.weights is None:
            return
        self._host_bytes -= entry.weights.size_bytes
        entry.weights = None
        del self._host[entry.key]

    def _could_fit(self, size_bytes: int) -> bool:
        """Whether there is room in host memory beside what cannot be evicted."""
        kept = sum(entry.host_bytes for entry in self._host.values() if not entry.is_evictable)
        return kept + size_bytes <= self._config.host_bytes

    def _make_room(self, size_bytes: int) -> None:
        for entry in [entry for entry in self._host.values() if entry.is_evictable]:
            if self._host_bytes + size_bytes <= self._config.host_bytes:
                break
            self._leave_host(entry)
            self._let_go(entry)

    def _end_load(self, key: AdapterKey) -> _Entry:
        entry = self._entries[key]
        assert entry.is_loading, f"nobody asked for {key}"
        entry.is_loading = False
        self._num_loading -= 1
        return entry

    def _load_if_missing(self, entry: _Entry) -> None:
        is_missing = entry.weights is None and entry.slot is None and not entry.is_loading
        if is_missing and entry.num_waiting:
            self._to_load.setdefault(entry.key, None)

    def _let_go(self, entry: _Entry) -> None:
        """Drop what nobody uses and nobody will: a forgotten adapter, or one that is nowhere."""
        if entry.num_waiting or entry.num_pins or entry.is_loading:
            return
        if entry.is_forgotten:
            self._leave_host(entry)
            self._leave_slot(entry)
            self._departed.append(entry.key)
        if entry.weights is None and entry.slot is None:
            self._entries.pop(entry.key, None)


class _Entry:
    """One adapter that somebody uses, or that is in memory."""

    __slots__ = (
        "is_forgotten",
        "is_loading",
        "key",
        "num_pins",
        "num_waiting",
        "size_bytes",
        "slot",
        "weights",
    )

    def __init__(self, key: AdapterKey) -> None:
        self.key = key
        self.is_loading = False
        self.is_forgotten = False
        self.weights: AdapterWeights | None = None
        self.size_bytes: int | None = None
        self.slot: int | None = None
        self.num_waiting = 0
        self.num_pins = 0

    @property
    def host_bytes(self) -> int:
        return self.weights.size_bytes if self.weights is not None else 0

    @property
    def is_evictable(self) -> bool:
        return not self.num_waiting or self.slot is not None
