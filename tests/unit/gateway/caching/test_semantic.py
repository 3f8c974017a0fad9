from __future__ import annotations

import math
from array import array
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworks.core.errors import ModelUnavailableError
from openworks.gateway.caching.semantic import SemanticCache
from openworks.ports.calls import Usage
from openworks.ports.text import EmbeddingRequest, EmbeddingResult
from tests.fakes import FakeClock
from tests.unit.gateway.caching.answers import answer


class TableEmbedder:
    """Embeds by a table; texts that it does not have are an error of the model."""

    def __init__(self, table: Mapping[str, list[float]]) -> None:
        self.table = table

    async def embed(self, request: EmbeddingRequest) -> EmbeddingResult:
        vectors = []
        for text in request.inputs:
            if not isinstance(text, str) or text not in self.table:
                raise ModelUnavailableError("The embedder is away.")
            vectors.append(array("f", self.table[text]).tobytes())
        return EmbeddingResult(vectors=vectors, usage=Usage())


def cache_of(
    table: Mapping[str, list[float]], *, clock: FakeClock | None = None, **bounds: int
) -> SemanticCache:
    return SemanticCache(embedder=TableEmbedder(table), clock=clock or FakeClock(), **bounds)


ANIMALS = {"cat": [1.0, 0.0], "kitten": [0.96, 0.28], "dog": [0.6, 0.8]}


async def test_an_alike_question_gets_the_answer_and_its_similarity() -> None:
    cache = cache_of(ANIMALS)
    made = answer()
    cache.put(await cache.look(b"s", "cat", threshold=0.9), made, ttl_s=60)
    found = await cache.look(b"s", "kitten", threshold=0.9)
    assert found.answer is made
    assert found.similarity == pytest.approx(0.96, abs=1e-5)


async def test_a_question_below_the_threshold_gets_none() -> None:
    cache = cache_of(ANIMALS)
    cache.put(await cache.look(b"s", "cat", threshold=0.9), answer(), ttl_s=60)
    assert (await cache.look(b"s", "dog", threshold=0.9)).answer is None


async def test_the_most_alike_of_several_wins() -> None:
    cache = cache_of(ANIMALS)
    cat, dog = answer(b"cat"), answer(b"dog")
    cache.put(await cache.look(b"s", "dog", threshold=2), dog, ttl_s=60)
    cache.put(await cache.look(b"s", "cat", threshold=2), cat, ttl_s=60)
    assert (await cache.look(b"s", "kitten", threshold=0.5)).answer is cat


async def test_scopes_never_mix() -> None:
    cache = cache_of(ANIMALS)
    cache.put(await cache.look(b"mine", "cat", threshold=0.9), answer(), ttl_s=60)
    assert (await cache.look(b"yours", "cat", threshold=0.9)).answer is None


async def test_answers_expire() -> None:
    clock = FakeClock()
    cache = cache_of(ANIMALS, clock=clock)
    cache.put(await cache.look(b"s", "cat", threshold=0.9), answer(), ttl_s=60)
    clock.advance(60)
    assert (await cache.look(b"s", "cat", threshold=0.9)).answer is None
    assert cache.size_bytes == 0


async def test_an_embedder_that_fails_is_a_miss_that_keeps_nothing() -> None:
    cache = cache_of(ANIMALS)
    likeness = await cache.look(b"s", "horse", threshold=0.9)
    assert likeness.answer is None
    assert cache.embedder_failures == 1
    cache.put(likeness, answer(), ttl_s=60)
    assert cache.size_bytes == 0


async def test_a_full_scope_forgets_its_oldest() -> None:
    cache = cache_of(ANIMALS, max_entries_per_scope=1)
    for text in ("cat", "dog"):
        cache.put(await cache.look(b"s", text, threshold=0.99), answer(), ttl_s=60)
    assert (await cache.look(b"s", "cat", threshold=0.99)).answer is None
    assert (await cache.look(b"s", "dog", threshold=0.99)).answer is not None


async def test_bytes_are_bounded_over_all_scopes() -> None:
    cache = cache_of(ANIMALS, max_bytes=20_000)
    for number in range(50):
        likeness = await cache.look(b"%d" % number, "cat", threshold=0.9)
        cache.put(likeness, answer(b"x" * 1_000), ttl_s=60)
        assert cache.size_bytes <= 20_000
    assert (await cache.look(b"49", "cat", threshold=0.9)).answer is not None
    assert (await cache.look(b"0", "cat", threshold=0.9)).answer is None


vectors = st.lists(
    st.lists(st.floats(-1, 1, width=32), min_size=150, max_size=150).filter(
        lambda v: sum(x * x for x in v) > 0.1
    ),
    min_size=2,
    max_size=6,
)


@given(vectors, st.floats(0.1, 0.99))
async def test_giving_up_early_changes_no_result(many: list[list[float]], threshold: float) -> None:
    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

    cache = cache_of({str(number): vector for number, vector in enumerate(many)})
    for number in range(1, len(many)):
        likeness = await cache.look(b"s", str(number), threshold=2)
        cache.put(likeness, answer(b"%d" % number), ttl_s=60)
    best = max(cosine(many[0], other) for other in many[1:])
    found = await cache.look(b"s", "0", threshold=threshold)
    if best > threshold + 1e-4:
        assert found.answer is not None
        assert found.similarity == pytest.approx(best, abs=1e-4)
    elif best < threshold - 1e-4:
        assert found.answer is None
