from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from openworks.engines.batched.blocks import BlockPool


def store(pool: BlockPool, adapter: str | None, tokens: list[int]) -> list[int]:
    """Compute a text, as a sequence does: what is cached is held, the rest taken and registered."""
    match = pool.match(adapter, tokens)
    pool.use(match)
    size = pool.block_tokens
    blocks = match.blocks + [
        pool.take() for _ in range(pool.blocks_for(len(tokens)) - len(match.blocks))
    ]
    last = match.last
    for index in range(len(match.blocks), len(tokens) // size):
        last = pool.register(last, tuple(tokens[index * size : (index + 1) * size]), blocks[index])
    return blocks


def test_released_text_is_found_again_by_whole_blocks() -> None:
    pool = BlockPool(8, 4)
    tokens = list(range(14))
    blocks = store(pool, None, tokens)
    pool.release(blocks)
    match = pool.match(None, [*tokens[:9], 99, 98, 97, 96])
    assert (match.blocks, match.num_tokens) == (blocks[:2], 8)


def test_last_token_is_never_found() -> None:
    pool = BlockPool(8, 4)
    pool.release(store(pool, None, list(range(8))))
    assert pool.match(None, list(range(8))).num_tokens == 4
    assert pool.match(None, list(range(9))).num_tokens == 8


def test_same_block_after_another_beginning_is_not_found() -> None:
    pool = BlockPool(8, 2)
    store(pool, None, [1, 1, 7, 7])
    assert pool.match(None, [2, 2, 7, 7, 0]).num_tokens == 0
    assert pool.match(None, [7, 7, 0]).num_tokens == 0


def test_adapters_have_texts_of_their_own() -> None:
    pool = BlockPool(8, 2)
    store(pool, "x", [1, 2, 3])
    assert pool.match("x", [1, 2, 3]).num_tokens == 2
    assert pool.match("y", [1, 2, 3]).num_tokens == 0
    assert pool.match(None, [1, 2, 3]).num_tokens == 0


def test_empty_blocks_are_taken_before_cached_ones() -> None:
    pool = BlockPool(4, 2)
    pool.release(store(pool, None, [1, 2, 3, 4]))
    assert (pool.num_free, pool.num_cached) == (4, 2)
    pool.take()
    pool.take()
    assert pool.match(None, [1, 2, 3, 4, 5]).num_tokens == 4


def test_beginning_of_a_text_is_evicted_last() -> None:
    pool = BlockPool(3, 2)
    pool.release(store(pool, None, [1, 2, 3, 4, 5, 6]))
    pool.take()
    assert pool.match(None, [1, 2, 3, 4, 5, 6, 7]).num_tokens == 4


def test_text_used_last_is_evicted_last() -> None:
    pool = BlockPool(2, 2)
    pool.release(store(pool, None, [1, 1]))
    pool.release(store(pool, None, [2, 2]))
    match = pool.match(None, [1, 1, 0])
    pool.use(match)
    pool.release(match.blocks)
    pool.take()
    assert pool.match(None, [1, 1, 0]).num_tokens == 2
    assert pool.match(None, [2, 2, 0]).num_tokens == 0


def test_same_text_computed_twice_is_cached_once() -> None:
    pool = BlockPool(4, 2)
    root = pool.match(None, ()).last
    first, second, third = pool.take(), pool.take(), pool.take()
    after_first = pool.register(root, (1, 2), first)
    after_second = pool.register(root, (1, 2), second)
    assert after_second is after_first
    pool.register(after_second, (3, 4), third)
    assert pool.match(None, [1, 2, 3, 4, 5]).blocks == [first, third]


def test_what_can_no_longer_be_reached_is_not_kept() -> None:
    pool = BlockPool(3, 2)
    root = pool.match(None, ()).last
    first, second = pool.take(), pool.take()
    pool.register(pool.register(root, (1, 2), first), (3, 4), second)
    pool.release([first])
    pool.take()
    pool.take()  # evicts the first, which the second continues
    pool.release([second])
    assert (pool.num_free, pool.num_cached) == (1, 0)


def test_text_cut_off_from_the_cache_goes_on_without_it() -> None:
    pool = BlockPool(2, 2)
    root = pool.match(None, ()).last
    first = pool.take()
    tail = pool.register(root, (1, 2), first)
    pool.forget(None)
    second = pool.take()
    pool.register(tail, (3, 4), second)
    pool.release([first, second])
    assert (pool.num_free, pool.num_cached) == (2, 0)


def test_forgotten_adapter_leaves_nothing_behind() -> None:
    pool = BlockPool(4, 2)
    held = store(pool, "x", [1, 2, 3, 4])
    pool.release(store(pool, "x", [5, 6]))
    pool.forget("x")
    assert pool.match("x", [1, 2, 3, 4, 5]).num_tokens == 0
    pool.release(held)
    assert (pool.num_free, pool.num_cached) == (4, 0)


def test_room_is_counted_without_what_would_be_shared() -> None:
    pool = BlockPool(4, 2)
    pool.release(store(pool, None, [1, 2, 3, 4]))
    match = pool.match(None, [1, 2, 3, 4, 5])
    assert pool.can_take(2, besides=match.blocks)
    assert not pool.can_take(3, besides=match.blocks)


def test_hits_are_counted() -> None:
    pool = BlockPool(8, 2)
    store(pool, None, [1, 2, 3, 4, 5])
    store(pool, None, [1, 2, 3, 4, 6])
    assert pool.num_hit_tokens == 4


class Texts(RuleBasedStateMachine):
    """Texts that come and go, checked against what each block was written with."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(1, 1)
        self.held: list[list[int]] = []
        self.written: dict[int, tuple[str | None, tuple[int, ...]]] = {}

    @initialize(num_blocks=st.integers(1, 10), block_tokens=st.integers(1, 3))
    def start(self, num_blocks: int, block_tokens: int) -> None:
        self.pool = BlockPool(num_blocks, block_tokens)

    @rule(
        adapter=st.sampled_from([None, "x"]),
        tokens=st.lists(st.integers(0, 1), min_size=1, max_size=12),
    )
    def add(self, adapter: str | None, tokens: list[int]) -> None:
        pool, size = self.pool, self.pool.block_tokens
        match = pool.match(adapter, tokens)
        assert match.num_tokens < len(tokens)
        for index, block in enumerate(match.blocks):
            assert self.written[block] == (adapter, tuple(tokens[: (index + 1) * size]))
        num_new = pool.blocks_for(len(tokens)) - len(match.blocks)
        if not pool.can_take(num_new, besides=match.blocks):
            return
        blocks = store(pool, adapter, tokens)
        assert len(set(blocks)) == len(blocks)
        others = {block for text in self.held for block in text}
        for index in range(len(match.blocks), len(blocks)):
            assert blocks[index] not in others
            self.written[blocks[index]] = (adapter, tuple(tokens[: (index + 1) * size]))
        self.held.append(blocks)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.held) - 1))
        self.pool.release(self.held.pop(index))

    @rule(adapter=st.sampled_from([None, "x"]))
    def forget(self, adapter: str | None) -> None:
        self.pool.forget(adapter)
        assert self.pool.match(adapter, [0] * 100).num_tokens == 0

    @invariant()
    def holders_are_those_who_hold(self) -> None:
        pool = self.pool
        holders = Counter(block for text in self.held for block in text)
        assert [pool.holders_of(block) for block in range(pool.num_blocks)] == [
            holders[block] for block in range(pool.num_blocks)
        ]
        assert pool.num_used == len(holders)
        assert pool.num_cached <= pool.num_free == pool.num_blocks - len(holders)

    def teardown(self) -> None:
        for text in self.held:
            self.pool.release(text)
        assert self.pool.num_free == self.pool.num_blocks
        assert len({self.pool.take() for _ in range(self.pool.num_blocks)}) == self.pool.num_blocks


TestTexts = Texts.TestCase
TestTexts.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
