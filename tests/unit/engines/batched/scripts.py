"""A model that says what a script says, and a request with everything that it is made of."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from openworks.core.errors import AppError, ModelUnavailableError
from openworks.engines.batched.adapter_loader import AdapterLoader, Failed, Loaded
from openworks.engines.batched.detokenizer import Detokenizer
from openworks.engines.batched.executor import AdapterWeights, CacheShape
from openworks.engines.batched.job import Job
from openworks.engines.batched.loop import StepLoop
from openworks.engines.batched.residency import ResidencyConfig
from openworks.engines.batched.sampler import Sampler
from openworks.engines.batched.sampling import SamplingRules
from openworks.engines.batched.scheduler import Scheduler, SchedulerConfig
from openworks.engines.batched.sequence import AdapterKey
from openworks.engines.batched.sequence import Sequence as Text
from openworks.engines.batched.step import Step
from openworks.engines.batched.tokenizer import Tokenizer
from openworks.engines.batched.writer import AnswerPlan, AnswerWriter, Constraints
from openworks.ports.adapters import Adapter
from openworks.ports.engines import EngineReport
from openworks.ports.text import TextChunk
from tests.fakes import CountingIds, FakeClock
from tests.unit.engines.batched.loop import weights
from tests.unit.engines.batched.vocabularies import TINY_CHAT

TINY = Tokenizer.load(TINY_CHAT)
EOS = TINY.eos_ids[-1]
LONG_S = 20.0
"""After that a thread counts as hanging."""


def tokens(text: str) -> list[int]:
    return TINY.encode(text, add_bos=False)


class Script:
    """Says, after each prompt, the text that belongs to it, and then that it is done.

    It finds the text so far in its cache, where the scheduler has it put. Implements
    `engines.batched.executor.Executor`.
    """

    vocab_size = TINY.num_tokens
    context_tokens = 64
    description = "script"

    def __init__(
        self,
        answers: Mapping[str, str] | None = None,
        *,
        num_blocks: int = 64,
        block_tokens: int = 4,
        num_slots: int = 2,
    ) -> None:
        self.cache = CacheShape(num_blocks=num_blocks, block_tokens=block_tokens)
        self.num_slots = num_slots
        self.adapter_dtype = torch.float32
        self.before_step: Callable[[Step], None] = lambda step: None
        self.before_put: Callable[[int], None] = lambda slot: None
        self.slots: dict[int, AdapterWeights] = {}
        self.num_steps = 0
        self._answers = {
            tuple(tokens(prompt)): [*tokens(answer), EOS]
            for prompt, answer in (answers or {}).items()
        }
        self._places: dict[tuple[int, int], int] = {}

    def run(self, step: Step) -> Tensor:
        self.before_step(step)
        self.num_steps += 1
        size = self.cache.block_tokens
        for copy in step.copies:
            for offset in range(size):
                self._places[copy.target, offset] = self._places.get((copy.source, offset), 0)
        rows = []
        for piece in step.pieces:
            for at, token in enumerate(piece.token_ids, piece.start):
                self._places[piece.blocks[at // size], at % size] = token
            end = piece.start + len(piece.token_ids)
            text = [self._places[piece.blocks[at // size], at % size] for at in range(end)]
            rows += [self.logits(text)] * piece.num_logits
        return torch.stack(rows) if rows else torch.zeros(0, self.vocab_size)

    def put_adapter(self, slot: int, weights: AdapterWeights) -> None:
        self.before_put(slot)
        self.slots[slot] = weights

    def drop_adapter(self, slot: int) -> None:
        self.slots.pop(slot, None)

    def logits(self, text: Sequence[int]) -> Tensor:
        """What comes after a text."""
        logits = torch.zeros(self.vocab_size)
        for prompt, answer in self._answers.items():
            if tuple(text[: len(prompt)]) == prompt:
                logits[answer[min(len(text) - len(prompt), len(answer) - 1)]] = 50.0
        return logits


class Heard:
    """Keeps what it is given. Implements `engines.base.Sink`."""

    def __init__(self) -> None:
        self.is_cancelled = False
        self.chunks: list[TextChunk] = []

    def still_working(self) -> None:
        raise AssertionError("nobody asked")

    def put(self, chunk: TextChunk) -> None:
        self.chunks.append(chunk)

    @property
    def last(self) -> TextChunk:
        return self.chunks[-1]

    def text(self, index: int = 0) -> str:
        return "".join(chunk.content for chunk in self.chunks if chunk.index == index)


class HeldLoader(AdapterLoader):
    """Reads nothing until it is told to; then at once."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Semaphore(0)
        self.waiting: list[tuple[Path, Loaded, Failed]] = []
        self.loads: list[Path] = []
        self.answers_at_once: Sequence[bool] = ()
        """Where there are some: whether each load ends well, over and over."""

    def expect(self, folder: Path) -> None:
        """Nothing is read ahead."""

    def load(self, folder: Path, loaded: Loaded, failed: Failed) -> None:
        self.loads.append(folder)
        if self.answers_at_once:
            if self.answers_at_once[len(self.loads) % len(self.answers_at_once)]:
                loaded(weights(1))
            else:
                failed(ModelUnavailableError("broken"))
            return
        self.waiting.append((folder, loaded, failed))
        self.asked.release()

    def finish(self, size_bytes: int = 1) -> None:
        """Wait for a load to be asked for, and end it well."""
        assert self.asked.acquire(timeout=LONG_S)
        self.waiting.pop(0)[1](weights(size_bytes))

    def fail(self, error: AppError) -> None:
        """Wait for a load to be asked for, and end it badly."""
        assert self.asked.acquire(timeout=LONG_S)
        self.waiting.pop(0)[2](error)


