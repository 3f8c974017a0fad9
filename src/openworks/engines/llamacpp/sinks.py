"""Sinks for what llama.cpp does otherwise than its callers expect."""

from __future__ import annotations

from dataclasses import replace

from openworks.engines.base import Sink
from openworks.engines.sinks import Through
from openworks.ports.calls import Usage
from openworks.ports.text import TextChunk


class LaterRound(Through):
    """Passes chunks on with the index and the usage that they have among all rounds."""

    def __init__(self, out: Sink) -> None:
        super().__init__(out)
        self._at = 0
        self._before = Usage()
        self._now = Usage()

    def put(self, chunk: TextChunk) -> None:
        self._now = chunk.usage or self._now
        self.out.put(replace(chunk, index=chunk.index + self._at, usage=self._sum()))

    def next_round(self, at_once: int) -> None:
        """Let the next chunks follow those that came."""
        self._before = self._sum()
        self._at += at_once
        self._now = Usage()

    def _sum(self) -> Usage:
        """Every round reads the same prompt: it counts once, as the first round found it."""
        prompt = self._before if self._at else self._now
        return Usage(
            prompt_tokens=prompt.prompt_tokens,
            cached_tokens=prompt.cached_tokens,
            completion_tokens=self._before.completion_tokens + self._now.completion_tokens,
            reasoning_tokens=self._before.reasoning_tokens + self._now.reasoning_tokens,
        )


class PromptAlone(Through):
    """Passes on a call for no tokens without its answer: llama.cpp makes one token at least."""

    def put(self, chunk: TextChunk) -> None:
        self.out.put(
            replace(
                chunk,
                content="",
                logprobs=(),
                finish_reason=chunk.finish_reason and "length",
                usage=chunk.usage and replace(chunk.usage, completion_tokens=0),
            )
        )


class UntilCall(Through):
    """Holds a first try back until it calls a tool: if it never does, nobody has heard of it."""

    def __init__(self, out: Sink) -> None:
        super().__init__(out)
        self._held: list[TextChunk] = []
        self._calls = False

    def put(self, chunk: TextChunk) -> None:
        self._calls = self._calls or bool(chunk.tool_calls)
        says_something = bool(chunk.content or chunk.reasoning or chunk.finish_reason)
        if says_something and not self._calls:
            self._held.append(chunk)
            return
        if self._calls:
            for held in self._held:
                self.out.put(held)
            self._held.clear()
        self.out.put(chunk)
