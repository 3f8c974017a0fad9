from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from openworks.core.errors import InvalidRequestError
from openworks.engines.batched.residency import AdapterPlace, Residency, ResidencyConfig
from openworks.engines.batched.sequence import AdapterKey
from tests.unit.engines.batched.loop import weights

X, Y, Z = AdapterKey("x"), AdapterKey("y"), AdapterKey("z")


def residency(
    *, num_slots: int = 2, host_bytes: int = 10, max_loading: int = 9, max_passes: int = 3
) -> Residency:
    config = ResidencyConfig(host_bytes=host_bytes, max_loading=max_loading, max_passes=max_passes)
    return Residency(config, num_slots=num_slots)


def want(adapters: Residency, key: AdapterKey, *, size_bytes: int = 1) -> None:
    """Begin to wait for an adapter, which is loaded if need be."""
    adapters.want(key)
    for each in adapters.take_loads():
        adapters.loaded(each, weights(size_bytes))


def start(adapters: Residency, key: AdapterKey) -> int:
    """Let a sequence that waits run."""
    assert adapters.can_pin(key)
    slot = adapters.pin(key)
    adapters.unwant(key)
    return slot


def run(adapters: Residency, key: AdapterKey, *, size_bytes: int = 1) -> None:
    """A request from its beginning to its end."""
    want(adapters, key, size_bytes=size_bytes)
    start(adapters, key)
    adapters.unpin(key)


def place(adapters: Residency, key: AdapterKey) -> AdapterPlace | None:
    return next((place for place in adapters.places() if place.key == key), None)


def in_host(adapters: Residency) -> set[AdapterKey]:
    return {place.key for place in adapters.places() if place.is_in_host}


def test_many_waiters_cause_one_load() -> None:
    adapters = residency()
    for _ in range(3):
        adapters.want(X)
    assert adapters.take_loads() == [X]
    adapters.want(X)
    assert adapters.take_loads() == []
    assert not adapters.can_pin(X)
    adapters.loaded(X, weights())
    assert adapters.take_retries() == [X]
    assert adapters.can_pin(X)


def test_loads_begin_in_order_and_only_so_many_at_once() -> None:
    adapters = residency(max_loading=2)
    for key in (Z, X, Y):
        adapters.want(key)
    assert adapters.take_loads() == [Z, X]
    adapters.loaded(X, weights())
    assert adapters.take_loads() == [Y]


def test_load_that_nobody_waits_for_any_more_is_not_begun() -> None:
    adapters = residency()
    adapters.want(X)
    adapters.unwant(X)
    assert adapters.take_loads() == []
    assert adapters.places() == []


def test_adapter_whose_waiters_left_while_it_was_loaded_is_kept() -> None:
    adapters = residency()
    adapters.want(X)
    adapters.take_loads()
    adapters.unwant(X)
    adapters.loaded(X, weights())
    assert in_host(adapters) == {X}


def test_failed_load_is_tried_again_by_the_next_request() -> None:
    adapters = residency()
    adapters.want(X)
    adapters.take_loads()
    adapters.unwant(X)
    adapters.failed(X)
    assert adapters.places() == []
    adapters.want(X)
    assert adapters.take_loads() == [X]


def test_first_request_puts_the_adapter_into_a_slot_once() -> None:
    adapters = residency()
    want(adapters, X)
    want(adapters, X)
    assert start(adapters, X) == start(adapters, X)
    changes = adapters.slot_changes()
    assert [(change.slot, change.key) for change in changes] == [(0, X)]
    assert changes[0].weights is not None
    assert adapters.slot_changes() == changes
    adapters.slots_changed(changes)
    assert adapters.slot_changes() == []


def test_change_decided_after_the_plan_is_not_lost() -> None:
    adapters = residency()
    run(adapters, X)
    planned = adapters.slot_changes()
    adapters.forget(X)
    adapters.slots_changed(planned)
    assert [change.key for change in adapters.slot_changes()] == [None]


def test_least_recently_used_adapter_leaves_its_slot() -> None:
    adapters = residency(num_slots=2)
    run(adapters, X)
    run(adapters, Y)
    run(adapters, X)
    run(adapters, Z)
    slots = {place.key: place.slot for place in adapters.places()}
    assert slots == {X: 0, Y: None, Z: 1}


def test_adapter_that_somebody_waits_for_leaves_its_slot_after_one_that_nobody_does() -> None:
    adapters = residency(num_slots=2)
    run(adapters, X)
    run(adapters, Y)
    want(adapters, X)
    run(adapters, Z)
    slots = {place.key: place.slot for place in adapters.places()}
    assert slots == {X: 0, Y: None, Z: 1}


