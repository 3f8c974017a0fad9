from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from openworks.gateway.caching.memory import MemoryAnswerCache
from tests.fakes import FakeClock
from tests.unit.gateway.caching.answers import answer


def test_an_answer_is_given_until_its_time_is_over() -> None:
    clock = FakeClock()
    cache = MemoryAnswerCache(max_bytes=100_000, clock=clock)
    kept = answer()
    cache.put(b"k", kept, ttl_s=60)
    clock.advance(59.9)
    assert cache.get(b"k") is kept
    clock.advance(0.1)
    assert cache.get(b"k") is None
    assert (len(cache), cache.size_bytes) == (0, 0)


def test_the_least_recently_used_makes_room() -> None:
    cache = MemoryAnswerCache(max_bytes=6_000, clock=FakeClock())
    for name in (b"a", b"b", b"c"):
        cache.put(name, answer(b"x" * 900), ttl_s=60)
    assert cache.get(b"a")
    cache.put(b"d", answer(b"x" * 900), ttl_s=60)
    assert cache.get(b"b") is None
    assert cache.get(b"a")
    assert cache.evictions == 1


def test_an_answer_over_the_limit_is_not_kept_and_evicts_nothing() -> None:
    cache = MemoryAnswerCache(max_bytes=10_000, max_answer_bytes=3_000, clock=FakeClock())
    cache.put(b"a", answer(), ttl_s=60)
    cache.put(b"b", answer(b"x" * 4_000), ttl_s=60)
    assert cache.get(b"b") is None
    assert cache.get(b"a")


def test_a_newer_answer_takes_the_place_of_the_older() -> None:
    cache = MemoryAnswerCache(max_bytes=10_000, clock=FakeClock())
    cache.put(b"a", answer(b"x" * 100), ttl_s=60)
    small = replace(answer(), body=b"1")
    cache.put(b"a", small, ttl_s=60)
    assert cache.get(b"a") is small
    assert len(cache) == 1
    cache.put(b"a", small, ttl_s=0)
    assert cache.get(b"a") is None
    assert cache.size_bytes == 0


operations = st.lists(
    st.tuples(
        st.sampled_from(["put", "get", "wait"]),
        st.integers(0, 9),
        st.integers(0, 3_000),
    ),
    max_size=60,
)


@given(operations)
def test_the_cache_never_takes_more_than_its_bytes(todo: list[tuple[str, int, int]]) -> None:
    clock = FakeClock()
    cache = MemoryAnswerCache(max_bytes=8_000, clock=clock)
    newest: dict[bytes, bytes] = {}
    for action, number, amount in todo:
        name = b"%d" % number
        if action == "put":
            newest[name] = b"x" * amount
            cache.put(name, answer(newest[name]), ttl_s=50)
        elif action == "get":
            found = cache.get(name)
            assert found is None or found.body == newest[name]
        else:
            clock.advance(number)
        assert cache.size_bytes <= 8_000
        assert (cache.size_bytes == 0) is (len(cache) == 0)
