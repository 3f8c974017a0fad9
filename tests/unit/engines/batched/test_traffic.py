from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from openworks.core.errors import ContextLengthExceededError
from openworks.engines.batched.sequence import AdapterKey, Sequence, SequenceState
from tests.unit.engines.batched.loop import Loop, right_answer


class Traffic(RuleBasedStateMachine):
    """Requests, cancellations, adapters and steps in any order, with little room for all."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = Loop()
        self.generations = {"x": 0, "y": 0, "z": 0}
        self.everyone: list[Sequence] = []

    @initialize(
        num_blocks=st.integers(3, 12),
        block_tokens=st.integers(1, 4),
        num_slots=st.integers(1, 2),
        max_running=st.integers(1, 5),
        max_step_tokens=st.integers(1, 9),
        host_bytes=st.integers(3, 8),
        max_loading=st.integers(1, 2),
        max_passes=st.integers(0, 3),
    )
    def start(
        self,
        num_blocks: int,
        block_tokens: int,
        num_slots: int,
        max_running: int,
        max_step_tokens: int,
        host_bytes: int,
        max_loading: int,
        max_passes: int,
    ) -> None:
        self.loop = Loop(
            num_blocks=num_blocks,
            block_tokens=block_tokens,
            num_slots=num_slots,
            max_running=max_running,
            max_step_tokens=max_step_tokens,
            host_bytes=host_bytes,
            max_loading=max_loading,
            max_passes=max_passes,
            size_of=lambda key: {"x": 1, "y": 2, "z": 3}[key.id],
        )

    @rule(
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=12),
        adapter=st.sampled_from([None, None, "x", "y", "z"]),
        account=st.sampled_from("abc"),
        weight=st.sampled_from([0.5, 1.0, 2.0]),
        num_answers=st.sampled_from([1, 1, 1, 2, 3]),
        max_tokens=st.integers(1, 9),
        wants_prompt_logprobs=st.booleans(),
    )
    def ask(
        self,
        prompt: list[int],
        adapter: str | None,
        account: str,
        weight: float,
        num_answers: int,
        max_tokens: int,
        wants_prompt_logprobs: bool,
    ) -> None:
        prompt = prompt[: self.loop.capacity]
        key = AdapterKey(adapter, str(self.generations[adapter])) if adapter is not None else None
        group = [
            self.loop.make(
                prompt,
                max_tokens=max_tokens,
                adapter=key,
                account=account,
                weight=weight,
                wants_prompt_logprobs=wants_prompt_logprobs,
            )
            for _ in range(num_answers)
        ]
        self.loop.add(*group)
        self.everyone.extend(group)

    @rule(count=st.integers(1, 5))
    def step(self, count: int) -> None:
        for _ in range(count):
            self.loop.step()

    @rule()
    def drop_a_plan(self) -> None:
        self.loop.plan()

    @precondition(lambda self: self.loop.alive)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.loop.cancel(data.draw(st.sampled_from(self.loop.alive)))

    @precondition(lambda self: self.loop.alive)
    @rule(data=st.data())
    def cancel_during_a_step(self, data: st.DataObject) -> None:
        victim = data.draw(st.sampled_from(self.loop.alive))
        plan = self.loop.plan()
        if plan is not None:
            self.loop.carry_out(plan)
            if victim in self.loop.alive:
                self.loop.cancel(victim)
            self.loop.take_tokens(plan)

    @precondition(lambda self: self.loop.loading)
    @rule(is_sound=st.sampled_from([True, True, True, False]))
    def answer_a_load(self, is_sound: bool) -> None:
        if is_sound:
            self.loop.load_one()
        else:
            self.loop.fail_load(self.loop.loading[0])

    @rule(id_=st.sampled_from("xyz"))
    def replace_an_adapter(self, id_: str) -> None:
        self.loop.scheduler.forget_adapter(AdapterKey(id_, str(self.generations[id_])))
        self.generations[id_] += 1

    @rule()
    def fail_to_put_an_adapter_into_its_slot(self) -> None:
        plan = self.loop.plan()
        changes = plan.slot_changes if plan is not None else ()
        for change in changes:
            if change.key is not None:
                self.loop.fail_adapter(change.key)

    @invariant()
    def limits_hold(self) -> None:
        loop = self.loop
        assert len(loop.running()) <= loop.config.max_running
        assert loop.scheduler.usage.num_running == len(loop.running())
        in_slots = {seq.slot: seq.adapter for seq in loop.alive if seq.slot is not None}
        assert len(in_slots) <= loop.num_slots
        for seq in loop.alive:
            assert seq.slot is None or in_slots[seq.slot] == seq.adapter
        places = loop.scheduler.places()
        slots = [place.slot for place in places if place.slot is not None]
        assert len(set(slots)) == len(slots)
        assert loop.scheduler.usage.host_bytes <= loop.config.adapters.host_bytes
        assert loop.scheduler.usage.host_bytes == sum(
            place.size_bytes or 0 for place in places if place.is_in_host
        )

    @invariant()
    def blocks_are_held_by_running_sequences_alone(self) -> None:
        held = {block for seq in self.loop.running() for block in seq.blocks}
        held |= {seq.pending_copy.source for seq in self.loop.running() if seq.pending_copy}
        assert self.loop.scheduler.usage.num_used_blocks == len(held)
        for seq in self.everyone:
            assert seq.state is SequenceState.RUNNING or not seq.blocks

    @invariant()
    def whoever_uses_an_adapter_is_counted(self) -> None:
        places = {place.key: place for place in self.loop.scheduler.places()}
        for seq in self.loop.alive:
            if seq.adapter is not None:
                assert seq.adapter in places
        for key, place in places.items():
            users = [seq for seq in self.loop.alive if seq.adapter == key]
            assert place.num_waiting == sum(seq.state is SequenceState.WAITING for seq in users)
            assert place.num_running == sum(seq.slot is not None for seq in users)

    def teardown(self) -> None:
        loop = self.loop
        loop.run(max_steps=3_000)
        assert len(loop.answers) + len(loop.errors) + len(loop.cancelled) == len(self.everyone)
        for seq, tokens in loop.answers.items():
            assert tokens == right_answer(seq)
        for seq, error in loop.errors.items():
            if isinstance(error, ContextLengthExceededError):
                assert len(seq.token_ids) > loop.capacity
        usage = loop.scheduler.usage
        assert (usage.num_used_blocks, usage.num_running, usage.num_waiting) == (0, 0, 0)
        assert all(not place.num_running for place in loop.scheduler.places())


TestTraffic = Traffic.TestCase
TestTraffic.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
