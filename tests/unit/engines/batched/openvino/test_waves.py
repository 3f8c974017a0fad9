from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openworks.engines.batched.openvino.waves import plan_waves
from openworks.engines.batched.step import Piece

_pieces = st.lists(
    st.tuples(st.integers(1, 300), st.one_of(st.none(), st.integers(0, 7))), min_size=1, max_size=20
)


def _piece(length: int, slot: int | None) -> Piece:
    return Piece(range(length), 0, (0,), slot, 1)


@given(_pieces)
def test_every_piece_is_in_one_wave(shapes: list[tuple[int, int | None]]) -> None:
    waves = plan_waves([_piece(*shape) for shape in shapes], dict.fromkeys(range(8), 1))
    assert sorted(index for wave in waves for index in wave) == list(range(len(shapes)))
    assert all(waves)


def test_single_tokens_are_computed_together() -> None:
    pieces = [_piece(1, slot) for slot in (0, 1, 2, 0, None, 3)]
    assert len(plan_waves(pieces, dict.fromkeys(range(4), 1))) == 1


def test_a_long_chunk_is_not_multiplied_by_its_neighbours_adapters() -> None:
    pieces = [_piece(256, 0), *(_piece(1, slot) for slot in range(1, 8)), _piece(9, None)]
    waves = plan_waves(pieces, dict.fromkeys(range(8), 1))
    assert waves == [[1, 2, 3, 4, 5, 6, 7], [0, 8]]


def test_chunks_without_adapters_part_no_step() -> None:
    pieces = [_piece(256, None), *(_piece(1, slot) for slot in range(8))]
    assert len(plan_waves(pieces, dict.fromkeys(range(8), 1))) == 1
