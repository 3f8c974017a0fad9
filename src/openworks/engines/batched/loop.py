"""The thread that computes: plans a step, runs it, chooses the tokens, and begins again."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openworks.core.clock import Clock
from openworks.core.errors import AppError, InternalError, ModelUnavailableError
from openworks.engines.batched.adapter_loader import AdapterLoader
from openworks.engines.batched.executor import Executor
from openworks.engines.batched.job import Job
from openworks.engines.batched.plan import Plan
from openworks.engines.batched.sampler import Sampler
from openworks.engines.batched.sampling import Draw
from openworks.engines.batched.scheduler import Scheduler
from openworks.engines.batched.sequence import AdapterKey, Sequence
from openworks.ports.adapters import Adapter
from openworks.ports.engines import AdapterPlace, EngineReport

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

_LOOK_S = 0.02
"""How often a loop that can only wait looks for callers that have left."""
_DESCRIBE_S = 0.1
"""How often the report is made anew while steps are taken."""
_MAX_FAILURES = 5
"""Steps that may fail in a row. A device that is lost fails all of them."""


class StepLoop:
    """Runs jobs together. What is not public happens on the thread of `run`."""

    def __init__(
        self,
        executor: Executor,
        scheduler: Scheduler,
        sampler: Sampler,
        loader: AdapterLoader,
        *,
        clock: Clock,
    ) -> None:
        self._executor = executor
        self._scheduler = scheduler
        self._sampler = sampler
        self._loader = loader
        self._clock = clock
        self._inbox: deque[Callable[[], None]] = deque()
        self._wakes = threading.Event()
        self._jobs: dict[Sequence, Job] = {}
        self._adapters: dict[AdapterKey, Adapter] = {}  # all that left something behind
        self._forgotten: set[AdapterKey] = set()
        self._num_failures = 0  # in a row
        self._totals = _Totals()
        self._described_s = 0.0
        self._report = EngineReport()
        self._describe()

    def submit(self, job: Job) -> None:
        """Run a job; it may be refused, which its `wait` tells."""
        adapter = job.adapter
        if adapter is not None and all(
            place.generation != adapter.generation for place in self._report.adapters
        ):
            self._loader.expect(adapter.folder)  # while the step under way is computed
        self._tell(lambda: self._admit(job))

    def forget(self, generation: str) -> None:
        """Let go of a deleted adapter when its last text has ended."""
        self._tell(lambda: self._forget(generation))

    def report(self) -> EngineReport:
        """How the engine was a moment ago."""
        return self._report

    def run(self) -> None:
        """Take steps until the process ends.

        Raises:
            Exception: What made too many steps in a row fail; those who waited have been told.
        """
        while True:
            try:
                self._turn()
            except Exception:
                # The boundary of the loop: what was running is lost, what comes next is not.
                log.exception("engine.step_failed")
                self._fail_all()
                self._num_failures += 1
                if self._num_failures >= _MAX_FAILURES:
                    raise

    def _tell(self, what: Callable[[], None]) -> None:
        self._inbox.append(what)
        self._wakes.set()

    def _turn(self) -> None:
        """Take one step, or wait until there is something to do."""
        self._take_in()
        self._drop_cancelled()
        self._load_adapters()
        self._take_in()  # what was read already
        plan = self._scheduler.plan()
        self._tell_failures()
        if plan is None:
            self._describe()
            self._wakes.wait(_LOOK_S if self._jobs else None)
            self._wakes.clear()
        elif self._change_slots(plan):
            self._step(plan)

    def _take_in(self) -> None:
        while self._inbox:
            self._inbox.popleft()()

    def _step(self, plan: Plan) -> None:
        for work in plan.work:
            job = self._jobs.get(work.sequence)
            is_prompt = work.piece.start + len(work.piece.token_ids) <= work.sequence.num_prompt
            if job is not None and is_prompt:
                with self._failing_alone(job):
                    job.read_prompt()
        logits = self._executor.run(plan.step) if plan.work else None
        self._scheduler.computed(plan)
        if logits is not None:
            self._totals.add(plan)
            self._write([work.sequence for work in plan.work if work.is_last], logits)
            self._num_failures = 0
        if self._clock.monotonic_s() - self._described_s > _DESCRIBE_S:
            self._describe()

    def _write(self, sequences: list[Sequence], logits: Tensor) -> None:
        """Choose a token for each row of logits, and hand it to its answer."""
        rows: list[int] = []
        draws: list[Draw] = []
        for row, sequence in enumerate(sequences):
            job = self._jobs.get(sequence)
            if job is None:
                continue  # another answer of its job has just failed, and it with it
            with self._failing_alone(job):
                draws.append(job.writer(sequence).draw())
                rows.append(row)
        if not rows:
            return
        if len(rows) < len(sequences):
            logits = logits[rows]
        for row, choice in zip(rows, self._sampler.choose(logits, draws), strict=True):
            sequence = sequences[row]
            job = self._jobs.get(sequence)
            if job is None:
                continue
            with self._failing_alone(job):
                if choice is None:
                    raise InternalError("The model's output was not usable: no token is possible.")
                self._scheduler.append(sequence, choice.token)
                if job.take(sequence, choice):
                    self._end(sequence)
                    job.close(sequence)

    @contextmanager
    def _failing_alone(self, job: Job) -> Iterator[None]:
        """Fail a job, and no other, by what is raised inside."""
        try:
            yield
        except AppError as error:
            self._fail(job, error)
        except Exception:
            # The boundary of one request, of which others in the same step know nothing.
            log.exception("engine.request_failed")
            self._fail(job, _broken("The engine failed on this request"))

    def _admit(self, job: Job) -> None:
        with self._failing_alone(job):
            sequences = job.sequences
            self._scheduler.add_group(sequences)
            self._jobs.update(dict.fromkeys(sequences, job))
            key = sequences[0].adapter
            if job.adapter is not None and key is not None:
                self._adapters[key] = job.adapter
                self._forgotten.discard(key)

    def _drop_cancelled(self) -> None:
        for job in {job for job in self._jobs.values() if job.is_cancelled}:
            self._fail(job, InternalError("The caller has left."))

    def _load_adapters(self) -> None:
        for key in self._scheduler.take_loads():
            self._loader.load(
                self._adapters[key].folder,
                lambda weights, key=key: self._tell(  # type: ignore[misc] # binds the loop's variable
                    lambda: self._scheduler.adapter_loaded(key, weights)
                ),
                lambda error, key=key: self._tell(  # type: ignore[misc] # as above
                    lambda: self._scheduler.adapter_failed(key, error)
                ),
            )

    def _change_slots(self, plan: Plan) -> bool:
        """Put adapters into their slots; False when one does not fit, and the plan is void."""
        for change in plan.slot_changes:
            if change.key is None or change.weights is None:
                self._executor.drop_adapter(change.slot)
                continue
            try:
                self._executor.put_adapter(change.slot, change.weights)
            except AppError as error:
                self._drop_unfit(change.key, error)
                return False
            except Exception:
                # The boundary of one adapter, which would be put there again and again.
                log.exception("engine.adapter_failed")
                reason = "The adapter cannot be put into memory; the log has the details."
                self._drop_unfit(change.key, ModelUnavailableError(reason))
                return False
        return True

    def _drop_unfit(self, key: AdapterKey, error: AppError) -> None:
        self._scheduler.adapter_failed(key, error)
        self._tell_failures()

    def _forget(self, generation: str) -> None:
        for key in [key for key in self._adapters if key.generation == generation]:
            self._scheduler.forget_adapter(key)
            self._forgotten.add(key)

    def _tell_failures(self) -> None:
        for failure in self._scheduler.take_failures():
            if (job := self._jobs.get(failure.sequence)) is not None:
                self._fail(job, failure.error)

    def _fail(self, job: Job, error: AppError) -> None:
        sequences = job.sequences
        job.fail(error)
        for sequence in sequences:
            if sequence in self._jobs:  # else it was never taken in
                self._end(sequence)

    def _fail_all(self) -> None:
        for job in set(self._jobs.values()):
            self._fail(job, _broken("The engine failed"))

    def _end(self, sequence: Sequence) -> None:
        del self._jobs[sequence]
        self._scheduler.end(sequence)
        self._totals.preemptions += sequence.num_preemptions

    def _describe(self) -> None:
        usage = self._scheduler.usage
        places = {place.key: place for place in self._scheduler.places()}
        waited_for = {sequence.adapter for sequence in self._jobs}
        self._adapters = {
            key: adapter
            for key, adapter in self._adapters.items()
            if key not in self._forgotten or key in places or key in waited_for
        }
        self._forgotten &= self._adapters.keys()
        self._report = EngineReport(
            running=usage.num_running,
            waiting=usage.num_waiting + usage.num_preempted,
            blocks_used=usage.num_used_blocks,
            blocks_cached=usage.num_cached_blocks,
            blocks_total=usage.num_blocks,
            steps=self._totals.steps,
            prompt_tokens=self._totals.prompt_tokens,
            cached_tokens=usage.num_hit_tokens,
            preemptions=self._totals.preemptions,
            adapters=tuple(
                AdapterPlace(
                    id=adapter.id,
                    name=adapter.name,
                    generation=adapter.generation,
                    tier="batch" if place.slot is not None else "memory",
                    size_bytes=place.size_bytes or adapter.size_bytes,
                    in_use=place.num_running,
                )
                for key, place in places.items()
                if (adapter := self._adapters.get(key)) is not None
                and (place.slot is not None or place.is_in_host)
            ),
            description=self._executor.description,
        )
        self._described_s = self._clock.monotonic_s()


def _broken(what: str) -> InternalError:
    return InternalError(f"{what}; its log has the details.")


@dataclass(slots=True)
class _Totals:
    """Counts since the start."""

    steps: int = 0
    prompt_tokens: int = 0
    preemptions: int = 0

    def add(self, plan: Plan) -> None:
        self.steps += 1
        for work in plan.work:
            before = work.sequence.num_prompt - work.piece.start
            self.prompt_tokens += max(0, min(before, len(work.piece.token_ids)))
