"""What the scheduler and an executor say to each other: steps made of pieces of sequences.

Plain Python over ints, so that whoever plans steps can be tested without torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Piece:
    """The part of one sequence that one step computes: a chunk of its prompt, or its last token."""

    token_ids: Sequence[int]
    """The tokens whose keys and values are computed now; at least one."""
    start: int
    """The position of the first of them; everything before it is in the cache."""
    blocks: Sequence[int]
    """The sequence's block table; it covers `start + len(token_ids)` positions."""
    slot: int | None
    """The adapter slot; None for the base model."""
    num_logits: int
    """Of how many of its last tokens the logits are wanted: 0 in the middle of a prompt."""


@dataclass(frozen=True, slots=True)
class BlockCopy:
    """A block to be copied before the step: two sequences shared it, and one is about to write."""

    source: int
    target: int


@dataclass(frozen=True, slots=True)
class Step:
    """What an executor computes at once."""

    pieces: Sequence[Piece]
    copies: Sequence[BlockCopy] = ()
