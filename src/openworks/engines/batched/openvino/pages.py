"""Adapters' matrices in memory: pages of equal rank, those that a step reads beside each other."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import openvino as ov
import torch
from torch import Tensor

from openworks.core.errors import InvalidRequestError
from openworks.engines.batched.executor import AdapterWeights
from openworks.engines.batched.memory import Reserve
from openworks.engines.batched.openvino.adapter_graph import PAGE_RANK, a_name, b_name
from openworks.engines.batched.openvino.linears import LinearGroup, linear_groups
from openworks.engines.batched.openvino.tensors import shared_tensor
from openworks.engines.batched.spec import ModelSpec

_SPARSE_STEPS = 8
"""After how many steps in a row that read far more pages than they use the rest are let go."""
_PAGES_STEP = 4
"""Beyond so many pages a multiple is read: kernels are made anew for every number of them."""
_NOBODY = -1
"""The slot of pages that hold nothing, or what nobody uses any more."""


@dataclass(frozen=True, slots=True)
class _Site:
    """A module that adapters may change: the group it is in, and its parts there."""

    layer: int
    group_name: str
    group: LinearGroup
    parts: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivePages:
    """What a step reads."""

    owners: Sequence[int]
    """For each page, its slot; some may be of slots that the step does not use, or of none."""
    tensors: Mapping[str, ov.Tensor]
    """The graph's inputs that hold them; the same object while they are the same memory."""


