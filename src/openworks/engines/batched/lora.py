"""Adapters of a running batch: stacked by rank, multiplied at once, each row masked to its own.

For every linear layer the active adapters' A are one matrix [sum of ranks, in] and their B one
[sum of ranks, out]. `h = x·Aᵀ` is computed for all rows and all adapters, what is not a row's own
is cleared, and `y += h·B`: two plain products whatever the mix, and no adapter is padded to
another's rank. A prompt's chunk has one adapter, and takes only its part of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from openworks.core.errors import InvalidRequestError
from openworks.engines.batched.executor import AdapterWeights

_SPARSE_FACTOR = 2
"""How much more rank than is in use a step may read before the stack is packed anew…"""
_SPARSE_STEPS = 16
"""…once that many steps in a row have done so."""
_MIN_RANK = 16
"""The smallest stack; it grows by doubling, so that adapters mostly come in by their own copy."""


def _capacity_for(rank: int) -> int:
    return max(_MIN_RANK, 1 << (rank - 1).bit_length()) if rank else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A linear layer that adapters may change: one, or several that are computed as one."""

    in_features: int
    parts: Mapping[str, tuple[int, int]]
    """Module → its outputs, as start and end; in their order, and nothing between them."""
    alias: str | None = None
    """The name of all parts together, where checkpoints have them fused."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows of a step that are multiplied by one range of the stack."""

    rows: slice
    ranks: slice
    hidden: Tensor | None  # bool [rows, ranks]
    """What is not a row's own; None if all of it is."""


@dataclass(slots=True)
class _Place:
    """An adapter's range of every matrix."""

    start: int
    rank: int


@dataclass(slots=True)
class _SiteStack:
    """One site's matrices; ranks beyond those in use hold anything."""

    a: list[Tensor]  # of each part, [capacity, in]
    b: list[Tensor]  # of each part, [capacity, out]