def test_pinned_adapters_keep_their_slots() -> None:
    adapters = residency(num_slots=1)
    want(adapters, X)
    start(adapters, X)
    want(adapters, Y)
    assert not adapters.can_pin(Y)
    adapters.take_retries()
    adapters.unpin(X)
    assert adapters.take_retries() == [Y]
    assert start(adapters, Y) == 0


def test_least_recently_used_adapter_leaves_host_memory() -> None:
    adapters = residency(num_slots=1, host_bytes=2)
    for key in (X, Y, X, Z):
        run(adapters, key)
    assert in_host(adapters) == {X, Z}
    assert adapters.host_bytes == 2


def test_adapter_in_a_slot_runs_without_host_memory() -> None:
    adapters = residency(num_slots=2, host_bytes=1)
    run(adapters, X)
    run(adapters, Y)
    assert in_host(adapters) == {Y}
    want(adapters, X)
    assert start(adapters, X) == 0
    assert adapters.take_loads() == []


def test_adapter_that_is_nowhere_any_more_is_loaded_again() -> None:
    adapters = residency(num_slots=1, host_bytes=1)
    run(adapters, X)
    run(adapters, Y)
    adapters.want(X)
    assert adapters.take_loads() == [X]


def test_what_is_waited_for_is_not_evicted_and_the_new_one_comes_later() -> None:
    adapters = residency(num_slots=1, host_bytes=3)
    want(adapters, X, size_bytes=2)
    want(adapters, Y, size_bytes=2)  # does not fit beside it
    assert in_host(adapters) == {X}
    assert adapters.take_loads() == []
    start(adapters, X)
    assert adapters.take_loads() == [Y]
    adapters.loaded(Y, weights(2))
    assert in_host(adapters) == {Y}


def test_adapter_larger_than_all_memory_is_refused() -> None:
    adapters = residency(host_bytes=10)
    adapters.want(X)
    adapters.take_loads()
    with pytest.raises(InvalidRequestError, match=r"'x' takes 11 bytes; .* take 10") as refused:
        adapters.loaded(X, weights(11))
    assert refused.value.code == "adapter_too_large"
    adapters.unwant(X)
    assert adapters.places() == []


def test_forgotten_adapter_that_nobody_uses_leaves_at_once() -> None:
    adapters = residency()
    run(adapters, X)
    adapters.slots_changed(adapters.slot_changes())
    adapters.forget(X)
    assert adapters.places() == []
    assert adapters.host_bytes == 0
    assert [(change.slot, change.key) for change in adapters.slot_changes()] == [(0, None)]
    assert adapters.take_departed() == [X]


def test_forgotten_adapter_in_use_leaves_with_its_last_sequence() -> None:
    adapters = residency()
    want(adapters, X)
    want(adapters, X)
    start(adapters, X)
    adapters.forget(X)
    adapters.unpin(X)
    assert place(adapters, X) is not None  # one waits still
    start(adapters, X)
    adapters.unpin(X)
    assert place(adapters, X) is None
    assert adapters.take_departed() == [X]


def test_adapter_forgotten_while_it_is_loaded_does_not_stay() -> None:
    adapters = residency(host_bytes=1)
    run(adapters, Y)
    adapters.want(X)
    adapters.take_loads()
    adapters.forget(X)
    adapters.unwant(X)
    adapters.loaded(X, weights())
    assert in_host(adapters) == {Y}
    assert adapters.take_departed() == [X]


def test_next_generation_is_another_adapter() -> None:
    adapters = residency()
    run(adapters, X)
    want(adapters, AdapterKey("x", "1"))
    assert start(adapters, AdapterKey("x", "1")) == 1


def test_adapter_passed_over_too_often_gets_the_slot_that_is_used_least() -> None:
    adapters = residency(num_slots=2, max_passes=3)
    for key in (X, X, Y):
        want(adapters, key)
        start(adapters, key)
    want(adapters, Z)
    assert not adapters.can_pin(Z)
    for _ in range(4):
        want(adapters, X)
        start(adapters, X)
    want(adapters, Y)
    assert not adapters.can_pin(Y)
    want(adapters, X)
    assert adapters.can_pin(X)
    adapters.unpin(Y)
    assert start(adapters, Z) == 1
    assert set(adapters.take_retries()) >= {Y}


def test_slot_is_not_kept_for_one_who_left() -> None:
    adapters = residency(num_slots=1, max_passes=0)
    want(adapters, X)
    start(adapters, X)
    want(adapters, Y)
    assert not adapters.can_pin(Y)
    want(adapters, X)
    start(adapters, X)
    want(adapters, X)
    assert not adapters.can_pin(X)
    adapters.unwant(Y)
    assert X in adapters.take_retries()
    assert adapters.can_pin(X)