class AdapterPages:
    """Slots with the adapters put into them, and the pages of those lately active.

    A slot holds on to the weights it was given; they are copied when a step first uses them.
    """

    def __init__(self, spec: ModelSpec, *, dtype: torch.dtype, num_slots: int) -> None:
        """Set addresses aside for one page of each slot; there may come to be more."""
        self._dtype = dtype
        self._slots: dict[int, AdapterWeights] = {}
        self._owners: list[int] = []
        self._num_sparse_steps = 0
        self._tensors: dict[int, Mapping[str, ov.Tensor]] = {}
        self._shapes: dict[str, tuple[int, int]] = {}
        self._sites: dict[str, _Site] = {}
        for layer in range(spec.num_layers):
            for name, group in linear_groups(spec).items():
                self._add_group(layer, name, group)
        self._num_parts = sum(len(site.parts) == 1 for site in self._sites.values())
        self._capacity = num_slots
        self._reserves = self._reserve(num_slots)
        self._zeros = self._reserve(1)
        self._nothing = ActivePages(owners=(_NOBODY,), tensors=_first_pages(self._zeros, 1))

    def put(self, slot: int, weights: AdapterWeights) -> None:
        """Hold an adapter; raises `InvalidRequestError` if it does not fit this model."""
        for module, (a, b) in weights.pairs.items():
            self._check(module, a, b, weights.rank)
        self._remove({slot})
        self._slots[slot] = weights

    def drop(self, slot: int) -> None:
        """Forget an adapter, and give the memory of its pages back."""
        self._slots.pop(slot, None)
        self._remove({slot})
        for reserve in self._reserves.values():
            reserve.trim(len(self._owners))

    def activate(self, slots: Collection[int]) -> ActivePages:
        """Prepare a step that uses these slots; of none, it reads a page of zeros."""
        if not slots:
            return self._nothing
        for slot in sorted(set(slots) - set(self._owners)):
            self._append(slot, slots)
        num_read = self._num_read(slots)
        num_used = sum(owner in slots for owner in self._owners)
        is_sparse = num_read > num_used + max(1, num_used // 4)
        self._num_sparse_steps = self._num_sparse_steps + 1 if is_sparse else 0
        if self._num_sparse_steps >= _SPARSE_STEPS:
            self._num_sparse_steps = 0
            self._remove(set(self._owners) - set(slots))
            num_read = self._num_read(slots)
        if num_read > _PAGES_STEP:
            num_read = min(-(-num_read // _PAGES_STEP) * _PAGES_STEP, self._capacity)
        if num_read not in self._tensors:
            self._tensors[num_read] = _first_pages(self._reserves, num_read)
        owners = [*self._owners, *[_NOBODY] * (num_read - len(self._owners))]
        return ActivePages(owners=owners[:num_read], tensors=self._tensors[num_read])

    def _add_group(self, layer: int, name: str, group: LinearGroup) -> None:
        num_parts = len(group.modules)
        self._shapes[a_name(layer, name)] = (PAGE_RANK * num_parts, group.num_inputs)
        for part, (module, width) in enumerate(zip(group.modules, group.widths, strict=True)):
            self._shapes[b_name(layer, name, part)] = (PAGE_RANK, width)
            self._sites[f"layers.{layer}.{module}"] = _Site(layer, name, group, (part,))
        self._sites[f"layers.{layer}.{group.alias}"] = _Site(layer, name, group, range(num_parts))

    def _reserve(self, num_pages: int) -> Mapping[str, Reserve]:
        return {
            name: Reserve((num_pages, *shape), self._dtype) for name, shape in self._shapes.items()
        }

    def _check(self, module: str, a: Tensor, b: Tensor, rank: int) -> None:
        site = self._sites.get(module)
        if site is None:
            raise InvalidRequestError(
                f"The adapter changes '{module}', which this engine cannot adapt."
            )
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != rank or b.shape[0] != rank:
            raise InvalidRequestError(
                f"The adapter's matrices for '{module}' have shapes {list(a.shape)} and "
                f"{list(b.shape)}, which are no pair of rank {rank}."
            )
        num_inputs = site.group.num_inputs
        num_outputs = sum(site.group.widths[part] for part in site.parts)
        if a.shape[1] != num_inputs or b.shape[1] != num_outputs:
            raise InvalidRequestError(
                f"The adapter maps {a.shape[1]} to {b.shape[1]} values in '{module}'; this "
                f"model has {num_inputs} to {num_outputs} there."
            )

    def _num_read(self, slots: Collection[int]) -> int:
        """Count the pages up to the last that is of one of these slots."""
        return max(
            (page + 1 for page, owner in enumerate(self._owners) if owner in slots), default=0
        )

    def _append(self, slot: int, active: Collection[int]) -> None:
        """Copy an adapter behind the last page."""
        weights = self._slots[slot]
        start, num_pages = len(self._owners), -(-weights.rank // PAGE_RANK)
        if start + num_pages > self._capacity:
            self._remove(set(self._owners) - set(active))
            start = len(self._owners)
        if start + num_pages > self._capacity:
            self._grow(start + num_pages)
        self._owners.extend([slot] * num_pages)
        if not self._fills(weights):
            for reserve in self._reserves.values():
                reserve.data[start : start + num_pages] = 0
        for module, (a, b) in weights.pairs.items():
            self._copy(self._sites[module], a, b, start)

    def _fills(self, weights: AdapterWeights) -> bool:
        """Whether an adapter writes to all of its pages."""
        found = [self._sites[module] for module in weights.pairs]
        parts = {(site.layer, site.group_name, part) for site in found for part in site.parts}
        return len(parts) == self._num_parts and weights.rank % PAGE_RANK == 0

    def _copy(self, site: _Site, a: Tensor, b: Tensor, start: int) -> None:
        """Write one module's pair [rank, in] and [rank, out] to the pages from `start` on."""
        low = 0
        for part in site.parts:
            width = site.group.widths[part]
            a_pages = self._reserves[a_name(site.layer, site.group_name)].data
            b_pages = self._reserves[b_name(site.layer, site.group_name, part)].data
            for page, first in enumerate(range(0, a.shape[0], PAGE_RANK), start):
                ranks = slice(first, min(first + PAGE_RANK, a.shape[0]))
                size = ranks.stop - ranks.start
                a_pages[page, part * PAGE_RANK : part * PAGE_RANK + size] = a[ranks]
                b_pages[page, :size] = b[ranks, low : low + width]
            low += width

    def _remove(self, slots: Collection[int]) -> None:
        """Let pages go: the last one moves to where a hole is."""
        for page in reversed(range(len(self._owners))):
            if self._owners[page] in slots:
                last = len(self._owners) - 1
                if page != last:
                    for reserve in self._reserves.values():
                        reserve.data[page] = reserve.data[last]
                    self._owners[page] = self._owners[last]
                self._owners.pop()

    def _grow(self, num_pages: int) -> None:
        """Make room for so many pages, and as many again."""
        old, self._capacity = self._reserves, 2 * num_pages
        self._reserves = self._reserve(self._capacity)
        for name, reserve in self._reserves.items():
            used = len(self._owners)
            reserve.data[:used] = old[name].data[:used]
        self._tensors.clear()


def _first_pages(reserves: Mapping[str, Reserve], num_pages: int) -> Mapping[str, ov.Tensor]:
    return {name: shared_tensor(reserve.data[:num_pages]) for name, reserve in reserves.items()}
