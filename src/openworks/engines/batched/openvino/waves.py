"""Parts a step where its pieces are too unlike for their adapters to be multiplied together.

Plain Python over ints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from openworks.engines.batched.step import Piece

_FREE_ROWS = 64
"""How many rows may be multiplied in vain: less than reading the weights once more costs."""


def plan_waves(pieces: Sequence[Piece], num_pages: Mapping[int, int]) -> list[list[int]]:
    """Part a step into batches.

    Every page of adapters is multiplied by as many rows as the adapter with the most has, so a
    long chunk of a prompt beside many adapters' single tokens would multiply its length for all.

    Args:
        pieces: Of the step.
        num_pages: Of each slot that is in use.

    Returns:
        Indices of pieces, for each batch; at most one without adapters in it, if it is the only.
    """
    waves: list[list[int]] = []
    wave: list[int] = []
    rows: dict[int, int] = {}
    for index in sorted(range(len(pieces)), key=lambda index: len(pieces[index].token_ids)):
        slot = pieces[index].slot
        if slot is None:
            continue
        length = len(pieces[index].token_ids)
        grown = {**rows, slot: rows.get(slot, 0) + length}
        if wave and _is_wasteful(grown, num_pages):
            waves.append(wave)
            wave, grown = [], {slot: length}
        wave.append(index)
        rows = grown
    wave.extend(index for index, piece in enumerate(pieces) if piece.slot is None)
    return [*waves, wave]


def _is_wasteful(rows: Mapping[int, int], num_pages: Mapping[int, int]) -> bool:
    used = sum(count * num_pages[slot] for slot, count in rows.items())
    multiplied = max(rows.values()) * sum(num_pages[slot] for slot in rows)
    return multiplied - used > max(_FREE_ROWS, used)
