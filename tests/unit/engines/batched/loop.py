"""The engine's loop around a scheduler, with a cache that remembers what was written where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from zlib import crc32

from openworks.core.errors import AppError, ModelUnavailableError
from openworks.engines.batched.executor import AdapterWeights, CacheShape
from openworks.engines.batched.plan import Plan
from openworks.engines.batched.residency import ResidencyConfig, SlotChange
from openworks.engines.batched.scheduler import Scheduler, SchedulerConfig
from openworks.engines.batched.sequence import AdapterKey, Sequence, SequenceState
from openworks.engines.batched.step import Step

VOCABULARY = 5


def next_token(adapter: AdapterKey | None, tokens: list[int]) -> int:
    """What the model says next: a function of the whole text and of the adapter."""
    return crc32(repr((adapter, tokens)).encode()) % VOCABULARY


def answer(adapter: AdapterKey | None, prompt: list[int], num_tokens: int) -> list[int]:
    """What a request says that runs alone."""
    tokens = list(prompt)
    for _ in range(num_tokens):
        tokens.append(next_token(adapter, tokens))
    return tokens[len(prompt) :]


def right_answer(sequence: Sequence) -> list[int]:
    """What a sequence should have said by its end."""
    prompt = sequence.token_ids[: sequence.num_prompt]
    return answer(sequence.adapter, prompt, sequence.max_tokens)


def weights(size_bytes: int = 1) -> AdapterWeights:
    return AdapterWeights(rank=1, pairs={}, size_bytes=size_bytes)


class Cache:
    """Holds in each place what the keys and values there were computed from."""

    def __init__(self, block_tokens: int) -> None:
        self.block_tokens = block_tokens
        self.slots: dict[int, AdapterKey] = {}
        self.places: dict[tuple[int, int], tuple[AdapterKey | None, tuple[int, ...]]] = {}

    def change(self, change: SlotChange) -> None:
        if change.key is None:
            self.slots.pop(change.slot, None)
        else:
            assert change.weights is not None
            self.slots[change.slot] = change.key

    def run(self, step: Step, sequences: list[Sequence]) -> None:
        """Compute a step, checking that everything before each piece is what it should be."""
        targets = [copy.target for copy in step.copies]
        assert len(set(targets)) == len(targets)
        assert not set(targets) & {copy.source for copy in step.copies}
        for copy in step.copies:
            for offset in range(self.block_tokens):
                found = self.places.pop((copy.source, offset), None)
                if found is not None:
                    self.places[copy.target, offset] = found
                    self.places[copy.source, offset] = found
        writers: Counter[int] = Counter()
        for piece, sequence in zip(step.pieces, sequences, strict=True):
            adapter = self.slots[piece.slot] if piece.slot is not None else None
            assert adapter == sequence.adapter
            end = piece.start + len(piece.token_ids)
            assert len(piece.blocks) == -(-end // self.block_tokens)
            text = tuple(sequence.token_ids[:end])
            assert text[piece.start :] == tuple(piece.token_ids) != ()
            for position in range(piece.start):
                found = self.places[
                    self._place(piece.blocks[position // self.block_tokens], position)
                ]
                assert found == (adapter, text[: position + 1])
            writers.update({piece.blocks[p // self.block_tokens] for p in range(piece.start, end)})
        assert all(count == 1 for count in writers.values())
        for piece, sequence in zip(step.pieces, sequences, strict=True):
            for position in range(piece.start, piece.start + len(piece.token_ids)):
                place = self._place(piece.blocks[position // self.block_tokens], position)
                text = tuple(sequence.token_ids[: position + 1])
                self.places[place] = (sequence.adapter, text)

    def _place(self, block: int, position: int) -> tuple[int, int]:
        return block, position % self.block_tokens


class Loop:
    """What the engine does with a scheduler, one step at a time."""

    def __init__(
        self,
        *,
        num_blocks: int = 64,
        block_tokens: int = 4,
        num_slots: int = 2,
        max_running: int = 4,
        max_step_tokens: int = 16,
        max_background_tokens: int = 16,
        max_waiting: int = 1000,
        host_bytes: int = 100,
        max_loading: int = 2,
        max_passes: int = 4,
        size_of: Callable[[AdapterKey], int] = lambda key: 1,
    ) -> None:
        config = SchedulerConfig(
            max_running=max_running,
            max_step_tokens=max_step_tokens,
            max_background_tokens=max_background_tokens,
            max_waiting=max_waiting,
            adapters=ResidencyConfig(
                host_bytes=host_bytes, max_loading=max_loading, max_passes=max_passes
            ),
        )
        self.config = config
        self.num_slots = num_slots
        self.scheduler = Scheduler(
            config,
            cache=CacheShape(num_blocks=num_blocks, block_tokens=block_tokens),
            num_slots=num_slots,
        )
        self.cache = Cache(block_tokens)
        self.capacity = num_blocks * block_tokens
        self.size_of = size_of
        self.alive: list[Sequence] = []
        self.answers: dict[Sequence, list[int]] = {}
        self.errors: dict[Sequence, AppError] = {}
        self.cancelled: set[Sequence] = set()
        self.loading: list[AdapterKey] = []
        self.loads: list[AdapterKey] = []
        self.num_steps = 0
        self._ids = 0

    def make(
        self,
        prompt: list[int],
        *,
        max_tokens: int = 3,
        adapter: AdapterKey | None = None,
        account: str = "a",
        weight: float = 1.0,
        is_background: bool = False,
        wants_prompt_logprobs: bool = False,
    ) -> Sequence:
        self._ids += 1
        return Sequence(
            id=self._ids,
            token_ids=list(prompt),
            max_tokens=max_tokens,
            adapter=adapter,
            account=account,
            weight=weight,
            is_background=is_background,
            wants_prompt_logprobs=wants_prompt_logprobs,
        )

    def add(self, *sequences: Sequence) -> None:
        self.scheduler.add_group(sequences)
        self.alive.extend(sequences)

    def ask(
        self,
        prompt: list[int],
        *,
        max_tokens: int = 3,
        adapter: AdapterKey | None = None,
        account: str = "a",
        weight: float = 1.0,
    ) -> Sequence:
        sequence = self.make(
            prompt, max_tokens=max_tokens, adapter=adapter, account=account, weight=weight
        )
        self.add(sequence)
        return sequence

    def plan(self) -> Plan | None:
        self.loading.extend(self.scheduler.take_loads())
        users = [seq for seq in self.alive if seq.slot is not None]
        plan = self.scheduler.plan()
        self.take_failures()
        pinned = {seq.slot: seq.adapter for seq in users if seq in self.alive}
        for change in plan.slot_changes if plan is not None else ():
            assert change.key == pinned.get(change.slot, change.key)
        return plan

    def carry_out(self, plan: Plan) -> None:
        """Compute a plan as far as the logits."""
        for change in plan.slot_changes:
            self.cache.change(change)
        sequences = [work.sequence for work in plan.work]
        assert len(set(sequences)) == len(sequences)
        self.cache.run(plan.step, sequences)
        self.num_steps += 1

    def take_tokens(self, plan: Plan) -> None:
        self.scheduler.computed(plan)
        for work in plan.work:
            sequence = work.sequence
            if work.is_last and sequence in self.alive:
                assert work.piece.num_logits >= 1
                self.scheduler.append(
                    sequence, next_token(sequence.adapter, list(sequence.token_ids))
                )
                if sequence.has_all_tokens:
                    self.finish(sequence)

    def step(self) -> Plan | None:
        plan = self.plan()
        if plan is not None:
            self.carry_out(plan)
            self.take_tokens(plan)
        return plan

    def run(self, max_steps: int = 10_000) -> None:
        """Work until every request has ended, answering every load."""
        for _ in range(max_steps):
            plan = self.step()
            if not self.alive:
                return
            assert plan is not None or self.loading, "the loop would sleep forever"
            while self.loading:
                self.load_one()
        raise AssertionError(f"{len(self.alive)} requests never ended")

    def load(self) -> None:
        """Finish every load that can begin."""
        self.loading.extend(self.scheduler.take_loads())
        while self.loading:
            self.load_one()

    def load_one(self) -> None:
        key = self.loading.pop(0)
        self.loads.append(key)
        self.scheduler.adapter_loaded(key, weights(self.size_of(key)))
        self.take_failures()

    def fail_load(self, key: AdapterKey) -> None:
        self.loading.remove(key)
        self.fail_adapter(key)

    def fail_adapter(self, key: AdapterKey) -> None:
        self.scheduler.adapter_failed(key, ModelUnavailableError(f"Adapter {key.id} is broken."))
        self.take_failures()

    def cancel(self, sequence: Sequence) -> None:
        self.scheduler.end(sequence)
        self.alive.remove(sequence)
        self.cancelled.add(sequence)

    def finish(self, sequence: Sequence) -> None:
        self.scheduler.end(sequence)
        self.alive.remove(sequence)
        self.answers[sequence] = sequence.token_ids[sequence.num_prompt :]

    def take_failures(self) -> None:
        for failure in self.scheduler.take_failures():
            self.alive.remove(failure.sequence)
            self.errors[failure.sequence] = failure.error

    def running(self) -> list[Sequence]:
        return [seq for seq in self.alive if seq.state is SequenceState.RUNNING]
