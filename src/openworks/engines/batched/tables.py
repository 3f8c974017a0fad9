"""Which blocks each sequence holds: shared, copied, grown, given back."""

from __future__ import annotations

from openworks.core.errors import ContextLengthExceededError
from openworks.engines.batched.blocks import BlockPool
from openworks.engines.batched.executor import CacheShape
from openworks.engines.batched.sequence import Sequence, SequenceState
from openworks.engines.batched.step import BlockCopy


class BlockTables:
    """The blocks of a cache, as sequences hold them.

    A sequence writes only to blocks that it alone holds and that the prefix cache does not know:
    full blocks are shared as they are, and one that two would write to is copied.
    """

    def __init__(self, cache: CacheShape) -> None:
        self.pool = BlockPool(cache.num_blocks, cache.block_tokens)

    def check(self, num_tokens: int) -> None:
        """Say whether a text of so many tokens fits when it has the cache to itself.

        Raises:
            ContextLengthExceededError: It does not.
        """
        pool = self.pool
        if pool.blocks_for(num_tokens) > pool.num_blocks:
            raise ContextLengthExceededError(
                f"The text has {num_tokens} tokens; the cache holds "
                f"{pool.num_blocks * pool.block_tokens}."
            )

    def may_grow(self, sequence: Sequence) -> bool:
        """Whether a sequence may come to need more blocks than it holds."""
        most = self.pool.blocks_for(sequence.num_prompt + sequence.max_tokens)
        return most > len(sequence.blocks)

    def open(self, sequence: Sequence, *, spare: int) -> bool:
        """Hold blocks for all tokens of a sequence, those included that are computed already.

        Args:
            sequence: One that holds none.
            spare: How many blocks have to stay free.

        Returns:
            False when there are too few.
        """
        pool = self.pool
        owes_logits = sequence.needs_prompt_logits
        match = pool.match(sequence.adapter, () if owes_logits else sequence.token_ids)
        sibling = _computed_sibling(sequence)
        if sibling is None:
            shared, num_shared = match.blocks, match.num_tokens
        else:
            num_shared = sequence.num_prompt - 1  # the last gives the logits
            shared = sibling.blocks[: pool.blocks_for(num_shared)]
        is_torn = num_shared % pool.block_tokens > 0
        num_new = pool.blocks_for(len(sequence.token_ids)) - len(shared)
        if not pool.can_take(num_new + is_torn + spare, besides=shared):
            return False
        if sibling is None:
            pool.use(match)
        else:
            pool.hold(shared)
            sequence.num_prompt_logits = num_shared
        sequence.blocks = shared + [pool.take() for _ in range(num_new)]
        if is_torn:
            copy = BlockCopy(shared[-1], pool.take())
            sequence.blocks[len(shared) - 1] = copy.target
            sequence.pending_copy = copy
        sequence.num_computed = num_shared
        sequence.cached_as = match.last
        sequence.num_registered = len(match.blocks)
        return True

    def grow(self, sequence: Sequence) -> bool:
        """Hold blocks for all tokens of a sequence that holds some; False when too few are free."""
        num_new = self.pool.blocks_for(len(sequence.token_ids)) - len(sequence.blocks)
        if not self.pool.can_take(num_new):
            return False
        sequence.blocks += [self.pool.take() for _ in range(num_new)]
        return True

    def advance(self, sequence: Sequence, num_computed: int) -> None:
        """Note that a sequence is computed so far; its full blocks can be shared from now on."""
        sequence.num_computed = num_computed
        self._end_copy(sequence)
        size = self.pool.block_tokens
        if num_computed < (sequence.num_registered + 1) * size:
            return
        assert sequence.cached_as is not None
        for index in range(sequence.num_registered, num_computed // size):
            tokens = tuple(sequence.token_ids[index * size : (index + 1) * size])
            sequence.cached_as = self.pool.register(
                sequence.cached_as, tokens, sequence.blocks[index]
            )
        sequence.num_registered = num_computed // size

    def close(self, sequence: Sequence) -> None:
        """Give back what a sequence holds; it would have to be computed again."""
        self._end_copy(sequence)
        self.pool.release(sequence.blocks)
        sequence.blocks = []  # a new list: the current plan may name the old one
        sequence.num_computed = 0
        sequence.num_registered = 0
        sequence.cached_as = None

    def _end_copy(self, sequence: Sequence) -> None:
        if sequence.pending_copy is not None:
            self.pool.release([sequence.pending_copy.source])
            sequence.pending_copy = None


def _computed_sibling(sequence: Sequence) -> Sequence | None:
    """A running answer to the same prompt, past the prompt; None for one that was preempted."""
    if sequence.state is not SequenceState.WAITING:
        return None
    for sibling in sequence.siblings:
        if sibling.state is SequenceState.RUNNING and sibling.num_computed >= sibling.num_prompt:
            return sibling
    return None
