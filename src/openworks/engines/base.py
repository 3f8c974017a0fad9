"""What an engine is inside its process, and how its module is found by name.

Engines are called on threads and hand over what they make by `Sink.put`: every chunk takes the
shortest way out of the process, without an event loop in between.
"""

from __future__ import annotations

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


class Cancellation(Protocol):
    """Whether somebody still waits for a request."""

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits for more; the engine then stops within one step."""
        ...


class Sink(Cancellation, Protocol):
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

    def embed(self, request: EmbeddingRequest, out: Cancellation) -> EmbeddingResult:
        """As `ports.text.Embedder.embed`; when cancelled, its result is of no interest."""
        ...

    def rerank(self, request: RerankRequest, out: Cancellation) -> RerankResult:
        """As `ports.text.Reranker.rerank`; when cancelled, its result is of no interest."""
        ...


class EngineFactory(Protocol):
    """Loads weights; blocks until they are ready."""

    def __call__(self, deployment: Deployment) -> Engine:
        """Load a deployment.

        Raises:
            AppError: The weights cannot be loaded; the message says why.
        """
        ...
