from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("openvino")

from openworks.engines.batched.executor import AdapterWeights  # noqa: E402 # after the skip
from openworks.engines.batched.families.choice import spec_of  # noqa: E402
from openworks.engines.batched.openvino.pages import AdapterPages  # noqa: E402

_HIDDEN = 32
_SPEC = spec_of(
    {
        "model_type": "llama",
        "num_hidden_layers": 1,
        "hidden_size": _HIDDEN,
        "intermediate_size": 48,
        "num_attention_heads": 2,
        "vocab_size": 16,
        "max_position_embeddings": 64,
    }
)
_MODULE = "layers.0.self_attn.o_proj"
_NUM_SLOTS = 4


def _adapter(rank: int, mark: int) -> AdapterWeights:
    """All of one number, so that its pages are known again."""
    pair = (torch.full((rank, _HIDDEN), float(mark)), torch.full((rank, _HIDDEN), float(mark)))
    return AdapterWeights(rank=rank, pairs={_MODULE: pair}, size_bytes=0)


def _pages() -> AdapterPages:
    return AdapterPages(_SPEC, dtype=torch.float32, num_slots=_NUM_SLOTS)


def _marks(pages: AdapterPages, slots: set[int]) -> tuple[Any, list[float]]:
    """What a step reads: owners, and for each page the sum of a column, rank by mark."""
    active = pages.activate(slots)
    matrix = active.tensors["adapter_a.0.o"].data
    assert matrix.shape[0] == len(active.owners)
    return active.owners, matrix[:, :, 0].sum(1).tolist()


_actions = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 3), st.sampled_from([1, 8, 12, 40])),
        st.tuples(st.just("drop"), st.integers(0, 3)),
        st.tuples(st.just("step"), st.sets(st.integers(0, 3)), st.integers(1, 10)),
    ),
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(_actions)
def test_a_step_reads_all_pages_of_its_adapters(actions: list[Any]) -> None:
    pages = _pages()
    held: dict[int, tuple[int, int]] = {}
    for mark, action in enumerate(actions, 1):
        match action:
            case ("put", slot, rank):
                pages.put(slot, _adapter(rank, mark))
                held[slot] = (rank, mark)
            case ("drop", slot):
                pages.drop(slot)
                held.pop(slot, None)
            case ("step", slots, times):
                slots = slots & held.keys()
                for _ in range(times):
                    owners, sums = _marks(pages, slots)
                for slot in slots:
                    rank, slot_mark = held[slot]
                    own = [
                        found for owner, found in zip(owners, sums, strict=True) if owner == slot
                    ]
                    assert len(own) == -(-rank // 8)
                    assert sum(own) == rank * slot_mark


def test_a_step_without_adapters_reads_a_page_of_zeros() -> None:
    pages = _pages()
    pages.put(0, _adapter(8, 1))
    pages.activate({0})
    owners, sums = _marks(pages, set())
    assert len(owners) == 1
    assert sums == [0.0]


def test_pages_that_steps_no_longer_use_are_soon_not_read() -> None:
    pages = _pages()
    for slot in range(_NUM_SLOTS):
        pages.put(slot, _adapter(8, 1 + slot))
    pages.activate({0, 1, 2, 3})
    for _ in range(20):
        owners, sums = _marks(pages, {3})
    assert [owner for owner in owners if owner in range(_NUM_SLOTS)] == [3]
    assert sums[list(owners).index(3)] == 32.0


def test_pages_that_stay_are_the_same_memory_from_step_to_step() -> None:
    pages = _pages()
    pages.put(0, _adapter(8, 1))
    first = pages.activate({0})
    pages.put(1, _adapter(8, 2))
    assert pages.activate({0}).tensors is first.tensors
