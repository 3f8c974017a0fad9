"""One request in the engine: its answers, its counts, and who waits for it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace

from openworks.core.errors import AppError
from openworks.engines.base import Sink
from openworks.engines.batched.sampling import Choice
from openworks.engines.batched.sequence import Sequence
from openworks.engines.batched.writer import AnswerWriter
from openworks.ports.adapters import Adapter
from openworks.ports.calls import Usage
from openworks.ports.text import TextChunk


class Job:
    """A request between the thread that waits for it and the thread that computes."""

    def __init__(
        self, writers: Mapping[Sequence, AnswerWriter], out: Sink, adapter: Adapter | None
    ) -> None:
        """Begin a request.

        Args:
            writers: A sequence for each of its answers, which share the prompt.
            out: Takes the chunks.
            adapter: Where the sequences' adapter lies.
        """
        self.adapter = adapter
        self._out = out
        self._writers = dict(writers)
        self._open = dict(writers)
        self._error: AppError | None = None
        self._ended = threading.Event()
        self._told_prompt = False

    @property
    def sequences(self) -> list[Sequence]:
        """The answers that are not complete."""
        return list(self._open)

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits any more."""
        return self._out.is_cancelled

    def writer(self, sequence: Sequence) -> AnswerWriter:
        """The writer of an answer."""
        return self._writers[sequence]

    def read_prompt(self) -> None:
        """Say once that the prompt is being read: a call that is cut off has been counted."""
        if not self._told_prompt:
            self._told_prompt = True
            self._put(TextChunk(usage=self._usage()))

    def take(self, sequence: Sequence, choice: Choice) -> bool:
        """Write a token down; return whether that ended the answer.

        Raises:
            AppError: The answer cannot go on; the caller fails the job.
        """
        writer = self._writers[sequence]
        chunk = writer.take(choice)
        if chunk is not None:
            self._put(replace(chunk, usage=self._usage()))
        return writer.finish_reason is not None

    def close(self, sequence: Sequence) -> None:
        """Count an answer as over; with the last one, so is the request."""
        del self._open[sequence]
        if not self._open:
            self._ended.set()

    def fail(self, error: AppError) -> None:
        """End the request with an error."""
        self._error = error
        self._open.clear()
        self._ended.set()

    def wait(self) -> None:
        """Block until the request is over.

        Raises:
            AppError: It failed.
        """
        self._ended.wait()
        if self._error is not None:
            raise self._error

    def _put(self, chunk: TextChunk) -> None:
        if not self.is_cancelled:
            self._out.put(chunk)

    def _usage(self) -> Usage:
        first = next(iter(self._writers))
        writers = self._writers.values()
        return Usage(
            prompt_tokens=first.num_prompt,
            cached_tokens=min(first.num_cached_tokens, first.num_prompt),
            completion_tokens=sum(writer.num_tokens for writer in writers),
            reasoning_tokens=sum(writer.num_reasoning_tokens for writer in writers),
        )
