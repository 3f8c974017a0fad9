from __future__ import annotations

import pytest

from openworks.core.errors import InvalidRequestError
from openworks.gateway.heads import Heads
from openworks.ports.upstream import Headers

HEADERS: Headers = [
    (b"authorization", b"Bearer sk-theirs"),
    (b"cf-aig-authorization", b"Bearer sk-ow-ours"),
    (b"cf-aig-cache-ttl", b"60"),
    (b"accept", b"*/*"),
]


def fresh(headers: Headers) -> Headers:
    """The same bytes in other objects, as they come off a connection."""
    return [(bytes(bytearray(name)), bytes(bytearray(value))) for name, value in headers]


def test_head_says_who_asks_what_they_wish_and_what_the_provider_may_see() -> None:
    head = Heads().read(HEADERS, None)

    assert (head.secret, head.brought) == ("sk-ow-ours", True)
    assert head.options.cache_ttl_s == 60
    assert head.options.authorization == b"sk-ow-ours"
    assert head.forward == [HEADERS[0], HEADERS[3]]
    assert head.told == b"accept:*/*"


def test_head_that_comes_again_is_not_read_again() -> None:
    heads = Heads()

    assert heads.read(fresh(HEADERS), None) is heads.read(fresh(HEADERS), None)


def test_length_of_the_body_makes_no_other_head() -> None:
    heads = Heads()
    short, long = [*HEADERS, (b"content-length", b"2")], [*HEADERS, (b"content-length", b"200")]

    assert heads.read(short, None) is heads.read(long, None)


@pytest.mark.parametrize("place", range(len(HEADERS)))
def test_head_with_another_value_is_another(place: int) -> None:
    heads = Heads()
    name, value = HEADERS[place]
    other = [*HEADERS]
    other[place] = (name, value + b"1")
    heads.read(HEADERS, None)

    read = heads.read(other, None)

    assert read is not heads.read(HEADERS, None)
    assert (read.secret, read.options, read.forward) != (
        heads.read(HEADERS, None).secret,
        heads.read(HEADERS, None).options,
        heads.read(HEADERS, None).forward,
    )


def test_header_that_makes_no_sense_is_refused_each_time() -> None:
    heads = Heads()
    for _ in range(2):
        with pytest.raises(InvalidRequestError):
            heads.read([(b"cf-aig-cache-ttl", b"soon")], None)


@pytest.mark.parametrize(
    "headers",
    [[(b"x-long", b"x" * 5000)], [(b"x-%d" % number, b"1") for number in range(100)]],
    ids=["bytes", "headers"],
)
def test_long_heads_are_not_remembered(headers: Headers) -> None:
    heads = Heads()

    first = heads.read(headers, None)

    assert heads.read(headers, None) is not first
    assert heads.read(headers, None).forward == first.forward


def test_oldest_head_makes_room_for_the_newest() -> None:
    heads = Heads(limit=2)
    first, second = (heads.read([(b"x-number", b"%d" % number)], None) for number in range(2))

    heads.read([(b"x-number", b"2")], None)

    assert heads.read([(b"x-number", b"1")], None) is second
    assert heads.read([(b"x-number", b"0")], None) is not first
