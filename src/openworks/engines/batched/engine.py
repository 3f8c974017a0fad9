"""The batched engine as its process runs it: requests become jobs of the step loop."""

from __future__ import annotations

import itertools
import json
import logging
import os
import threading
from pathlib import Path

from openworks.core.clock import SystemClock
from openworks.core.errors import InvalidRequestError, ModelUnavailableError
from openworks.core.ids import new_id
from openworks.core.json import JsonObject
from openworks.engines.base import Origin, Sink, Waiter
from openworks.engines.batched.adapter_loader import AdapterLoader
from openworks.engines.batched.executors import open_executor
from openworks.engines.batched.formats.choice import detect
from openworks.engines.batched.formats.plain import Plain
from openworks.engines.batched.grammar import GrammarCompiler
from openworks.engines.batched.job import Job
from openworks.engines.batched.loop import StepLoop
from openworks.engines.batched.prompts import Prompt, Prompter
from openworks.engines.batched.randomness import new_seed
from openworks.engines.batched.residency import ResidencyConfig
from openworks.engines.batched.sampler import Sampler
from openworks.engines.batched.sampling import default_rules
from openworks.engines.batched.scheduler import Scheduler, SchedulerConfig
from openworks.engines.batched.sequence import AdapterKey, Sequence
from openworks.engines.batched.template import load_template
from openworks.engines.batched.tokenizer import Tokenizer
from openworks.engines.sinks import AfterEcho
from openworks.ports.calls import Usage
from openworks.ports.catalog import Deployment
from openworks.ports.engines import EngineReport
from openworks.ports.text import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    EmbeddingResult,
    RerankRequest,
    RerankResult,
    Sampling,
    TextChunk,
)

_MAX_WAITING = 4096
"""More than the pool ever admits: its `engines.max_queue` is the bound that callers meet."""

log = logging.getLogger(__name__)


def load(deployment: Deployment, socket: Path) -> BatchedEngine:
    """Load a folder as the transformers library writes it; blocks until it is ready.

    Args:
        deployment: Its weights are the folder.
        socket: Not used: nothing here opens a port.

    Raises:
        ModelUnavailableError: The folder is not whole, or of a kind that nothing here runs.
    """
    folder = deployment.weights
    clock = SystemClock()
    tokenizer = Tokenizer.load(folder)
    template = load_template(folder, clock=clock)
    executor = open_executor(deployment)
    log.info("engine.executor", extra={"description": executor.description})
    prompter = Prompter(
        tokenizer=tokenizer,
        template=template,
        format_=Plain() if template is None else detect(template.source),
        grammars=GrammarCompiler(tokenizer),
        defaults=default_rules(_generation_config(folder)),
        context_tokens=executor.context_tokens,
        new_id=new_id,
        new_seed=new_seed,
    )
    config = SchedulerConfig(
        max_running=deployment.parallel,
        max_waiting=_MAX_WAITING,
        adapters=ResidencyConfig(host_bytes=deployment.adapter_memory_bytes),
    )
    loop = StepLoop(
        executor,
        Scheduler(config, cache=executor.cache, num_slots=executor.num_slots),
        Sampler(tokenizer.num_tokens, unused=tokenizer.unused_ids),
        AdapterLoader(executor.adapter_dtype),
        clock=clock,
    )
    return BatchedEngine(prompter, loop, context_tokens=executor.context_tokens)


class BatchedEngine:
    """One model with its loop. Implements `engines.base.Engine`."""

    def __init__(self, prompter: Prompter, loop: StepLoop, *, context_tokens: int) -> None:
        """Start the loop, which runs as long as the process."""
        self.context_tokens = context_tokens
        self._prompter = prompter
        self._loop = loop
        self._ids = itertools.count(1)
        threading.Thread(target=self._take_steps, name="steps", daemon=True).start()

    def chat(self, request: ChatRequest, origin: Origin, out: Sink) -> None:
        prompt = self._prompter.chat(request)
        self._write(prompt, request.sampling, request.n, origin, out)

    def count_tokens(self, request: ChatRequest) -> int:
        return len(self._prompter.chat_ids(request))

    def complete(self, request: CompletionRequest, origin: Origin, out: Sink) -> None:
        prompt = self._prompter.complete(request)
        if request.echo:
            out = AfterEcho(out, self._prompter.text_of(request), request.n)
        if request.sampling.max_tokens == 0:
            _write_nothing(prompt, request.n, out)
            return
        self._write(prompt, request.sampling, request.n, origin, out)

    def embed(self, request: EmbeddingRequest, waiter: Waiter) -> EmbeddingResult:
        raise _only_writes()

    def rerank(self, request: RerankRequest, waiter: Waiter) -> RerankResult:
        raise _only_writes()

    def forget(self, generation: str) -> None:
        self._loop.forget(generation)

    def report(self) -> EngineReport:
        return self._loop.report()

    def _take_steps(self) -> None:
        try:
            self._loop.run()
        finally:
            # Nobody would be answered any more; the server starts another process.
            os._exit(1)

    def _write(self, prompt: Prompt, sampling: Sampling, n: int, origin: Origin, out: Sink) -> None:
        adapter = origin.adapter
        writers = self._prompter.writers(prompt, sampling, n)
        job = Job(
            {
                Sequence(
                    id=next(self._ids),
                    token_ids=list(prompt.token_ids),
                    max_tokens=writer.max_tokens,
                    adapter=None if adapter is None else AdapterKey(adapter.id, adapter.generation),
                    account=origin.account,
                    is_background=origin.is_background,
                ): writer
                for writer in writers
            },
            out,
            adapter,
        )
        self._loop.submit(job)
        job.wait()


def _write_nothing(prompt: Prompt, n: int, out: Sink) -> None:
    """Answer a call for no tokens: there is nothing to compute."""
    usage = Usage(prompt_tokens=len(prompt.token_ids))
    for index in range(n):
        out.put(TextChunk(index=index, finish_reason="length", usage=usage))


def _only_writes() -> InvalidRequestError:
    return InvalidRequestError("This model is for text-generation.", param="model")


def _generation_config(folder: Path) -> JsonObject:
    path = folder / "generation_config.json"
    if not path.exists():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as exc:
        raise ModelUnavailableError(f"{path} is not readable: {exc}.") from exc
    return config if isinstance(config, dict) else {}
