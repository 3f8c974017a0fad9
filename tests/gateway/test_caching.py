"""What is answered from memory, and what never is."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import httpx2
import pytest

from tests.gateway.gateway_server import Place, chat_body, message_body
from tests.gateway.stand_in import Reply, Request, answer_as_provider

_TTL = {"cf-aig-cache-ttl": "60"}


def _status(answer: httpx2.Response) -> str | None:
    value: str | None = answer.headers.get("cf-aig-cache-status")
    return value


def test_the_second_of_two_same_calls_is_answered_from_memory(place: Place) -> None:
    first = place.chat("gpt-4o-mini", headers=_TTL)
    second = place.chat("gpt-4o-mini", headers=_TTL)

    assert (_status(first), _status(second)) == ("MISS", "HIT")
    assert second.content == first.content
    assert second.headers["content-type"] == first.headers["content-type"]
    assert second.headers["cf-aig-log-id"] != first.headers["cf-aig-log-id"]
    assert len(place.provider.requests) == 1
    record = place.record_of(second)
    assert (record.cached, record.cost_usd, record.attempts) == (True, 0, 0)
    assert record.usage.prompt_tokens == 120


def test_without_a_lifetime_nothing_is_cached(place: Place) -> None:
    answers = [place.chat() for _ in range(2)]

    assert [_status(answer) for answer in answers] == [None, None]
    assert len(place.provider.requests) == 2


def test_a_gateways_own_lifetime_holds_until_a_call_says_otherwise(place: Place) -> None:
    place.make("gw", cache_ttl=60)
    said = [
        _status(place.chat(gateway="gw", headers=headers))
        for headers in (
            {},
            {},
            {"cf-aig-skip-cache": "true"},
            {"cf-skip-cache": "true"},
            {"cf-aig-cache-ttl": "0"},
            {},
        )
    ]

    assert said == ["MISS", "HIT", None, None, None, "HIT"]


def test_an_answer_is_forgotten_after_its_lifetime(place: Place) -> None:
    headers = {"cf-aig-cache-ttl": "1"}
    assert _status(place.chat(headers=headers)) == "MISS"
    assert _status(place.chat(headers=headers)) == "HIT"
    time.sleep(1.1)
    assert _status(place.chat(headers=headers)) == "MISS"


def test_a_key_of_the_callers_own_stands_for_the_body(place: Place) -> None:
    headers = {"cf-aig-cache-key": "one"}
    first = place.chat("mock", headers=headers)
    second = place.chat("mock-t9", headers=headers)
    other = place.chat("mock", headers={"cf-aig-cache-key": "two"})

    assert (_status(first), _status(second), _status(other)) == ("MISS", "HIT", "MISS")
    assert second.content == first.content


def _another_body(place: Place) -> httpx2.Response:
    return place.chat("mock", headers=_TTL, temperature=0.5)


def _another_path(place: Place) -> httpx2.Response:
    return place.post("openai/v1/chat/completions", chat_body(), headers=_TTL)


def _another_query(place: Place) -> httpx2.Response:
    return place.post("openai/chat/completions?a=1", chat_body(), headers=_TTL)


def _another_provider(place: Place) -> httpx2.Response:
    return place.post("groq/chat/completions", chat_body(), headers=_TTL)


def _another_credential(place: Place) -> httpx2.Response:
    return place.chat("mock", headers={**_TTL, "authorization": "Bearer sk-of-somebody-else"})


def _another_account(place: Place) -> httpx2.Response:
    return Place(place.server, f"{place.account}-2").chat("mock", headers=_TTL)


def _another_gateway(place: Place) -> httpx2.Response:
    place.make("other")
    return place.chat("mock", gateway="other", headers=_TTL)


def _another_organization(place: Place) -> httpx2.Response:
    return place.chat("mock", headers={**_TTL, "openai-organization": "org-2"})


@pytest.mark.parametrize(
    "other",
    [
        _another_body,
        _another_path,
        _another_query,
        _another_provider,
        _another_credential,
        _another_account,
        _another_gateway,
        _another_organization,
    ],
)
def test_calls_that_differ_share_no_answer(
    place: Place, other: Callable[[Place], httpx2.Response]
) -> None:
    place.chat("mock", headers=_TTL)

    answer = other(place)

    assert answer.status_code == 200
    assert _status(answer) == "MISS"
    assert len(place.provider.requests) == 2


@pytest.mark.parametrize(
    "other", [_another_credential, _another_account, _another_gateway, _another_provider]
)
def test_a_key_of_the_callers_own_reaches_no_other_caller(
    place: Place, other: Callable[[Place], httpx2.Response]
) -> None:
    keyed = {**_TTL, "cf-aig-cache-key": "the-same"}
    place.post("openai/chat/completions", chat_body(), headers=keyed)
    real = Place.post

    def post(self: Place, *args: object, **named: object) -> httpx2.Response:
        headers = {**named.pop("headers", {}), "cf-aig-cache-key": "the-same"}  # type: ignore[dict-item]
        return real(self, *args, headers=headers, **named)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Place, "post", post)
        assert _status(other(place)) == "MISS"


def test_a_stored_key_that_changed_shares_no_answer_with_the_old_one(place: Place) -> None:
    place.make("gw", byok_only=True)
    place.keep_credential("sk-1", alias="a")
    place.keep_credential("sk-2", alias="b", default=False)
    said = [
        _status(place.chat(gateway="gw", headers={**_TTL, "cf-aig-byok-alias": alias}))
        for alias in ("a", "b", "a", "b")
    ]

    assert said == ["MISS", "MISS", "HIT", "HIT"]


def test_only_calls_of_models_are_cached_unasked(place: Place) -> None:
    """A look must see what is, and a deed must be done."""
    place.make("gw", cache_ttl=60)
    place.provider.script(lambda request: Reply(body=request.method.encode()))

    for method in ("GET", "GET", "DELETE", "DELETE", "POST", "POST"):
        answer = place.server.http.request(
            method, place.url("openai/batches/1", "gw"), headers=place.headers()
        )
        assert (answer.text, _status(answer)) == (method, None)
    asked = [place.post("openai/tts", {"say": "a"}, headers=_TTL) for _ in range(2)]

    assert [_status(answer) for answer in asked] == ["MISS", "HIT"]
    assert len(place.provider.requests) == 7


@pytest.mark.parametrize("status", [201, 400, 404, 429, 500])
def test_only_plain_successes_are_kept(place: Place, status: int) -> None:
    place.provider.script(lambda _: Reply(status=status, body=b'{"id": 1}'))
    model = f"mock-only-{status}"
    answers = [place.chat(model, headers=_TTL) for _ in range(2)]

    assert [_status(answer) for answer in answers] == ["MISS", "MISS"]
    assert len(place.provider.requests) == 2


@pytest.mark.parametrize("path", ["openai/chat/completions", "anthropic/messages"])
def test_streams_are_given_again_as_streams(place: Place, path: str) -> None:
    body = message_body("mock-t30", stream=True)
    first = place.post(path, body, headers=_TTL)
    second = place.post(path, body, headers=_TTL)

    assert (_status(first), _status(second)) == ("MISS", "HIT")
    assert second.content == first.content
    assert second.headers["content-type"] == "text/event-stream"
    assert len(place.provider.requests) == 1
    assert place.record_of(second).cached


def test_a_stream_that_broke_is_not_given_again(place: Place) -> None:
    for _ in range(2):
        answer = place.chat("mock-k5-t30", stream=True, headers=_TTL)
        assert _status(answer) == "MISS"

    assert len(place.provider.requests) == 2


def test_a_stream_that_its_caller_left_is_not_given_again(place: Place) -> None:
    body = chat_body("mock-t200-c5", stream=True)
    with place.server.http.stream(
        "POST", place.url("openai/chat/completions"), json=body, headers=place.headers(_TTL)
    ) as answer:
        next(answer.iter_raw())

    answer = place.post("openai/chat/completions", body, headers=_TTL)

    assert _status(answer) == "MISS"
    assert answer.text.endswith("data: [DONE]\n\n")


def test_an_update_may_forget_what_was_kept(place: Place) -> None:
    place.make("gw", cache_ttl=60, cache_invalidate_on_update=True)
    assert [_status(place.chat(gateway="gw")) for _ in range(2)] == ["MISS", "HIT"]

    place.make("gw", cache_ttl=61, cache_invalidate_on_update=True)

    assert _status(place.chat(gateway="gw")) == "MISS"


async def _many(place: Place, count: int, model: str, **more: object) -> list[httpx2.Response]:
    limits = httpx2.Limits(max_connections=count)
    async with httpx2.AsyncClient(timeout=30, limits=limits) as client:
        return await asyncio.gather(
            *(
                client.post(
                    place.url("openai/chat/completions"),
                    json=chat_body(model, **more),
                    headers=place.headers(_TTL),
                )
                for _ in range(count)
            )
        )


@pytest.mark.parametrize("stream", [False, True])
async def test_fifty_concurrent_same_misses_are_one_call_of_the_provider(
    place: Place, stream: bool
) -> None:
    answers = await _many(place, 50, "mock-d300-t5", stream=stream)

    assert len({answer.content for answer in answers}) == 1
    assert all(answer.status_code == 200 for answer in answers)
    said = sorted(str(_status(answer)) for answer in answers)
    assert said == ["HIT"] * 49 + ["MISS"]
    assert len(place.provider.requests) == 1
    records = await asyncio.to_thread(place.records, 50)
    assert sum(record.cached for record in records) == 49


async def test_who_waits_goes_on_when_the_leader_leaves(place: Place) -> None:
    chat, body = place.url("openai/chat/completions"), chat_body("mock-d500")
    async with httpx2.AsyncClient(timeout=30) as client:

        def ask() -> asyncio.Task[httpx2.Response]:
            call = client.post(chat, json=body, headers=place.headers(_TTL))
            return asyncio.create_task(call)

        leader = ask()
        await asyncio.sleep(0.15)
        others = [ask() for _ in range(10)]
        await asyncio.sleep(0.1)
        leader.cancel()
        answers = await asyncio.gather(*others)

    assert all(answer.status_code == 200 for answer in answers)
    assert sorted(str(_status(a)) for a in answers) == ["HIT"] * 9 + ["MISS"]
    assert len(place.provider.requests) == 2


async def test_who_waits_asks_itself_when_the_leader_fails(place: Place) -> None:
    turns = threading.Lock()

    def fail_once(request: Request) -> Reply:
        if turns.acquire(blocking=False):
            return Reply(status=500, body=b'{"error": {"message": "once"}}', delay_s=0.3)
        return answer_as_provider(request)

    place.provider.script(fail_once)
    answers = await _many(place, 5, "mock-fail-once")

    assert sorted(answer.status_code for answer in answers) == [200] * 4 + [500]