class AdapterStack:
    """Slots with the adapters put into them, and the matrices of those lately active.

    A slot holds on to the weights it was given; they are copied into the matrices when a step
    first uses them, so putting an adapter costs a check alone.
    """

    def __init__(self, sites: Sequence[Site], *, dtype: torch.dtype, device: str) -> None:
        """Begin without adapters.

        Args:
            sites: The model's linear layers, in the order that `add` numbers them.
            dtype: Of the matrices, and of the products by them.
            device: Where they are.
        """
        self._sites = sites
        self._dtype = dtype
        self._device = device
        self._slots: dict[int, AdapterWeights] = {}
        self._stacks: list[_SiteStack | None] = [None] * len(sites)
        self._places: dict[int, _Place] = {}
        self._capacity = 0
        self._num_sparse_steps = 0
        self._modules: dict[str, tuple[int, tuple[int, ...]]] = {
            module: (site, (part,))
            for site, spec in enumerate(sites)
            for part, module in enumerate(spec.parts)
        }
        for site, spec in enumerate(sites):
            if spec.alias is not None:
                self._modules[spec.alias] = (site, tuple(range(len(spec.parts))))

    @property
    def size_bytes(self) -> int:
        """What the matrices take, besides the weights that slots hold on to."""
        return sum(
            matrix.nbytes
            for stack in self._stacks
            if stack is not None
            for matrix in (*stack.a, *stack.b)
        )

    def put(self, slot: int, weights: AdapterWeights) -> None:
        """Hold an adapter; raises `InvalidRequestError` if it does not fit this model."""
        for module, (a, b) in weights.pairs.items():
            self._check(module, a, b, weights.rank)
        self.drop(slot)
        self._slots[slot] = weights

    def drop(self, slot: int) -> None:
        """Forget an adapter; the matrices shrink to what is left."""
        self._slots.pop(slot, None)
        if self._places.pop(slot, None) is None:
            return
        if self._live_rank() * 2 <= self._capacity:
            self._pack(list(self._places))

    def activate(self, rows: Sequence[tuple[int, int | None]], num_decodes: int) -> list[Segment]:
        """Prepare a step.

        Args:
            rows: For each piece, in the order of its rows, how many it has and its slot.
            num_decodes: How many pieces, from the first, have one row.

        Returns:
            What `add` is to be called with; empty if no adapter is active.
        """
        active = {slot for _, slot in rows if slot is not None}
        if not active:
            return []
        self._place(active)
        segments = []
        decodes = self._mixed([slot for _, slot in rows[:num_decodes]])
        if decodes is not None:
            segments.append(decodes)
        row = num_decodes
        for num_rows, slot in rows[num_decodes:]:
            if slot is not None:
                place = self._places[slot]
                ranks = slice(place.start, place.start + place.rank)
                segments.append(Segment(slice(row, row + num_rows), ranks, None))
            row += num_rows
        return segments

    def add(self, site: int, x: Tensor, y: Tensor, segments: Sequence[Segment]) -> None:
        """Add the adapters' part of a linear layer.

        Args:
            site: Which one.
            x: Its input [tokens, in].
            y: Its output [tokens, out]; changed in place.
            segments: From `activate`.
        """
        stack = self._stacks[site]
        if stack is None:
            return
        bounds = self._sites[site].parts.values()
        for segment in segments:
            rows = x[segment.rows].to(self._dtype)
            for a, b, (start, end) in zip(stack.a, stack.b, bounds, strict=True):
                h = torch.mm(rows, a[segment.ranks].t())
                if segment.hidden is not None:
                    # Filled, not multiplied: another adapter's overflow must not reach this row.
                    h.masked_fill_(segment.hidden, 0)
                y[segment.rows, start:end].add_(torch.mm(h, b[segment.ranks]))

    def _check(self, module: str, a: Tensor, b: Tensor, rank: int) -> None:
        found = self._modules.get(module)
        if found is None:
            raise InvalidRequestError(
                f"The adapter changes '{module}', which this engine cannot adapt."
            )
        site, parts = found
        bounds = list(self._sites[site].parts.values())
        num_outputs = bounds[parts[-1]][1] - bounds[parts[0]][0]
        num_inputs = self._sites[site].in_features
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != rank or b.shape[0] != rank:
            raise InvalidRequestError(
                f"The adapter's matrices for '{module}' have shapes {list(a.shape)} and "
                f"{list(b.shape)}, which are no pair of rank {rank}."
            )
        if a.shape[1] != num_inputs or b.shape[1] != num_outputs:
            raise InvalidRequestError(
                f"The adapter maps {a.shape[1]} to {b.shape[1]} values in '{module}'; this "
                f"model has {num_inputs} to {num_outputs} there."
            )

    def _mixed(self, slots: Sequence[int | None]) -> Segment | None:
        """Make the segment of decodes: from the first to the last that has an adapter."""
        rows = [row for row, slot in enumerate(slots) if slot is not None]
        if not rows:
            return None
        slots = slots[rows[0] : rows[-1] + 1]
        spans = [
            (place.start, place.start + place.rank)
            for place in (self._places[slot] for slot in slots if slot is not None)
        ]
        low, high = min(start for start, _ in spans), max(end for _, end in spans)
        segment = slice(rows[0], rows[-1] + 1)
        if len(set(slots)) == 1:
            return Segment(segment, slice(low, high), None)
        own = [
            (0, 0) if slot is None else (self._places[slot].start, self._places[slot].rank)
            for slot in slots
        ]
        bounds = torch.tensor(own)
        column = torch.arange(low, high) - bounds[:, :1]
        hidden = (column < 0) | (column >= bounds[:, 1:])
        return Segment(segment, slice(low, high), hidden.to(self._device))

    def _live_rank(self) -> int:
        return sum(place.rank for place in self._places.values())

    def _place(self, active: set[int]) -> None:
        """See to it that the active adapters are in the matrices."""
        for slot in sorted(active - self._places.keys()):
            rank = self._slots[slot].rank
            if self._room(rank) is None:
                if self._live_rank() + rank > self._capacity:
                    self._grow(rank)
                else:
                    self._pack([*self._places], spare_rank=rank)
            self._append(slot, self._room(rank))
            self._num_sparse_steps = 0
        places = [self._places[slot] for slot in active]
        span = max(p.start + p.rank for p in places) - min(p.start for p in places)
        is_sparse = span > _SPARSE_FACTOR * sum(place.rank for place in places)
        self._num_sparse_steps = self._num_sparse_steps + 1 if is_sparse else 0
        if self._num_sparse_steps >= _SPARSE_STEPS:
            self._pack(sorted(active))
            self._num_sparse_steps = 0

    def _room(self, rank: int) -> int | None:
        """Find the first gap for a rank, such as one that an adapter left behind."""
        start = 0
        for place in sorted(self._places.values(), key=lambda place: place.start):
            if place.start - start >= rank:
                return start
            start = place.start + place.rank
        return start if self._capacity - start >= rank else None

    def _grow(self, rank: int) -> None:
        """Make the matrices larger by at least a rank."""
        old = self._capacity
        self._capacity = _capacity_for(old + rank)
        for site, stack in enumerate(self._stacks):
            if stack is not None:
                grown = self._empty(self._sites[site])
                for a, old_a in zip(grown.a, stack.a, strict=True):
                    a[:old].copy_(old_a)
                for b, old_b in zip(grown.b, stack.b, strict=True):
                    b[:old].copy_(old_b)
                self._stacks[site] = grown

    def _pack(self, slots: Sequence[int], *, spare_rank: int = 0) -> None:
        """Make the matrices anew for these slots alone; the old ones are let go first."""
        self._places.clear()
        self._stacks = [None] * len(self._sites)
        total = sum(self._slots[slot].rank for slot in slots)
        self._capacity = _capacity_for(total + spare_rank)
        for slot in slots:
            self._append(slot, self._room(self._slots[slot].rank))

    def _append(self, slot: int, start: int | None) -> None:
        """Copy an adapter to where room was found for it."""
        assert start is not None
        weights = self._slots[slot]
        for number in {self._modules[module][0] for module in weights.pairs}:
            if self._stacks[number] is None:
                self._stacks[number] = self._empty(self._sites[number])
        ranks = slice(start, start + weights.rank)
        for site, stack in zip(self._sites, self._stacks, strict=True):
            if stack is not None:
                for part, (a, b) in enumerate(zip(stack.a, stack.b, strict=True)):
                    _copy(_pair_of(weights, site, part), a[ranks], b[ranks])
        self._places[slot] = _Place(start, weights.rank)

    def _empty(self, site: Site) -> _SiteStack:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=self._dtype, device=self._device)

        # Zeros, as a site that only later adapters change must add nothing for earlier ones.
        return _SiteStack(
            a=[zeros(self._capacity, site.in_features) for _ in site.parts],
            b=[zeros(self._capacity, end - start) for start, end in site.parts.values()],
        )


def _copy(pair: tuple[Tensor, Tensor] | None, a: Tensor, b: Tensor) -> None:
    """Fill an adapter's range of one part's matrices; with zeros if it does not change it."""
    if pair is None:
        a.zero_()
        b.zero_()
    else:
        a.copy_(pair[0])
        b.copy_(pair[1])


def _pair_of(weights: AdapterWeights, site: Site, part: int) -> tuple[Tensor, Tensor] | None:
    """Find what an adapter adds to one part, given for it alone or for all parts together."""
    module, (start, end) = list(site.parts.items())[part]
    pair = weights.pairs.get(module)
    if pair is None and site.alias is not None and site.alias in weights.pairs:
        a, b = weights.pairs[site.alias]
        return a, b[:, start:end]
    return pair
