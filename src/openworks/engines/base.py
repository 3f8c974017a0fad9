"""What an engine is inside its process, and how its module is found by name."""

from __future__ import annotations

from collections.abc import AsyncGenerator
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


class Engine(Protocol):
    """Loaded weights. A method whose task is not the model's raises `InvalidRequestError`."""

    context_tokens: int

    def chat(self, request: ChatRequest) -> AsyncGenerator[TextChunk, None]:
        """As `ports.text.ChatModel.stream`."""
        ...

    def complete(self, request: CompletionRequest) -> AsyncGenerator[TextChunk, None]:
        """As `ports.text.CompletionModel.stream`."""
        ...

    async def embed(self, request: EmbeddingRequest) -> EmbeddingResult:
        """As `ports.text.Embedder.embed`."""
        ...

    async def rerank(self, request: RerankRequest) -> RerankResult:
        """As `ports.text.Reranker.rerank`."""
        ...


class EngineFactory(Protocol):
    """Loads weights; blocks until they are ready."""

    def __call__(self, deployment: Deployment) -> Engine:
        """Load a deployment.

        Raises:
            AppError: The weights cannot be loaded; the message says why.
        """
        ...
