from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from openworks.core.errors import InvalidRequestError  # noqa: E402 # after the skip
from openworks.engines.batched.executor import AdapterWeights  # noqa: E402
from openworks.engines.batched.lora import AdapterStack, Site  # noqa: E402

_IN = 12
_SITES = [
    Site(in_features=_IN, parts={"q": (0, 8), "k": (8, 12), "v": (12, 16)}, alias="qkv"),
    Site(in_features=_IN, parts={"o": (0, 12)}),
]
_OUTPUTS = {"q": 8, "k": 4, "v": 4, "o": 12, "qkv": 16}
_NUM_SLOTS = 5
_MODULES = [("q", "k", "v", "o"), ("q", "v"), ("o",), ("qkv",), ("k", "o")]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _adapter(rank: int, modules: tuple[str, ...], seed: int = 0) -> AdapterWeights:
    generator = torch.Generator().manual_seed(seed)
    pairs = {
        module: (
            torch.randn(rank, _IN, generator=generator),
            torch.randn(rank, _OUTPUTS[module], generator=generator),
        )
        for module in modules
    }
    return AdapterWeights(rank=rank, pairs=pairs, size_bytes=0)


def _stack() -> AdapterStack:
    return AdapterStack(_SITES, dtype=torch.float32, device="cpu")


def _found(stack: AdapterStack, x: Any, slots: list[int | None], lengths: list[int]) -> list[Any]:
    """What the adapters add to every site."""
    num_decodes = sum(length == 1 for length in lengths)
    segments = stack.activate(list(zip(lengths, slots, strict=True)), num_decodes)
    added = []
    for number, site in enumerate(_SITES):
        y = torch.zeros(x.shape[0], max(end for _, end in site.parts.values()))
        if segments:
            stack.add(number, x, y, segments)
        added.append(y)
    return added


def _expected(
    held: dict[int, AdapterWeights], x: Any, slots: list[int | None], lengths: list[int]
) -> list[Any]:
    """The same, adapter by adapter."""
    added = [torch.zeros(x.shape[0], 16), torch.zeros(x.shape[0], 12)]
    columns = {"q": (0, 0, 8), "k": (0, 8, 12), "v": (0, 12, 16), "qkv": (0, 0, 16)}
    row = 0
    for slot, length in zip(slots, lengths, strict=True):
        if slot is not None:
            for module, (a, b) in held[slot].pairs.items():
                site, start, end = columns.get(module, (1, 0, 12))
                added[site][row : row + length, start:end] += x[row : row + length] @ a.t() @ b
        row += length
    return added


_puts = st.tuples(
    st.just("put"),
    st.integers(0, _NUM_SLOTS - 1),
    st.sampled_from([1, 4, 8, 16]),
    st.sampled_from(_MODULES),
)
_drops = st.tuples(st.just("drop"), st.integers(0, _NUM_SLOTS - 1))
_steps = st.tuples(
    st.just("step"),
    st.lists(st.integers(-1, _NUM_SLOTS - 1), max_size=6),
    st.lists(st.tuples(st.integers(-1, _NUM_SLOTS - 1), st.integers(2, 5)), max_size=2),
    st.integers(1, 20),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(_puts, _drops, _steps), max_size=16))
def test_each_row_gets_its_own_adapter_whatever_comes_and_goes(actions: list[Any]) -> None:
    stack = _stack()
    held: dict[int, AdapterWeights] = {}
    for seed, action in enumerate(actions):
        match action:
            case ("put", slot, rank, modules):
                held[slot] = _adapter(rank, modules, seed)
                stack.put(slot, held[slot])
            case ("drop", slot):
                held.pop(slot, None)
                stack.drop(slot)
            case ("step", decodes, chunks, times):
                pieces = [(slot, 1) for slot in decodes] + chunks
                slots = [slot if slot in held else None for slot, _ in pieces]
                lengths = [length for _, length in pieces]
                x = torch.randn(sum(lengths), _IN)
                for _ in range(times):
                    found = _found(stack, x, slots, lengths)
                for ours, theirs in zip(found, _expected(held, x, slots, lengths), strict=True):
                    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_a_step_of_base_rows_has_nothing_to_add() -> None:
    stack = _stack()
    stack.put(0, _adapter(4, ("q",)))
    assert stack.activate([(1, None), (3, None)], 1) == []


