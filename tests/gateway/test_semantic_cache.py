"""Questions that mean the same share an answer, where a gateway wants that."""

from __future__ import annotations

import httpx2

from tests.gateway.gateway_server import Place

_ON = {"enabled": True, "threshold": 0.8}


def _ask(place: Place, question: str, **more: object) -> httpx2.Response:
    return place.post(
        "openai/chat/completions",
        {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": question}], **more},
        gateway="alike",
    )


def test_question_that_means_the_same_is_answered_from_memory(place: Place) -> None:
    place.make("alike", cache_ttl=60, semantic_cache=_ON)
    first = _ask(place, "The dog sleeps in the garden.")
    same = _ask(place, "A dog is sleeping in the garden.")
    other = _ask(place, "My train leaves at noon.")

    assert same.headers["cf-aig-cache-status"] == "HIT"
    assert 0.8 <= float(same.headers["cf-aig-cache-similarity"]) < 1
    assert same.content == first.content
    assert other.headers["cf-aig-cache-status"] == "MISS"
    assert "cf-aig-cache-similarity" not in other.headers
    assert len(place.provider.requests) == 2


def test_only_the_question_may_differ(place: Place) -> None:
    place.make("alike", cache_ttl=60, semantic_cache=_ON)
    _ask(place, "The dog sleeps in the garden.")
    warmer = _ask(place, "A dog is sleeping in the garden.", temperature=1.5)

    assert warmer.headers["cf-aig-cache-status"] == "MISS"


def test_without_the_option_only_the_same_question_is_answered_from_memory(place: Place) -> None:
    place.make("alike", cache_ttl=60)
    _ask(place, "The dog sleeps in the garden.")
    same = _ask(place, "A dog is sleeping in the garden.")

    assert same.headers["cf-aig-cache-status"] == "MISS"
