"""Sinks around a sink: what happens to chunks between an engine and the server."""

from __future__ import annotations

from openworks.engines.base import Sink
from openworks.ports.text import TextChunk


class Through:
    """Passes everything on; the base of the others."""

    def __init__(self, out: Sink) -> None:
        self.out = out

    @property
    def is_cancelled(self) -> bool:
        return self.out.is_cancelled

    def still_working(self) -> None:
        self.out.still_working()

    def put(self, chunk: TextChunk) -> None:
        self.out.put(chunk)


class AfterEcho(Through):
    """Puts the prompt before each answer, once the engine has taken the request."""

    def __init__(self, out: Sink, prompt: str, n: int) -> None:
        super().__init__(out)
        self._prompt = prompt
        self._waiting = n

    def put(self, chunk: TextChunk) -> None:
        for index in range(self._waiting):
            self.out.put(TextChunk(index=index, content=self._prompt))
        self._waiting = 0
        self.out.put(chunk)
