from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworks.core.errors import InvalidRequestError
from openworks.engines.vectors import shortened

vectors = st.lists(
    st.floats(-1, 1, width=32).filter(lambda x: abs(x) > 1e-3), min_size=1, max_size=64
)


@given(vectors, st.data())
def test_shortened_vector_points_the_same_way_with_length_one(
    numbers: list[float], data: st.DataObject
) -> None:
    width = data.draw(st.integers(1, len(numbers)))
    packed = struct.pack(f"<{len(numbers)}f", *numbers)
    short = struct.unpack(f"<{width}f", shortened(packed, width))
    if width < len(numbers):
        assert math.fsum(number * number for number in short) == pytest.approx(1, rel=1e-5)
    assert all(a * b > 0 for a, b in zip(short, numbers, strict=False))


def test_more_dimensions_than_the_model_has_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="this model's vectors have 2, got 3"):
        shortened(struct.pack("<2f", 0.6, 0.8), 3)
