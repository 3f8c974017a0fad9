"""Engines as the gateway sees them: a deployment in, a model that answers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from openworks.core.ids import AccountId
from openworks.ports.catalog import Deployment
from openworks.ports.text import (
    ChatModel,
    CompletionModel,
    Embedder,
    Reranker,
    TokenCounter,
)

EngineState = Literal["starting", "ready", "backing_off", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterPlace:
    """Where an engine holds an adapter."""

    id: str
    name: str
    generation: str
    tier: Literal["memory", "batch"]
    """batch: in a slot, ready to be part of every step; memory: a copy away from that."""
    size_bytes: int
    in_use: int
    """Texts that are being written with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineReport:
    """What an engine says of itself, a few times a second while it changes."""

    running: int = 0
    """Texts that are part of the batch."""
    waiting: int = 0
    blocks_used: int = 0
    """Blocks of keys and values that running texts hold."""
    blocks_cached: int = 0
    """Blocks that nobody holds and a prompt with the same beginning may still use."""
    blocks_total: int = 0
    steps: int = 0
    prompt_tokens: int = 0
    """Prompt tokens that were computed."""
    cached_tokens: int = 0
    """Prompt tokens that the prefix cache saved."""
    preemptions: int = 0
    adapters: tuple[AdapterPlace, ...] = ()
    description: str = ""
    """What computes, and in what precision."""


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
    report: EngineReport | None = None
    """The last that it said of itself; None for engines that say nothing."""


class Engines(Protocol):
    """The engine processes of this machine; a model is loaded on its first use."""

    def chat(
        self, deployment: Deployment, account: AccountId, *, is_background: bool = False
    ) -> ChatModel:
        """The chat model of a text-generation deployment; accounts share it fairly.

        Args:
            deployment: What answers.
            account: For whom.
            is_background: Nobody waits for the answer. It is made while no model here is asked
                anything else, begun anew whenever one is, and handed over when it is complete.
        """
        ...

    def token_counter(self, deployment: Deployment) -> TokenCounter:
        """What counts for the chat model of a text-generation deployment."""
        ...

    def completions(
        self, deployment: Deployment, account: AccountId, *, is_background: bool = False
    ) -> CompletionModel:
        """The completion model of a text-generation deployment; otherwise as `chat`."""
        ...

    def embedder(self, deployment: Deployment, *, is_background: bool = False) -> Embedder:
        """The embedder of a text-embeddings deployment; `is_background` as with `chat`."""
        ...

    def reranker(self, deployment: Deployment) -> Reranker:
        """The reranker of a rerank deployment."""
        ...

    def forget(self, generation: str) -> None:
        """Let go of an adapter that was deleted; texts that are being written with it end first."""
        ...

    def residency(self) -> Sequence[Residency]:
        """What is loaded now, most recently used first."""
        ...