def test_adapter_that_lost_its_slot_and_is_nowhere_keeps_no_slot_from_others() -> None:
    adapters = residency(num_slots=1, host_bytes=3, max_passes=0)
    want(adapters, Z, size_bytes=3)
    start(adapters, Z)
    want(adapters, Y, size_bytes=2)  # takes the place of Z in host memory
    assert not adapters.can_pin(Y)
    want(adapters, Z)
    start(adapters, Z)
    want(adapters, Z)
    assert not adapters.can_pin(Z)  # gives way to Y
    want(adapters, X, size_bytes=1)
    adapters.unpin(Z)
    adapters.unpin(Z)
    start(adapters, Y)
    adapters.unpin(Y)
    assert adapters.take_loads() == []  # Z does not fit beside X, which waits for the slot
    assert start(adapters, X) == 0
    assert adapters.take_loads() == [Z]


class Visits(RuleBasedStateMachine):
    """Sequences that wait, run and end; loads that succeed and fail; adapters that are deleted."""

    def __init__(self) -> None:
        super().__init__()
        self.adapters = residency()
        self.sizes = {X: 1, Y: 2, Z: 3}
        self.waiting: list[AdapterKey] = []
        self.running: list[tuple[AdapterKey, int]] = []
        self.loading: list[AdapterKey] = []
        self.slots: dict[int, AdapterKey] = {}
        self.host_bytes = 0

    @initialize(
        num_slots=st.integers(1, 3), host_bytes=st.integers(3, 7), max_passes=st.integers(0, 3)
    )
    def begin(self, num_slots: int, host_bytes: int, max_passes: int) -> None:
        self.host_bytes = host_bytes
        self.adapters = residency(
            num_slots=num_slots, host_bytes=host_bytes, max_passes=max_passes, max_loading=2
        )

    @rule(key=st.sampled_from([X, Y, Z]))
    def want(self, key: AdapterKey) -> None:
        self.adapters.want(key)
        self.waiting.append(key)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(key)
        self.adapters.unwant(key)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def try_to_run(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.waiting))
        if self.adapters.can_pin(key):
            self.waiting.remove(key)
            self.running.append((key, self.adapters.pin(key)))
            self.adapters.unwant(key)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        key, slot = data.draw(st.sampled_from(self.running))
        self.running.remove((key, slot))
        self.adapters.unpin(key)

    @rule()
    def begin_loads(self) -> None:
        self.loading.extend(self.adapters.take_loads())
        assert len(set(self.loading)) == len(self.loading) <= 2

    @precondition(lambda self: self.loading)
    @rule(is_sound=st.booleans())
    def end_a_load(self, is_sound: bool) -> None:
        key = self.loading.pop(0)
        if is_sound:
            self.adapters.loaded(key, weights(self.sizes[key]))
            return
        for each in [each for each in self.waiting if each == key]:
            self.waiting.remove(each)
            self.adapters.unwant(key)
        self.adapters.failed(key)

    @rule(key=st.sampled_from([X, Y, Z]))
    def forget(self, key: AdapterKey) -> None:
        self.adapters.forget(key)

    @rule()
    def change_slots(self) -> None:
        changes = self.adapters.slot_changes()
        pinned = {slot: key for key, slot in self.running}
        for change in changes:
            if change.key is None:
                self.slots.pop(change.slot, None)
            else:
                assert change.weights is not None
                assert change.weights.size_bytes == self.sizes[change.key]
                self.slots[change.slot] = change.key
        self.adapters.slots_changed(changes)
        assert pinned.items() <= self.slots.items()

    @invariant()
    def places_agree(self) -> None:
        places = {place.key: place for place in self.adapters.places()}
        waiting, running = Counter(self.waiting), Counter(key for key, _ in self.running)
        for key in (X, Y, Z):
            place = places.get(key)
            assert waiting[key] == (place.num_waiting if place is not None else 0)
            assert running[key] == (place.num_running if place is not None else 0)
        for key, slot in self.running:
            assert places[key].slot == slot
        slots = [place.slot for place in places.values() if place.slot is not None]
        assert len(set(slots)) == len(slots)
        kept = sum(self.sizes[key] for key, place in places.items() if place.is_in_host)
        assert self.adapters.host_bytes == kept <= self.host_bytes

    def teardown(self) -> None:
        """Everybody who waits gets a turn, when loads succeed and sequences end."""
        for _ in range(200):
            self.begin_loads()
            while self.loading:
                self.end_a_load(is_sound=True)
            for key in list(self.waiting):
                if self.adapters.can_pin(key):
                    self.waiting.remove(key)
                    self.running.append((key, self.adapters.pin(key)))
                    self.adapters.unwant(key)
            self.change_slots()
            for key, slot in list(self.running):
                self.running.remove((key, slot))
                self.adapters.unpin(key)
        assert not self.waiting
        for key in (X, Y, Z):
            self.adapters.forget(key)
        assert self.adapters.places() == []
        self.change_slots()
        assert self.slots == {}


TestVisits = Visits.TestCase
TestVisits.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
