"""One text under way: its tokens, how far it is computed, and what it holds meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from openworks.engines.batched.blocks import CachedBlock
from openworks.engines.batched.step import BlockCopy


@dataclass(frozen=True, slots=True)
class AdapterKey:
    """An adapter's exact weights: an upload under the same id is a new generation."""

    id: str
    generation: str = ""


class SequenceState(Enum):
    """Where a sequence is; only RUNNING ones hold blocks."""

    WAITING = "waiting"
    RUNNING = "running"
    PREEMPTED = "preempted"
    """It gave its blocks to older ones, keeps its slot, and runs again before anything new."""
    ENDED = "ended"


@dataclass(slots=True, kw_only=True, eq=False)
class Sequence:
    """One answer to a prompt. Made by the engine; after `Scheduler.add` only the scheduler writes.

    Compared by identity.
    """

    id: int
    token_ids: list[int]
    """The prompt, then what was generated; at least one token."""
    max_tokens: int
    """How many tokens may be generated."""
    adapter: AdapterKey | None = None
    account: str = ""
    weight: float = 1.0
    """The account's share of the engine, relative to others; more than 0."""
    is_background: bool = False
    """Whether nobody waits for it, so that its prompt must not make steps long."""
    wants_prompt_logprobs: bool = False
    """Whether the logits of every prompt position are wanted, so that none comes from the cache."""

    num_prompt: int = field(init=False)
    state: SequenceState = field(default=SequenceState.WAITING, init=False)
    num_computed: int = field(default=0, init=False)
    """Positions whose keys and values are in `blocks`."""
    blocks: list[int] = field(default_factory=list, init=False)
    slot: int | None = field(default=None, init=False)
    num_cached_tokens: int = field(default=0, init=False)
    """Tokens of the prompt that were computed for another sequence before."""
    num_preemptions: int = field(default=0, init=False)

    siblings: list[Sequence] = field(default_factory=list, init=False, repr=False)
    """The answers to one request that have not ended, in a list that they share; empty when there
    was but one."""
    is_held: bool = field(default=False, init=False)
    """Waits outside the queue for a sibling to compute their prompt."""
    arrival: int = field(default=0, init=False)
    """Its request's number in the order of arrival."""
    num_charged: int = field(default=0, init=False)
    """Positions that its account has been charged for; what is computed again is free."""
    num_prompt_logits: int = field(default=0, init=False)
    """Prompt positions whose logits were computed, when they are wanted."""
    cached_as: CachedBlock | None = field(default=None, init=False, repr=False)
    """The cache's entry for the last of its full blocks that the cache knows; None at the start."""
    num_registered: int = field(default=0, init=False)
    """How many of its blocks, from the first on, the cache has seen."""
    pending_copy: BlockCopy | None = field(default=None, init=False)
    """What the next step copies for it; it holds the source too until then."""

    def __post_init__(self) -> None:
        self.num_prompt = len(self.token_ids)

    @property
    def num_generated(self) -> int:
        return len(self.token_ids) - self.num_prompt

    @property
    def has_all_tokens(self) -> bool:
        """Whether it may not grow any more."""
        return self.num_generated >= self.max_tokens

    @property
    def needs_prompt_logits(self) -> bool:
        """Whether logits of its prompt are still owed."""
        return self.wants_prompt_logprobs and self.num_prompt_logits < self.num_prompt
