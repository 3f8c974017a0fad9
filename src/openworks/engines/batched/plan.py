"""What the scheduler hands to the engine's loop: a step with its sequences, failures, usage."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

from openworks.core.errors import AppError
from openworks.engines.batched.residency import SlotChange
from openworks.engines.batched.sequence import Sequence
from openworks.engines.batched.step import Piece, Step


@dataclass(frozen=True, slots=True)
class Work:
    """What one step does for one sequence."""

    sequence: Sequence
    piece: Piece
    is_last: bool
    """Whether the piece ends the sequence so far, so that its last logits give a token."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One step, and what belongs to it; valid until the next call of `Scheduler.plan`."""

    work: SequenceOf[Work]
    """In the order of the step's pieces. Empty when there are only slots to be changed."""
    step: Step
    slot_changes: SequenceOf[SlotChange]
    """To be done before the step."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A sequence that ended by an error."""

    sequence: Sequence
    error: AppError


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What is in use now, for whoever reports it."""

    num_running: int
    num_waiting: int
    num_preempted: int
    num_blocks: int
    num_used_blocks: int
    num_cached_blocks: int
    num_hit_tokens: int
    """Prompt tokens found in the prefix cache, since the start."""
    host_bytes: int