def test_dropping_the_last_adapter_frees_the_matrices() -> None:
    stack = _stack()
    for slot in range(3):
        stack.put(slot, _adapter(16, ("q", "o"), slot))
    _found(stack, torch.randn(3, _IN), [0, 1, 2], [1, 1, 1])
    assert stack.size_bytes > 0
    for slot in range(3):
        stack.drop(slot)
    assert stack.size_bytes == 0


def test_dropping_half_of_the_adapters_halves_the_matrices() -> None:
    stack = _stack()
    for slot in range(4):
        stack.put(slot, _adapter(16, ("q", "o"), slot))
    _found(stack, torch.randn(4, _IN), [0, 1, 2, 3], [1, 1, 1, 1])
    full = stack.size_bytes
    stack.drop(3)
    stack.drop(0)
    assert stack.size_bytes == full // 2


def test_a_gap_too_small_for_an_adapter_is_closed_up_to_make_room() -> None:
    stack = _stack()
    held = {slot: _adapter(8, ("o",), slot) for slot in range(4)}
    for slot, weights in held.items():
        stack.put(slot, weights)
    _found(stack, torch.randn(4, _IN), [0, 1, 2, 3], [1] * 4)
    stack.drop(0)
    held[2] = _adapter(4, ("o",), 9)
    stack.put(2, held[2])
    held[0] = _adapter(12, ("o",), 10)
    stack.put(0, held[0])
    x = torch.randn(4, _IN)
    found = _found(stack, x, [2, 0, 1, 3], [1] * 4)
    for ours, theirs in zip(found, _expected(held, x, [2, 0, 1, 3], [1] * 4), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_adapters_long_unused_no_longer_widen_a_step() -> None:
    stack = _stack()
    for slot in range(5):
        stack.put(slot, _adapter(16, ("o",), slot))
    _found(stack, torch.randn(5, _IN), [0, 1, 2, 3, 4], [1] * 5)
    full = stack.size_bytes
    for _ in range(20):
        _found(stack, torch.randn(2, _IN), [0, 4], [1, 1])
    for _ in range(20):
        _found(stack, torch.randn(1, _IN), [4], [1])
    assert stack.size_bytes < full


def test_an_adapter_that_overflows_harms_no_row_but_its_own() -> None:
    stack = _stack()
    good, bad = _adapter(4, ("q", "o"), 1), _adapter(4, ("q", "o"), 2)
    for a, b in bad.pairs.values():
        a.fill_(3e38)
        b.fill_(3e38)
    stack.put(0, good)
    stack.put(1, bad)
    x = torch.randn(3, _IN)
    found = _found(stack, x, [0, 1, None], [1, 1, 1])
    for ours, theirs in zip(
        found, _expected({0: good}, x, [0, None, None], [1, 1, 1]), strict=True
    ):
        torch.testing.assert_close(ours[[0, 2]], theirs[[0, 2]], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("module", ["embed_tokens", "lm_head"])
def test_a_module_that_cannot_be_adapted_is_refused_by_name(module: str) -> None:
    weights = AdapterWeights(
        rank=2, pairs={module: (torch.ones(2, _IN), torch.ones(2, 8))}, size_bytes=0
    )
    with pytest.raises(InvalidRequestError, match=module):
        _stack().put(0, weights)


@pytest.mark.parametrize(
    ("a", "b"), [((2, 13), (2, 8)), ((2, 12), (2, 9)), ((2, 12), (3, 8)), ((4, 12), (4, 8))]
)
def test_matrices_of_other_shapes_are_refused_and_leave_the_slot_as_it_was(
    a: tuple[int, int], b: tuple[int, int]
) -> None:
    stack = _stack()
    good = _adapter(2, ("q",))
    stack.put(0, good)
    weights = AdapterWeights(rank=2, pairs={"q": (torch.ones(a), torch.ones(b))}, size_bytes=0)
    with pytest.raises(InvalidRequestError, match="'q'"):
        stack.put(0, weights)
    x = torch.randn(1, _IN)
    torch.testing.assert_close(_found(stack, x, [0], [1]), _expected({0: good}, x, [0], [1]))
