from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworks.core.errors import StorageError
from openworks.storage.logbook.packs import Pack, unpack

BODY = st.one_of(st.binary(max_size=50), st.integers(0, 200_000))
"""Bytes, or a length: long bodies themselves would be written out with an example."""


def made(body: bytes | int) -> bytes:
    return b"x" * body if isinstance(body, int) else body


@given(st.lists(st.tuples(BODY, BODY), max_size=12))
def test_every_body_is_found_at_its_place(drawn: list[tuple[bytes | int, bytes | int]]) -> None:
    bodies = [(made(request), made(response)) for request, response in drawn]
    pack = Pack()
    for request, response in bodies:
        pack.add(request, response)
    data, places = pack.close()

    assert len(places) == len(bodies)
    for (request, response), place in zip(bodies, places, strict=True):
        block = bytes(data[place.block_offset : place.block_offset + place.block_bytes])
        both = unpack(block, offset=place.body_offset, length=len(request) + len(response))
        assert both == request + response


def test_bodies_that_are_alike_take_little_room() -> None:
    pack = Pack()
    for number in range(500):
        pack.add(b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}' * 10, b"%d" % number)
    data, places = pack.close()

    assert len(data) < 500 * 600 / 20
    assert len({place.block_offset for place in places}) > 1


@pytest.mark.parametrize("block", [b"nonsense", b""])
def test_damaged_block_is_said_to_be_damaged(block: bytes) -> None:
    with pytest.raises(StorageError, match="damaged"):
        unpack(block, offset=0, length=10)