def adapter(name: str, *, generation: str = "") -> Adapter:
    return Adapter(
        id=f"id-{name}",
        name=name,
        generation=generation or f"generation-{name}",
        folder=Path(name),
        rank=1,
        size_bytes=1,
    )


def writer(
    *,
    max_tokens: int = 20,
    stops: Sequence[str] = (),
    top_logprobs: int | None = None,
    index: int = 0,
    constraints: Constraints | None = None,
) -> AnswerWriter:
    """The writer of a greedy answer that is nothing but content."""
    return AnswerWriter(
        AnswerPlan(
            index=index,
            rules=SamplingRules(temperature=0.0, top_logprobs=top_logprobs),
            seed=1,
            max_tokens=max_tokens,
            stops=stops,
            must_call=False,
        ),
        tokenizer=TINY,
        detokenizer=Detokenizer(TINY, continues=True),
        parser=None,
        constraints=constraints or Constraints(),
        counts=None,
        new_id=CountingIds(),
    )


_IDS = count(1)


class Asked:
    """A request that is waited for on a thread of its own."""

    def __init__(
        self,
        prompt: str,
        *writers: AnswerWriter,
        out: Heard | None = None,
        adapter: Adapter | None = None,
        max_tokens: int = 20,
    ) -> None:
        self.out = out if out is not None else Heard()
        self.error: AppError | None = None
        key = None if adapter is None else AdapterKey(adapter.id, adapter.generation)
        self.sequences = {
            Text(
                id=next(_IDS), token_ids=tokens(prompt), max_tokens=each.max_tokens, adapter=key
            ): each
            for each in writers or (writer(max_tokens=max_tokens),)
        }
        self.job = Job(self.sequences, self.out, adapter)
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def ended(self) -> Heard:
        """Wait for the end, good or bad."""
        self._thread.join(LONG_S)
        assert not self._thread.is_alive(), "it waits for ever"
        return self.out

    def _wait(self) -> None:
        try:
            self.job.wait()
        except AppError as error:
            self.error = error


class Engine:
    """A loop on its thread, over a script."""

    def __init__(
        self,
        executor: Script,
        *,
        max_running: int = 8,
        max_waiting: int = 100,
        host_bytes: int = 100,
    ) -> None:
        self.executor = executor
        self.loader = HeldLoader()
        self.error: BaseException | None = None
        config = SchedulerConfig(
            max_running=max_running,
            max_waiting=max_waiting,
            adapters=ResidencyConfig(host_bytes=host_bytes),
        )
        self.loop = StepLoop(
            executor,
            Scheduler(config, cache=executor.cache, num_slots=executor.num_slots),
            Sampler(TINY.num_tokens),
            self.loader,
            clock=FakeClock(),
        )
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def ask(self, *asked: Asked) -> None:
        for each in asked:
            self.loop.submit(each.job)

    def answer(self, *asked: Asked) -> None:
        """Run requests to their ends."""
        self.ask(*asked)
        for each in asked:
            each.ended()

    def until(self, is_so: Callable[[EngineReport], bool]) -> EngineReport:
        """Return the first report on all steps of which something holds; it comes after answers."""
        for _ in range(int(LONG_S * 1000)):
            report = self.loop.report()
            if report.steps == self.executor.num_steps and is_so(report):
                return report
            self.thread.join(0.001)
        raise AssertionError(f"it never was so: {report}")

    def _run(self) -> None:
        try:
            self.loop.run()
        except RuntimeError as error:
            self.error = error
