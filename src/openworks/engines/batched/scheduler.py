"""What is computed in each step, and for whom: admission, chunked prompts, preemption.

One thread calls it, in this order:

    scheduler.add(sequence)                      # or add_group: the n answers to one prompt
    for key in scheduler.take_loads():           # read by somebody else, who is answered by
        ...                                      # adapter_loaded(key, weights) or adapter_failed
    plan = scheduler.plan()
    for change in plan.slot_changes:             # then Executor.put_adapter or drop_adapter
        ...
    logits = executor.run(plan.step)             # unless the plan has no work
    scheduler.computed(plan)
    for work in plan.work:                       # rows of logits: work.piece.num_logits each
        if work.is_last:
            scheduler.append(work.sequence, token)
    scheduler.end(sequence)                      # answered, or cancelled at any time
    for failure in scheduler.take_failures():    # these have ended already
        ...

A plan that could not be carried out may be dropped: the next one holds everything that it held,
less what has ended meanwhile.

Every running sequence gets its token in every step; what the step has left goes to prompts, in
the order of `FairQueue`. Sequences that have run once are never overtaken: when blocks run out,
the last admitted gives its own to the older ones, and is the first to get some again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from openworks.core.errors import AppError, ContextLengthExceededError, InvalidRequestError
from openworks.engines.batched.blocks import BlockPool
from openworks.engines.batched.executor import AdapterWeights, CacheShape
from openworks.engines.batched.fair_queue import FairQueue
from openworks.engines.batched.plan import Failure, Plan, Usage, Work
from openworks.engines.batched.residency import (
    AdapterPlace,
    Residency,
    ResidencyConfig,
)
from openworks.engines.batched.sequence import AdapterKey, Sequence, SequenceState
from openworks.engines.batched.step import Piece, Step
from openworks.engines.batched.tables import BlockTables

_RUNNING = SequenceState.RUNNING


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """How much the batched engine does at once."""

    max_running: Annotated[int, Field(gt=0)] = 32
    """Answers that are generated together."""
    max_step_tokens: Annotated[int, Field(gt=0)] = 512
    """Tokens that one step computes: one of every running answer, the rest of prompts, which get
    one in any case. Lower makes running answers smoother, higher reads prompts faster."""
    max_background_tokens: Annotated[int, Field(gt=0)] = 64
    """Tokens in a step of prompts that nobody waits for: who comes waits for the step to end."""
    max_waiting: Annotated[int, Field(gt=0)] = 256
    """Requests that may wait; more get a 429."""
    adapters: ResidencyConfig = ResidencyConfig()
    """Adapters in memory."""


class Scheduler:
    """Every sequence of one executor, from `add` to its end."""

    def __init__(self, config: SchedulerConfig, *, cache: CacheShape, num_slots: int) -> None:
        self._config = config
        self._tables = BlockTables(cache)
        self._pool = self._tables.pool
        self._adapters = Residency(config.adapters, num_slots=num_slots)
        self._queue = FairQueue(config.max_waiting)
        self._running: list[Sequence] = []  # as admitted
        self._preempted: deque[Sequence] = deque()  # as admitted, all after those that run
        self._num_held = 0
        self._failures: list[Failure] = []
        self._short: tuple[Sequence, int] | None = None

    @property
    def usage(self) -> Usage:
        return Usage(
            num_running=len(self._running),
            num_waiting=len(self._queue) + self._num_held,
            num_preempted=len(self._preempted),
            num_blocks=self._pool.num_blocks,
            num_used_blocks=self._pool.num_used,
            num_cached_blocks=self._pool.num_cached,
            num_hit_tokens=self._pool.num_hit_tokens,
            host_bytes=self._adapters.host_bytes,
        )

    def places(self) -> list[AdapterPlace]:
        """Which adapters are where."""
        return self._adapters.places()

    def add(self, sequence: Sequence) -> None:
        """Take in a request with one answer; see `add_group`."""
        self.add_group([sequence])

    def add_group(self, sequences: SequenceOf[Sequence]) -> None:
        """Take in the answers to one prompt, which is computed once.

        Args:
            sequences: New ones, alike but for their ids.

        Raises:
            EngineOverloadedError: Too many wait; nothing was taken in.
            ContextLengthExceededError: The prompt is longer than the whole cache.
            InvalidRequestError: It names an adapter, and the executor has no slots.
        """
        first = sequences[0]
        self._tables.check(len(first.token_ids))
        if first.adapter is not None and not self._adapters.num_slots:
            raise InvalidRequestError(
                f"This model takes no adapters, got {first.adapter.id!r}.",
                code="adapters_not_supported",
            )
        self._queue.push(first)
        siblings = list(sequences) if len(sequences) > 1 else []
        for sequence in sequences:
            if sequence.adapter is not None:
                self._adapters.want(sequence.adapter)
            sequence.siblings = siblings
            if sequence is not first:
                sequence.arrival = first.arrival
                sequence.is_held = True
                self._num_held += 1

    def end(self, sequence: Sequence) -> None:
        """Let go of a sequence that is complete or cancelled; nothing when it has ended already.

        What it held is free from the next plan on. Its piece may still be in the current one.
        """
        was_held = sequence.is_held
        match sequence.state:
            case SequenceState.ENDED:
                return
            case SequenceState.WAITING:
                self._leave_queue(sequence)
            case SequenceState.RUNNING:
                self._running.remove(sequence)
                self._tables.close(sequence)
            case SequenceState.PREEMPTED:
                self._preempted.remove(sequence)
        if sequence.slot is not None and sequence.adapter is not None:
            self._adapters.unpin(sequence.adapter)
            sequence.slot = None
        sequence.state = SequenceState.ENDED
        if sequence.siblings:
            sequence.siblings.remove(sequence)
            heir = next((each for each in sequence.siblings if each.is_held), None)
            if heir is not None and not was_held:
                self._enqueue(heir)

    def take_failures(self) -> list[Failure]:
        """The sequences that ended by an error since the last call."""
        failures, self._failures = self._failures, []
        return failures

    def take_loads(self) -> list[AdapterKey]:
        """The adapters to be read now; each is answered exactly once."""
        return self._adapters.take_loads()

    def adapter_loaded(self, key: AdapterKey, weights: AdapterWeights) -> None:
        """Take in what was read for `take_loads`."""
        try:
            self._adapters.loaded(key, weights)
        except InvalidRequestError as error:
            self._fail_users(key, error)

    def adapter_failed(self, key: AdapterKey, error: AppError) -> None:
        """Fail whoever waits for an adapter that cannot be read, or be put into its slot.

        A plan that names the slot must be dropped. The next request reads the adapter again.
        """
        self._fail_users(key, error)
        self._adapters.failed(key)

    def forget_adapter(self, key: AdapterKey) -> None:
        """Drop a deleted adapter from memory, once the sequences that it has now have ended."""
        self._adapters.forget(key)

    def plan(self) -> Plan | None:
        """Decide what comes next; None when there is nothing to do until something is called."""
        for key in self._adapters.take_departed():
            self._pool.forget(key)
        work: list[Work] = []
        self._plan_tokens(work)
        for key in self._adapters.take_retries():
            self._queue.recall(key)
        self._plan_prompts(work)
        changes = self._adapters.slot_changes()
        if not work and not changes:
            if not len(self._queue) and not self._running:
                self._queue.forget_service()
            return None
        copies = [each.sequence.pending_copy for each in work]
        return Plan(
            work,
            Step([each.piece for each in work], [copy for copy in copies if copy is not None]),
            changes,
        )

    def computed(self, plan: Plan) -> None:
        """Note that a plan was carried out; what is computed can be shared from now on."""
        self._adapters.slots_changed(plan.slot_changes)
        for work in plan.work:
            sequence = work.sequence
            if sequence.state is not _RUNNING:
                continue
            end = work.piece.start + len(work.piece.token_ids)
            self._tables.advance(sequence, end)
            if sequence.needs_prompt_logits:
                given = min(end, sequence.num_prompt)
                sequence.num_prompt_logits = max(given, sequence.num_prompt_logits)
            if sequence.siblings and end >= sequence.num_prompt:
                for sibling in reversed(sequence.siblings):
                    if sibling.is_held:
                        self._enqueue(sibling)

    def append(self, sequence: Sequence, token_id: int) -> None:
        """Add a generated token; nothing when the sequence has ended meanwhile.

        Several may be added at once, as a grammar that leaves no choice does: all but the last are
        then read like a prompt.
        """
        if sequence.state is not SequenceState.ENDED:
            sequence.token_ids.append(token_id)

    def _plan_tokens(self, work: list[Work]) -> None:
        """Compute the last token of every running sequence whose earlier ones are computed."""
        block_tokens = self._pool.block_tokens
        for sequence in tuple(self._running):
            token_ids = sequence.token_ids
            end = len(token_ids)
            if sequence.state is not _RUNNING:
                continue
            if end > len(sequence.blocks) * block_tokens and not self._grow(sequence):
                continue
            if end - sequence.num_computed != 1:
                continue
            if end > sequence.num_charged:
                self._queue.charge(sequence, end - sequence.num_charged)
                sequence.num_charged = end
            piece = Piece((token_ids[-1],), end - 1, sequence.blocks, sequence.slot, 1)
            work.append(Work(sequence, piece, is_last=True))

    def _plan_prompts(self, work: list[Work]) -> None:
        """Give prompts what the step has left, in fair order, whether they have begun or not."""
        budget = max(1, self._config.max_step_tokens - len(work))
        background = self._config.max_background_tokens
        begun = [each for each in self._running if len(each.token_ids) - each.num_computed > 1]
        begun += self._resume()
        while budget:
            sequence = self._next_prompt(begun)
            if sequence is None:
                break
            room = min(budget, background) if sequence.is_background else budget
            if not room:
                continue  # it runs now, and is read in the next step
            each = _chunk(sequence, room, self._pool)
            budget -= len(each.piece.token_ids)
            background -= len(each.piece.token_ids) * sequence.is_background
            end = each.piece.start + len(each.piece.token_ids)
            if end > sequence.num_charged:
                self._queue.charge(sequence, end - sequence.num_charged)
                sequence.num_charged = end
            work.append(each)

    def _resume(self) -> list[Sequence]:
        """Let preempted sequences run again, the oldest first."""
        resumed: list[Sequence] = []
        while self._preempted and len(self._running) < self._config.max_running:
            if not self._open(self._preempted[0]):
                break
            resumed.append(self._preempted.popleft())
            self._run(resumed[-1])
        return resumed

    def _next_prompt(self, begun: list[Sequence]) -> Sequence | None:
        rank = self._queue.rank
        first = min(begun, key=rank, default=None)
        waiting = self._next_waiting()
        is_next = waiting is not None and (first is None or rank(waiting) < rank(first))
        if waiting is not None and is_next and self._admit(waiting):
            return waiting
        if first is not None:
            begun.remove(first)
        return first

    def _next_waiting(self) -> Sequence | None:
        """The first in the queue whose adapter can have a slot; others are passed over."""
        if self._preempted or len(self._running) >= self._config.max_running:
            return None
        while (head := self._queue.head()) is not None:
            if head.adapter is None or self._adapters.can_pin(head.adapter):
                return head
            self._queue.set_aside(head)
        return None

    def _admit(self, sequence: Sequence) -> bool:
        """Let the first in the queue run, unless it has to wait for blocks; then all wait."""
        if self._short is not None:
            waiting, num_free = self._short
            if waiting is sequence and self._pool.num_free <= num_free:
                return False
        if not self._open(sequence):
            self._short = (sequence, self._pool.num_free)
            return False
        self._short = None
        if sequence.adapter is not None:
            sequence.slot = self._adapters.pin(sequence.adapter)
        sequence.num_cached_tokens = sequence.num_computed
        sequence.num_charged = sequence.num_computed
        self._leave_queue(sequence)
        self._run(sequence)
        return True

    def _open(self, sequence: Sequence) -> bool:
        """Hold blocks, leaving one for each running sequence that may need another."""
        spare = sum(map(self._tables.may_grow, self._running))
        return self._tables.open(sequence, spare=spare)

    def _grow(self, sequence: Sequence) -> bool:
        """Take blocks for new tokens; those admitted last give theirs when none is free.

        Returns:
            False when the sequence itself had to give way, or has grown beyond the whole cache.
        """
        try:
            self._tables.check(len(sequence.token_ids))
        except ContextLengthExceededError as error:
            self._fail(sequence, error)
            return False
        while not self._tables.grow(sequence):
            last = self._running.pop()
            self._tables.close(last)
            last.state = SequenceState.PREEMPTED
            last.num_preemptions += 1
            self._preempted.appendleft(last)
            if last is sequence:
                return False
        return True

    def _run(self, sequence: Sequence) -> None:
        sequence.state = _RUNNING
        self._running.append(sequence)

    def _enqueue(self, sequence: Sequence) -> None:
        """Put a held sequence where the first of its siblings stood."""
        sequence.is_held = False
        self._num_held -= 1
        self._queue.push_front(sequence)

    def _leave_queue(self, sequence: Sequence) -> None:
        if sequence.is_held:
            sequence.is_held = False
            self._num_held -= 1
        else:
            self._queue.remove(sequence)
        if sequence.adapter is not None:
            self._adapters.unwant(sequence.adapter)

    def _fail_users(self, key: AdapterKey, error: AppError) -> None:
        started = [each for each in (*self._running, *self._preempted) if each.adapter == key]
        for sequence in started + self._queue.waiting_for(key):
            for sibling in tuple(sequence.siblings) or (sequence,):
                self._fail(sibling, error)

    def _fail(self, sequence: Sequence, error: AppError) -> None:
        if sequence.state is not SequenceState.ENDED:
            self.end(sequence)
            self._failures.append(Failure(sequence, error))


def _chunk(sequence: Sequence, budget: int, pool: BlockPool) -> Work:
    """The next part of a prompt, of at most `budget` tokens."""
    start = sequence.num_computed
    end = min(start + budget, len(sequence.token_ids))
    is_last = end == len(sequence.token_ids)
    num_logits = int(is_last)
    if sequence.needs_prompt_logits:
        num_logits = max(0, end - max(start, sequence.num_prompt_logits))
    blocks = sequence.blocks[: pool.blocks_for(end)]
    piece = Piece(sequence.token_ids[start:end], start, blocks, sequence.slot, num_logits)
    return Work(sequence, piece, is_last)
