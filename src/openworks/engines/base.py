"""What an engine is inside its process, and how its module is found by name.

Engines are called on threads and hand over what they make by `Sink.put`: every chunk takes the
shortest way out of the process, without an event loop in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from openworks.core.ids import AccountId
from openworks.ports.adapters import Adapter
from openworks.ports.catalog import Deployment
from openworks.ports.engines import EngineReport
from openworks.ports.text import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    EmbeddingResult,
    RerankRequest,
    RerankResult,
    TextChunk,
)

ENGINE_FACTORIES = {
    "batched": "openworks.engines.batched.engine:load",
    "llamacpp": "openworks.engines.llamacpp.engine:load",
}
"""Engine name → `module:function`; the module is imported in the engine's process alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """For whom a text is written, and with which adapter."""

    account: AccountId
    adapter: Adapter | None = None
    is_background: bool = False
    """Whether nobody waits for it: it is to be stopped soon when somebody else comes."""


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

    def chat(self, request: ChatRequest, origin: Origin, out: Sink) -> None:
        """As `ports.text.ChatModel.stream`; returns when the answers are complete."""
        ...

    def count_tokens(self, request: ChatRequest) -> int:
        """As `ports.text.TokenCounter.count_tokens`."""
        ...

    def complete(self, request: CompletionRequest, origin: Origin, out: Sink) -> None:
        """As `ports.text.CompletionModel.stream`; returns when the answers are complete."""
        ...

    def embed(self, request: EmbeddingRequest, waiter: Waiter) -> EmbeddingResult:
        """As `ports.text.Embedder.embed`; when cancelled, its result is of no interest."""
        ...

    def rerank(self, request: RerankRequest, waiter: Waiter) -> RerankResult:
        """As `ports.text.Reranker.rerank`; when cancelled, its result is of no interest."""
        ...

    def forget(self, generation: str) -> None:
        """As `ports.engines.Engines.forget`; called between requests, and returns at once."""
        ...

    def report(self) -> EngineReport | None:
        """What to tell the server of this moment; None for engines that have nothing to say."""
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
