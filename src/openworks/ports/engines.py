"""Engines as the gateway sees them: a deployment in, a model that answers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from openworks.ports.catalog import Deployment
from openworks.ports.text import ChatModel, CompletionModel, Embedder, Reranker

EngineState = Literal["starting", "ready", "backing_off", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Residency:
    """One model that has, or had, an engine process."""

    deployment: str
    engine: str
    state: EngineState
    pinned: bool
    pid: int | None
    memory_bytes: int
    """Measured when ready, estimated before."""
    in_flight: int
    restarts: int
    load_s: float | None
    """How long the last load took."""


class Engines(Protocol):
    """The engine processes of this machine; a model is loaded on its first use."""

    def chat(self, deployment: Deployment) -> ChatModel:
        """The chat model of a text-generation deployment."""
        ...

    def completions(self, deployment: Deployment) -> CompletionModel:
        """The completion model of a text-generation deployment."""
        ...

    def embedder(self, deployment: Deployment) -> Embedder:
        """The embedder of a text-embeddings deployment."""
        ...

    def reranker(self, deployment: Deployment) -> Reranker:
        """The reranker of a rerank deployment."""
        ...

    def residency(self) -> Sequence[Residency]:
        """What is loaded now, most recently used first."""
        ...
