"""The blocks of a cache of keys and values: who holds them, and which can be used again.

The prefix cache is a trie of full blocks, one tree for each adapter: a block is found by the
tokens of all blocks before it and its own, compared exactly.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class CachedBlock:
    """A full block that later sequences may share; or the root of an adapter's tree."""

    tokens: tuple[int, ...]
    block: int | None
    """None for a root."""
    parent: CachedBlock | None = field(repr=False)
    children: dict[tuple[int, ...], CachedBlock] = field(default_factory=dict, repr=False)
    is_reachable: bool = True
    """False once it, or a block before it, left the cache."""


@dataclass(frozen=True, slots=True)
class Match:
    """The beginning of a text that is in the cache; its blocks are not held yet."""

    blocks: list[int]
    num_tokens: int
    last: CachedBlock
    """Where `register` goes on."""


class BlockPool:
    """Counts the holders of each block. A block without any is free, and may still be cached.

    Only one holder may write a block, and nobody a registered one.
    """

    def __init__(self, num_blocks: int, block_tokens: int) -> None:
        self.num_blocks = num_blocks
        self.block_tokens = block_tokens
        self.num_hit_tokens = 0
        """Tokens that were found in the cache, since the start."""
        self._holders = [0] * num_blocks
        self._empty = list(range(num_blocks - 1, -1, -1))
        self._idle: OrderedDict[int, None] = OrderedDict()  # free and cached, least recent first
        self._cached: list[CachedBlock | None] = [None] * num_blocks
        self._roots: dict[Hashable, CachedBlock] = {}

    @property
    def num_free(self) -> int:
        """Blocks that can be taken, those included that are cached meanwhile."""
        return len(self._empty) + len(self._idle)

    @property
    def num_cached(self) -> int:
        """Free blocks whose contents can still be used."""
        return len(self._idle)

    @property
    def num_used(self) -> int:
        return self.num_blocks - self.num_free

    def blocks_for(self, num_tokens: int) -> int:
        """How many blocks hold so many positions."""
        return -(-num_tokens // self.block_tokens)

    def match(self, adapter: Hashable, tokens: Sequence[int]) -> Match:
        """Find the longest cached beginning of a text that leaves a token to be computed."""
        root = self._roots.get(adapter)
        if root is None:
            root = self._roots[adapter] = CachedBlock(tokens=(), block=None, parent=None)
        found, blocks, size = root, list[int](), self.block_tokens
        for start in range(0, len(tokens) - size, size):
            child = found.children.get(tuple(tokens[start : start + size]))
            if child is None or child.block is None:
                break
            blocks.append(child.block)
            found = child
        return Match(blocks, len(blocks) * size, found)

    def can_take(self, count: int, *, besides: Iterable[int] = ()) -> bool:
        """Whether `count` blocks could be taken after `besides` were held."""
        return count <= self.num_free - sum(not self._holders[block] for block in besides)

    def take(self) -> int:
        """Hold a free block to write to; the least recently used cached one when none is empty."""
        if self._empty:
            block = self._empty.pop()
        else:
            block, _ = self._idle.popitem(last=False)
            cached = self._cached[block]
            assert cached is not None
            self._holders[block] = 1  # so that it is not put among the empty ones
            self._drop(cached)
        self._holders[block] = 1
        return block

    def hold(self, blocks: Iterable[int]) -> None:
        """Hold blocks that are cached, or that another holds."""
        for block in blocks:
            if not self._holders[block]:
                del self._idle[block]
            self._holders[block] += 1

    def use(self, match: Match) -> None:
        """Hold the blocks of a match, and count it as a hit."""
        self.hold(match.blocks)
        self.num_hit_tokens += match.num_tokens

    def release(self, blocks: Sequence[int]) -> None:
        """Stop holding a sequence's blocks, given from the first to the last."""
        for block in reversed(blocks):  # so that prefixes, which more texts share, go last
            self._holders[block] -= 1
            if self._holders[block]:
                continue
            if self._cached[block] is None:
                self._empty.append(block)
            else:
                self._idle[block] = None

    def holders_of(self, block: int) -> int:
        return self._holders[block]

    def register(self, after: CachedBlock, tokens: tuple[int, ...], block: int) -> CachedBlock:
        """Make a full block known, unless another with the same text is.

        Args:
            after: What `match` or `register` returned for the block before.
            tokens: The `block_tokens` tokens that the block holds.
            block: Held by the caller, and never written to again.

        Returns:
            Where the next block of this text is to be registered.
        """
        if not after.is_reachable or tokens in after.children:
            return after.children.get(tokens, after)
        cached = CachedBlock(tokens=tokens, block=block, parent=after)
        after.children[tokens] = cached
        self._cached[block] = cached
        return cached

    def forget(self, adapter: Hashable) -> None:
        """Drop what is cached for an adapter; blocks that are held stay with their holders."""
        root = self._roots.pop(adapter, None)
        if root is not None:
            self._drop(root)

    def _drop(self, top: CachedBlock) -> None:
        """Take a block out of the cache, with those that can only be reached through it."""
        if top.parent is not None:
            del top.parent.children[top.tokens]
        dropped = [top]
        while dropped:
            cached = dropped.pop()
            cached.is_reachable = False
            dropped.extend(cached.children.values())
            cached.children.clear()
            block = cached.block
            if block is None:
                continue
            self._cached[block] = None
            if not self._holders[block]:
                del self._idle[block]
                self._empty.append(block)
