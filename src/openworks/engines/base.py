"""What an engine is inside its process, and how its module is found by name.

Engines are called on threads and hand over what they make by `Sink.put`: every chunk takes the
shortest way out of the process, without an event loop in between.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from openworks.ports.catalog import Deployment
from openworks.ports.text import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    EmbeddingResult,
    RerankRequest,
    RerankResult,
    TextChunk,
)

ENGINE_FACTORIES = {"llamacpp": "openworks.engines.llamacpp.engine:load"}
"""Engine name → `module:function`; the module is imported in the engine's process alone."""


class Waiter(Protocol):
    """Who waits for a request."""

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits any more; the engine then stops within one step."""
        ...

    def still_working(self) -> None:
        """Say that the work goes on: an engine that is silent for long counts as hung."""
        ...


class Sink(Waiter, Protocol):
    """Where one request's chunks go."""

    def put(self, chunk: TextChunk) -> None:
        """Hand over a chunk; may be called on any thread."""
        ...


class Engine(Protocol):
    """Loaded weights. Methods block, and are called on a thread for each request.

    A method whose task is not the model's raises `InvalidRequestError`; the other errors are those
    of the port that it serves.
    """

    context_tokens: int

    def chat(self, request: ChatRequest, out: Sink) -> None:
        """As `ports.text.ChatModel.stream`; returns when the answers are complete."""
        ...

    def complete(self, request: CompletionRequest, out: Sink) -> None:
        """As `ports.text.CompletionModel.stream`; returns when the answers are complete."""
        ...

    def embed(self, request: EmbeddingRequest, waiter: Waiter) -> EmbeddingResult:
        """As `ports.text.Embedder.embed`; when cancelled, its result is of no interest."""
        ...

    def rerank(self, request: RerankRequest, waiter: Waiter) -> RerankResult:
        """As `ports.text.Reranker.rerank`; when cancelled, its result is of no interest."""
        ...


class EngineFactory(Protocol):
    """Loads weights; blocks until they are ready."""

    def __call__(self, deployment: Deployment, socket: Path) -> Engine:
        """Load a deployment.

        Args:
            deployment: What to load.
            socket: A path in a private folder, free for a socket of the engine's own.

        Raises:
            AppError: The weights cannot be loaded; the message says why.
        """
        ...
